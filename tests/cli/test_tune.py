"""`tune` in process: a trained folder, its document and its table, and mistakes as one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bottleneck_core.cli import main
from bottleneck_core.config import RunConfig
from bottleneck_core.memory import CachePolicy
from bottleneck_core.train.checkpoint import save_checkpoint
from bottleneck_core.tune import timing
from tests.model.tiny_models import SHAPE, scrambled

FAST = (
    *("--device", "cpu", "--kv-page=16", "--context", "96", "--self_opt_iters=1", "--self-opt-policy-iters", "1"),
    *("--self_opt_residuals", "0,8", "--self-opt-qblocks=8,16", "--self-opt-calib-prefill=16"),
    *("--self-opt-decode-blocks", "8,32", "--self-opt-k-sem-kinds", "q8_0,q4_0"),
)


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "RUN_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of a small model for bytes, beside a text and a token file."""
    config = RunConfig.resolve(**(SHAPE | {"vocab_size": 256, "attn_mode": "bottleneck", "tokenizer": "byte"}))
    save_checkpoint(tmp_path / "best.pt", config, scrambled(config, dtype=torch.float32).state_dict(), step=3)
    letters = np.random.default_rng(0).integers(97, 123, 2000, dtype=np.uint16)
    np.save(tmp_path / "ids.npy", letters)
    (tmp_path / "text.txt").write_bytes(letters[::-1].astype(np.uint8).tobytes())
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["tune", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_is_one_document_and_the_choice_meets_its_tolerance(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "tuning.json"
    code, text, _ = run(
        capsys, "--ckpt", str(folder / "best.pt"), "--self-opt-calib-tokens", str(folder / "ids.npy"),
        "--check", str(folder / "text.txt"), "--self-opt-quality-tol", "20", "--json", "--out", str(out), *FAST,
    )  # fmt: skip
    document = json.loads(text)
    assert code == 0
    assert json.loads(out.read_text()) == document
    assert (document["guarded"], document["verified"], document["context"]) == (True, True, 96)
    assert document["chosen"]["bytes"] <= document["budget_bytes"]
    assert document["check"]["met"] and document["check"]["quality"]["largest"] <= 20
    assert {"settings", "plan_settings", "policy", "plan"} <= set(document["chosen"])
    assert CachePolicy.of(document["chosen"]["settings"]).kind
    assert document["policies"] and document["rejected"] and document["why"]["policy"]


def test_people_read_the_table_the_choice_and_what_was_rejected(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--run", str(folder), "--text", str(folder / "text.txt"), "--self-opt-quality-tol", "20", *FAST)
    code, text, err = run(capsys, *words, "--self-opt-verbose")
    assert code == 0
    assert "96 tokens, batch 1" in text and "budget" in text and "KiB" in text
    assert "policy: " in text and "plan: " in text and "as flags: --kv-cache" in text
    assert "rejected:" in text and "stored the same" in text
    assert "base" in text and "ms a token" in err
    for line in text.splitlines():
        assert "…" not in line


def test_scopes_and_checks_can_be_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = run(capsys, "--run", str(folder), "--self-opt-scope", "decode", "--json", *FAST)
    assert code == 0 and json.loads(text)["policies"] == []
    code, text, _ = run(capsys, "--run", str(folder), "--no-self-opt-policy-quality", *FAST)
    assert code == 0 and "unguarded" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no model is given"),
        (["--run", "DIR", "--ckpt", "DIR/best.pt"], "--run and --ckpt are given together"),
        (["--run", "DIR"], "give held-out text with --text"),
        (["--run", "DIR", "--text", "DIR/none.txt"], "none.txt cannot be read"),
        (["--run", "DIR", "--text", "a", "--self-opt-calib-tokens", "b"], "keep one"),
        (["--run", "DIR", "--batch", "0"], "--batch must be >= 1"),
        (["--run", "DIR", "--context", "few"], "--context needs a number of tokens"),
        (["--run", "DIR", "--out", "DIR/no/x.json"], "does not exist"),
        (["--run", "DIR", "--self-opt-v-kinds", "q9", "--text", "DIR/text.txt"], "--self-opt-v-kinds names q9"),
        (["--run", "DIR", "--self-opt-calib-decode", "1", "--text", "DIR/text.txt"], "two scored tokens"),
        (["--run", "DIR", "--check", "x", "--no-self-opt-policy-quality"], "--check measures"),
        (["--run", "DIR", "--steps", "3"], "unknown flag --steps"),
    ],
)
def test_a_mistake_is_one_sentence(
    folder: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *(word.replace("DIR", str(folder)) for word in words))
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and sentence in err and err.count("\n") == 1, err


def test_help_names_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["tune", "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert "--self-opt-quality-tol" in text and "--kv-cache" in text and "--check" in text
