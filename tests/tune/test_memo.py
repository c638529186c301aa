"""The memo file: what a key depends on, who may share it, and what becomes of damaged and foreign files."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError
from bottleneck_core.tune.memo import Memo, digest, model_sha256
from bottleneck_core.tune.task import Task
from tests.model.tiny_models import scrambled, tiny, tokens

SETTINGS = RunConfig.resolve(self_opt_policy_quality=True, self_opt_verify=True, self_opt_cache="memo.json")
MODEL = scrambled(tiny("bottleneck"), dtype=torch.float32)
TEXT = tokens(1, 300)[0]


def key(text: Any = TEXT, model: Any = MODEL, *, context: int = 64, batch: int = 1, **settings: Any) -> dict[str, Any]:
    changed = SETTINGS.model_copy(update=settings)
    return Task(model, changed, None, context, batch).key(text)


def test_what_was_stored_comes_back(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "deep" / "memo.json")
    assert memo.recall({"a": 1}) is None
    memo.store({"a": 1}, {"x": [1.5, None]})
    memo.store({"a": 2}, {"x": 2})
    assert Memo(memo.path).recall({"a": 1}) == {"x": [1.5, None]}
    assert Memo(memo.path).recall({"a": 2}) == {"x": 2}
    assert not memo.warnings
    assert json.loads(memo.path.read_text())["file"] == "bottleneck_core.tune"


@pytest.mark.parametrize(
    "changes",
    [
        {"context": 65},
        {"batch": 2},
        {"self_opt_mem_budget_mb": 1.0},
        {"self_opt_mem_overhead_frac": 0.2},
        {"self_opt_quality_tol": 0.4},
        {"self_opt_verify_tol": 0.1},
        {"self_opt_scope": "cache"},
        {"self_opt_policy_prefix_len": 9},
        {"self_opt_residuals": "0"},
        {"self_opt_qblocks": "16"},
        {"self_opt_v_kinds": "q8_0"},
        {"self_opt_k_sem_kinds": "q8_0"},
        {"self_opt_decode_blocks": "16"},
        {"self_opt_warps": "2"},
        {"self_opt_calib_prefill": 5},
        {"self_opt_calib_decode": 5},
        {"self_opt_policy_hysteresis": 0.5},
        {"kv_cache": "q8_0"},
        {"kv_residual": 1},
        {"kv_page": 16},
        {"kv_fused": "none"},
        {"text": tokens(1, 300, seed=9)[0]},
        {"model": scrambled(tiny("bottleneck"), dtype=torch.float32, seed=9)},
        {"model": scrambled(tiny("bottleneck"), dtype=torch.bfloat16)},
        {"model": scrambled(tiny("standard"), dtype=torch.float32)},
    ],
)
def test_the_key_changes_with_everything_that_matters(changes: dict[str, Any]) -> None:
    assert digest(key(**changes)) != digest(key())


def test_the_key_does_not_change_with_what_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"self_opt_cache": "other.json", "self_opt_verbose": True, "self_opt": "startup", "self_opt_interval": 3}
    assert digest(key(**same)) == digest(key())
    assert digest(key(model=scrambled(tiny("bottleneck"), dtype=torch.float32))) == digest(key())
    before = digest(key())
    monkeypatch.setattr("bottleneck_core.tune.device.package_versions", lambda names: {"torch": "0"})
    assert digest(key()) != before


def test_the_key_knows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(key())
    monkeypatch.setattr("bottleneck_core.tune.device.hardware", lambda: {"cpu": "another"})
    assert digest(key()) != before


def test_the_hash_of_a_model_sees_every_weight() -> None:
    model = scrambled(tiny("decoupled"), dtype=torch.bfloat16)
    before = model_sha256(model)
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        after = model_sha256(model)
        assert after != before
        before = after


def test_a_torn_file_is_begun_anew_with_a_warning(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.json")
    memo.store({"a": 1}, {"x": 1})
    memo.path.write_text(memo.path.read_text()[:-20])
    assert memo.recall({"a": 1}) is None and "damaged" in memo.warnings[0]
    memo.store({"a": 2}, {"x": 2})
    assert Memo(memo.path).recall({"a": 2}) == {"x": 2}


@pytest.mark.parametrize("content", ["dear diary", '{"entries": {}}', "[1]", "\x00\xff", '{"file": NaN}'])
def test_a_foreign_file_is_left_alone_with_a_warning(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content.encode("latin-1"))
    before = path.read_bytes()
    memo = Memo(path)
    assert memo.recall({"a": 1}) is None
    memo.store({"a": 1}, {"x": 1})
    assert path.read_bytes() == before
    assert all("neither read nor changed" in warning for warning in memo.warnings)


def test_an_entry_under_a_wrong_key_is_not_taken(tmp_path: Path) -> None:
    memo = Memo(tmp_path / "memo.json")
    memo.store({"a": 1}, {"x": 1})
    document = json.loads(memo.path.read_text())
    document["entries"][digest({"a": 1})]["key"] = {"a": 2}
    memo.path.write_text(json.dumps(document))
    assert memo.recall({"a": 1}) is None and "damaged" in memo.warnings[0]


def test_an_unwritable_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Memo(tmp_path / "file" / "memo.json").store({"a": 1}, {})


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "memo.json"

    def write(writer: int) -> None:
        for number in range(20):
            Memo(path).store({"writer": writer, "number": number}, {"x": number})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(json.loads(path.read_text())["entries"]) == 80
