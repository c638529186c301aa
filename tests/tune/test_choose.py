"""The whole of it on small models: real caches, real measurements, and other text at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError
from bottleneck_core.generate import Engine, Plan
from bottleneck_core.memory import CachePolicy, kv_memory
from bottleneck_core.memory.policy_text import parse_policy
from bottleneck_core.tune import Choice, Guard, choose, recheck, timing
from bottleneck_core.tune.memo import Memo
from bottleneck_core.tune.plans import search_plans
from bottleneck_core.tune.timing import DecodeTimer, Timing, fill
from tests.model.tiny_models import MODES, scrambled, tiny, tokens

TEXT = tokens(1, 900)[0]
OTHER = tokens(1, 900, seed=77)[0]
CHECKED = {"self_opt_policy_quality": True, "self_opt_verify": True}
SMALL = {
    "self_opt_residuals": "0,8",
    "self_opt_qblocks": "4,8",
    "self_opt_k_sem_kinds": "q8_0,q4_0",
    "self_opt_k_geo_kinds": "q8_0,fp16",
    "self_opt_v_kinds": "q8_0,q4_0",
    "self_opt_decode_blocks": "8,32",
    "self_opt_calib_prefill": 16,
    "self_opt_calib_decode": 4,
    "self_opt_iters": 1,
    "self_opt_policy_iters": 1,
    "kv_page": 16,
}


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "RUN_SECONDS", 0.0)


def model(mode: str = "decoupled") -> Any:
    return scrambled(tiny(mode), dtype=torch.float32)


def settings(**given: Any) -> RunConfig:
    return RunConfig.resolve(**{**SMALL, **CHECKED, **given})


def megabytes(net: Any, share: float) -> float:
    """A budget of so much of the fp16 cache at 96 tokens."""
    return share * kv_memory(net.config, 96, policy=CachePolicy(), page=16).bytes / 1e6


def spread_of(net: Any, policy: str = "q8_0,residual=0") -> float:
    return Guard(net, TEXT, prefix=24, scored=4).measure(parse_policy(policy), "all").largest


@pytest.mark.parametrize("mode", MODES)
def test_the_choice_meets_its_tolerance_on_other_text(mode: str) -> None:
    net = model(mode)
    tolerance = 6 * spread_of(net)  # q8_0 passes, most of q4_0 does not
    choice = choose(
        net,
        settings(self_opt_quality_tol=tolerance, self_opt_mem_budget_mb=megabytes(net, 0.8)),
        calibration=TEXT,
        context=96,
    )
    report = choice.report
    assert report["guarded"] and report["verified"] and report["rejected_counts"]["over the budget"] >= 1
    assert report["chosen"]["policy"] != "fp16"
    assert report["chosen"]["bytes"] <= report["budget_bytes"]
    assert report["chosen"]["quality"]["largest"] <= tolerance
    assert recheck(net, choice, OTHER).largest <= tolerance
    json.dumps(report, allow_nan=False)
    engine = Engine(net, choice.policy, plan=choice.plan, page=16)
    fill(engine, 96, 1)
    assert engine.cache.allocated_bytes == report["chosen"]["bytes"]


def test_a_large_space_is_searched_by_prediction() -> None:
    net = model()
    given = settings(self_opt_k_sem_kinds="q4_0,nf4,q8_0,fp16", self_opt_quality_tol=6 * spread_of(net))
    report = choose(net, given, calibration=TEXT, context=96).report
    assert report["probes"] > 0 and report["rejected_counts"]["not measured"] > 0
    placed = len(report["policies"]) + len(report["plans"]) + len(report["rejected"])
    assert placed == report["candidates"]


def test_every_candidate_has_its_place() -> None:
    report = choose(model("standard"), settings(), calibration=TEXT, context=96).report
    placed = len(report["policies"]) + len(report["plans"]) + len(report["rejected"])
    assert placed == report["candidates"]
    assert sum(report["rejected_counts"].values()) == len(report["rejected"])
    assert all((row["why_not"] is None) == (row["policy"] == report["chosen"]["policy"]) for row in report["policies"])
    assert any(row["pareto"] for row in report["policies"])


def test_a_tolerance_of_nothing_leaves_fp16() -> None:
    choice = choose(model(), settings(self_opt_quality_tol=0.0), calibration=TEXT, context=96)
    assert choice.policy == CachePolicy()
    assert recheck(model(), choice, OTHER).largest <= 1e-3


def test_the_guard_reads_beyond_the_longest_window() -> None:
    report = choose(model("gqa"), settings(), calibration=TEXT, context=96).report
    assert report["guard"]["prefix"] == 16 + 8


def test_scopes() -> None:
    decode = choose(model("gqa"), settings(self_opt_scope="decode"), context=96)
    assert decode.policy == CachePolicy() and not decode.report["policies"] and len(decode.report["plans"]) == 3
    assert not decode.report["guarded"] and decode.report["why"]["policy"] == "not searched"
    assert len(decode.plans) == 2 and decode.plans[0] == decode.plan != decode.plans[1]
    cache = choose(model("gqa"), settings(self_opt_scope="cache"), calibration=TEXT, context=96)
    assert cache.plan == Plan() and cache.runner_up is None and cache.plans == [Plan()]


def test_unguarded_is_said_and_not_remembered(tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "memo.json"
    given = settings(self_opt_policy_quality=False, self_opt_cache=str(path))
    choice = choose(model("gqa"), given, context=96, notify=said.append)
    assert not choice.report["guarded"] and choice.report["chosen"]["quality"] is None
    assert not path.exists() and any("not remembered" in line for line in said)
    with pytest.raises(UserError, match="not guarded"):
        recheck(model("gqa"), choice, OTHER)


def test_a_guard_without_text_or_with_one_scored_token_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "memo.json"
    with pytest.raises(UserError, match="no calibration text"):
        choose(model("gqa"), settings(self_opt_cache=str(path)), context=96)
    with pytest.raises(UserError, match="two scored tokens"):
        choose(model("gqa"), settings(self_opt_cache=str(path), self_opt_calib_decode=1), calibration=TEXT, context=96)
    impossible = settings(self_opt_cache=str(path), self_opt_quality_tol=0.0)
    impossible = impossible.model_copy(update={"self_opt_mem_budget_mb": megabytes(model("gqa"), 0.8)})
    with pytest.raises(UserError, match="meets the tolerance"):
        choose(model("gqa"), impossible, calibration=TEXT, context=96)
    assert not path.exists()  # nothing is stored where the guard did not pass


def test_a_choice_is_remembered_and_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(self_opt_cache=str(tmp_path / "memo.json"))
    first = choose(model("gqa"), given, calibration=TEXT, context=96)
    with monkeypatch.context() as patch:
        patch.setattr(DecodeTimer, "time", None)  # measuring would fail
        again = choose(model("gqa"), given, calibration=TEXT, context=96)
    assert again.report == first.report | {"remembered": True}
    assert (again.policy, again.plan, again.runner_up) == (first.policy, first.plan, first.runner_up)

    document = json.loads((tmp_path / "memo.json").read_text())
    next(iter(document["entries"].values()))["value"]["chosen"] = {}
    (tmp_path / "memo.json").write_text(json.dumps(document))
    said: list[str] = []
    assert not choose(model("gqa"), given, calibration=TEXT, context=96, notify=said.append).report["remembered"]
    assert any("damaged" in line for line in said)
    assert Memo(tmp_path / "memo.json").path.is_file()


def test_context_and_prefix_come_from_the_prompt_in_whole_pages() -> None:
    given = settings(self_opt_scope="decode", max_new_tokens=20)
    report = choose(model("gqa"), given, prompt_tokens=30).report
    assert (report["context"], report["prefix"]) == (64, 32)
    report = choose(model("gqa"), settings(self_opt_scope="decode")).report
    assert (report["context"], report["prefix"]) == (16, 16)  # the block size
    with pytest.raises(UserError, match="batch"):
        choose(model("gqa"), given, batch=0)


def test_measurements_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    notified: list[str] = []
    progressed: list[str] = []
    given = settings(self_opt_scope="decode")
    choose(model("gqa"), given, context=96, notify=notified.append, progress=progressed.append)
    assert progressed and not notified
    choose(model("gqa"), settings(self_opt_scope="decode", self_opt_verbose=True), context=96, notify=notified.append)
    assert any("ms a token" in line for line in notified)
    assert capsys.readouterr().out == ""


def test_a_full_cache_costs_what_it_holds_and_plans_agree() -> None:
    net = model()
    timer = DecodeTimer(net, prefix=70, batch=2, page=16)
    one = timer.time(CachePolicy(kind="q4_0", residual=8), Plan(block=8), warmup=0, runs=2)
    two = timer.time(CachePolicy(kind="q4_0", residual=8), Plan(block=64), warmup=1, runs=3)
    assert (len(one.seconds), len(two.seconds)) == (2, 3)
    assert one.logits.shape == (2, 23)
    assert torch.allclose(one.logits, two.logits, atol=1e-4)
    other = timer.time(CachePolicy(kind="q8_0", residual=8), Plan(block=8), warmup=0, runs=1)
    assert not torch.allclose(one.logits, other.logits, atol=1e-4)


def test_a_plan_whose_outputs_differ_is_rejected_however_fast() -> None:
    plans = [Plan(block=1), Plan(block=2), Plan(block=3)]
    logits = {1: 0.0, 2: 1.0, 3: 0.001}

    def time(plan: Plan) -> Timing:
        return Timing(seconds=(1.0 / plan.block,), logits=torch.full((1, 4), logits[plan.block]))

    found = search_plans(plans, time, hysteresis=0.03, tolerance=0.005)
    assert found.chosen.value == plans[2]
    assert [each.reason for each in found.rejected] == ["verification"]
    assert found.runner_up is not None and found.runner_up.value == plans[0]
    assert search_plans(plans[:2], time, hysteresis=0.03, tolerance=None).chosen.value == plans[1]
    undefined = {**logits, 3: float("nan")}
    logits.update(undefined)
    assert search_plans(plans, time, hysteresis=0.03, tolerance=0.005).chosen.value == plans[0]


def test_a_report_is_a_choice() -> None:
    choice = choose(model("gqa"), settings(self_opt_scope="decode"), context=96)
    again = Choice.of(json.loads(json.dumps(choice.report)))
    assert (again.policy, again.plan, again.runner_up) == (choice.policy, choice.plan, choice.runner_up)
