"""Cache quality against brute force: logits of a full pass over rounded keys and values, and sums written out."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from bottleneck_core.errors import UserError
from bottleneck_core.generate import Engine, Plan
from bottleneck_core.generate.heldout import spread
from bottleneck_core.generate.quality import Policy, PolicyQuality, cache_quality, scored_of
from bottleneck_core.memory import CachePolicy
from bottleneck_core.memory.policy_text import parse_policy
from bottleneck_core.model import GPT
from tests.generate.test_cached_decoding import rounded_pass
from tests.model.tiny_models import MODES, scrambled, tiny

TEXT = np.random.default_rng(3).integers(0, 23, 400).astype(np.uint16)
FP16 = CachePolicy()


def model_of(mode: str = "bottleneck", **changes: Any) -> GPT:
    """Random, with attention soft enough that more bits lose less on average."""
    model = scrambled(tiny(mode, null_attn=True, block_size=64, **changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    return model


def rows_of(model: GPT, policies: list[Policy], context: int = 20, **more: Any) -> list[PolicyQuality]:
    settings: dict[str, Any] = {"windows": 3, "scored": 7} | more
    return cache_quality(model, TEXT, policies, contexts=[context], **settings)


def distributions(model: GPT, policy: CachePolicy, window: np.ndarray) -> list[list[float]]:
    """Probabilities of what follows each token of the window but the last."""
    with torch.no_grad():
        logits = rounded_pass(model, torch.from_numpy(window[None, :-1]), policy)[0]
    return [[math.exp(x) / sum(map(math.exp, row)) for x in row] for row in logits.tolist()]


POLICIES = [
    "q8_0,residual=0",
    "q4_0,residual=5",
    "nf4,residual=0,qblock=4,hadamard",
    "fp8,residual=3,first=1,edge=q5_0",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", POLICIES)
def test_every_number_equals_the_sums_written_out(mode: str, text: str) -> None:
    model, policy = model_of(mode), parse_policy(text)
    context, scored, windows = 20, 7, 3
    nll, delta, kl, same = [], [], [], []
    for start in (0, (400 - 21) // 2, 400 - 21):
        window = TEXT[start : start + context + 1].astype(np.int64)
        p, q = (distributions(model, kind, window) for kind in (FP16, policy))
        at = range(context - scored, context)
        found = [-math.log(q[i][window[i + 1]]) for i in at]
        nll += found
        delta.append(sum(found) / scored - sum(-math.log(p[i][window[i + 1]]) for i in at) / scored)
        kl += [sum(a * math.log(a / b) for a, b in zip(p[i], q[i], strict=True)) for i in at]
        same += [p[i].index(max(p[i])) == q[i].index(max(q[i])) for i in at]
    row = rows_of(model, [policy])[1]
    mean = sum(delta) / windows
    assert row.policy == text and (row.context, row.windows, row.scored) == (20, 3, 7)
    assert row.scored_tokens == len(nll) == 21
    assert row.nll == pytest.approx(sum(nll) / 21, abs=1e-8)
    assert row.delta_nll == pytest.approx(mean, abs=1e-8)
    error = math.sqrt(sum((x - mean) ** 2 for x in delta) / (windows - 1) / windows)
    assert row.delta_nll_se == pytest.approx(error, abs=1e-8)
    assert row.ppl == pytest.approx(math.exp(sum(nll) / 21), rel=1e-7)
    assert row.ppl_ratio == pytest.approx(math.exp(mean), rel=1e-7)
    assert row.kl_mean == pytest.approx(sum(kl) / 21, rel=1e-4) and row.kl_mean > 1e-6
    low, high = sorted(kl)[-2:]  # the 99.9 % quantile of 21 values lies 0.98 of the way between the largest two
    assert row.kl_p999 == pytest.approx(low + 0.98 * (high - low), rel=1e-4)
    assert row.same_top1 == sum(same) / 21


def test_the_baseline_against_itself_is_exactly_nothing() -> None:
    """Once as the baseline's own row, once as a policy that differs in name only: it has nothing quantised."""
    rows = rows_of(model_of(), [FP16, CachePolicy(residual=9)])
    assert [row.policy for row in rows] == ["fp16", "fp16,residual=9"]
    for row in rows:
        assert (row.delta_nll, row.delta_nll_se, row.kl_mean, row.kl_p999) == (0, 0, 0, 0)
        assert (row.ppl_ratio, row.same_top1, row.packed_share) == (1, 1, None)


def test_fewer_bits_diverge_more() -> None:
    kinds = ("fp32", "q8_0", "q5_0", "q4_0")
    rows = rows_of(
        model_of(n_layer=3), [CachePolicy(kind=kind, residual=0) for kind in kinds], context=60, windows=8, scored=30
    )
    divergence = [row.kl_mean for row in rows[1:]]
    assert divergence == sorted(divergence) and divergence[0] < 1e-5
    assert all(1.5 * less < more for less, more in itertools.pairwise(divergence))
    agreement = [row.same_top1 for row in rows[1:]]
    assert agreement == sorted(agreement, reverse=True)


def test_a_window_that_holds_everything_is_told() -> None:
    rows = rows_of(model_of(), [parse_policy(f"q4_0,residual={r}") for r in (0, 16, 20)])
    shares = [row.packed_share for row in rows[1:]]
    expected = sum(max(seen - 16, 0) / seen for seen in range(14, 21)) / 7
    assert shares == [1, pytest.approx(expected), 0]
    assert rows[3].kl_mean < 1e-12 < rows[2].kl_mean < rows[1].kl_mean


def test_native_is_a_policy_and_a_baseline() -> None:
    model = model_of()
    rows = rows_of(model, [None, FP16], baseline=None)
    assert [row.policy for row in rows] == ["native", "fp16"]
    assert rows[0].kl_mean == 0 < rows[1].kl_mean < 1e-5
    assert rows[0].bytes == 4 * rows[1].bytes, "this model computes in float64"


@pytest.mark.parametrize("text", ["fp16", "q8_0", "q4_0,residual=6", "k=q5_0,v=nf4,residual=0"])
def test_bytes_are_those_of_the_cache_that_was_read(text: str) -> None:
    model, policy = model_of("gqa"), parse_policy(text)
    row = next(row for row in rows_of(model, [policy]) if row.policy == text)
    sizes = []
    for length in (20, 21):
        engine = Engine(model, policy, plan=Plan(fused="none"), page=1)
        engine.feed(torch.zeros(1, length, dtype=torch.int64))
        sizes.append(engine.cache.allocated_bytes)
    assert row.bytes == sizes[0]
    if policy.residual < 20:
        assert row.slope_bytes_per_token == sizes[1] - sizes[0]


def test_pieces_do_not_matter() -> None:
    model, policy = model_of(), parse_policy("q4_0,residual=3")
    rows = [rows_of(model, [policy], chunk=chunk)[1] for chunk in (1, 3, 7, None)]
    for row in rows[1:]:
        assert row.kl_mean == pytest.approx(rows[0].kl_mean, abs=1e-9)
        assert row.nll == pytest.approx(rows[0].nll, abs=1e-9)


def test_no_token_is_scored_twice() -> None:
    model = model_of()
    short = TEXT[:30]
    rows = cache_quality(model, short, [], contexts=[16, 20], windows=50, scored=4)
    assert [row.windows for row in rows] == [(30 - 17) // 4 + 1, (30 - 21) // 4 + 1]
    windows = spread(np.arange(30), 17, 50, stride=4)
    assert windows[0][0] == 0 and windows[-1][-1] == 29
    assert (np.diff(windows[:, 0]) >= 4).all()
    single = cache_quality(model, short, [], contexts=[16], windows=1)[0]
    assert single.delta_nll_se is None and single.scored == 8, "at most half the context"


def test_contexts_beyond_the_block_size_are_one_warning_each() -> None:
    model = model_of()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cache_quality(model, TEXT, [parse_policy("q8_0")], contexts=[64, 80], windows=2)
    assert [str(warning.message)[:31] for warning in told] == ["80 tokens are beyond 64, the co"]


def test_rows_are_strict_json() -> None:
    model = model_of()
    with torch.no_grad():
        model.embed.weight.mul_(1e4)  # so wrong that the perplexity overflows
    row = rows_of(model, [])[0].to_dict()
    assert row["ppl"] is None and row["nll"] > 709
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_broken_weights_are_told() -> None:
    model = model_of()
    with torch.no_grad():
        model.norm.weight[0] = math.nan
    with pytest.raises(UserError, match="not finite"):
        rows_of(model, [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scored": 1}, "--scored 1 leave 1 scored tokens"),
        ({"scored": 0}, "leave 0 scored tokens"),
        ({"contexts": [3]}, "context of 3 tokens"),
        ({"windows": 0}, "--windows 1 or more"),
        ({"contexts": [400]}, "400 tokens where a window needs 401"),
        ({"policies": [CachePolicy(kinds={"k_sem": "q8_0"})]}, "names k_sem, this model caches k, v"),
        ({"policies": [CachePolicy(qblocks={"k_geo": 8})]}, "names k_geo"),
        ({"policies": [CachePolicy(layer_kinds={2: {"k": "q8_0"}})]}, "beyond the last, 1"),
        ({"policies": [CachePolicy(kind="q4_1")]}, "sized but not stored"),
        ({"policies": [CachePolicy(kind="q4_0", qblock=5)]}, "even block size"),
        ({"ids": np.full(400, 23)}, "token id 23, this model knows 0 to 22"),
        ({"ids": np.full(400, -1)}, "token id -1"),
    ],
)
def test_mistakes_are_sentences(changes: dict[str, Any], words: str) -> None:
    asked: dict[str, Any] = {"ids": TEXT, "policies": [FP16], "contexts": [20]} | changes
    with pytest.raises(UserError, match=words) as error:
        cache_quality(model_of(), asked.pop("ids"), asked.pop("policies"), **asked)
    assert "\n" not in str(error.value)


def test_scored_tokens_see_at_least_half_the_context() -> None:
    assert [scored_of(context, 128) for context in (4, 5, 255, 256, 10_000)] == [2, 2, 127, 128, 128]
