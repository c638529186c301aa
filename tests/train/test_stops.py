"""How runs end early: signals, the clock, numbers that are not finite, a second trainer, users' mistakes."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
import torch

import bottleneck_core as bc
from bottleneck_core.train.checkpoint import read_checkpoint

from .runs import events, flags, start, train, write_tokens


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("data") / "tokens.npy")


@pytest.mark.parametrize(
    ("number", "code", "reason"), [(signal.SIGTERM, 143, "sigterm"), (signal.SIGINT, 130, "sigint")]
)
def test_signal_saves_and_exits(number: int, code: int, reason: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(flags(data, out, steps=100_000))
    assert process.stdout is not None
    while "step 20/" not in process.stdout.readline():
        assert process.poll() is None
    assert bc.load_run(out).status == "running"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    last = events(out)[-1]
    assert (last["type"], last["reason"]) == ("done", reason)
    saved = read_checkpoint(out / "last.pt").step
    assert saved == last["step"] == events(out, "train")[-1]["step"] + 1 > 20
    assert bc.load_run(out).status == "stopped"
    assert json.loads((out / "manifest.json").read_text())["ended"]["exit_code"] == code


def test_signal_is_read_inside_an_evaluation(data: Path, tmp_path: Path) -> None:
    """The evaluation alone would take hours; resumed with the stop behind it, it is made again from its start."""
    out = tmp_path / "run"
    process = start(flags(data, out, eval_iters=10_000_000))
    deadline = time.monotonic() + 120
    while not ((out / "train.jsonl").exists() and '"mem"' in (out / "train.jsonl").read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert events(out, "eval") == []
    checkpoint = read_checkpoint(out / "last.pt")
    assert checkpoint.training is not None and checkpoint.training["observed"] == {
        "eval": False,
        "analysis": False,
    }


def test_time_limit_saves_and_resumes(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(flags(data, out, steps=100_000, max_minutes=0.02))
    assert events(out)[-1]["reason"] == "max_minutes"
    assert bc.load_run(out).status == "stopped"
    step = read_checkpoint(out / "last.pt").step
    train(["--resume", str(out), "--steps", str(step + 5), "--max-minutes", "none"])
    assert events(out)[-1]["reason"] == "completed"
    assert [event["step"] for event in events(out, "train")] == list(range(step + 5))


def test_nonfinite_loss_stops_with_an_event_and_keeps_the_last_good_checkpoint(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    output = train(flags(data, out, lr=1e30, grad_clip=0, steps=50, save_every=1), expect=3)
    assert "is not finite at step" in output and "holds the last good state" in output
    bad = events(out, "nonfinite")[0]
    assert bad["nonfinite"] and bad[bad["nonfinite"][0]] is None
    assert events(out)[-1]["reason"] == "nonfinite"
    checkpoint = read_checkpoint(out / "last.pt")
    assert checkpoint.step == bad["step"]
    assert all(torch.isfinite(value).all() for value in checkpoint.model.values())
    assert bc.load_run(out).status == "failed"


def test_second_trainer_on_the_folder_is_refused(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = start(flags(data, out, steps=100_000))
    assert first.stdout is not None
    while "step 5/" not in first.stdout.readline():
        assert first.poll() is None
    written = read_checkpoint(out / "last.pt").step
    output = train([*flags(data, out, steps=100_000), "--resume"], expect=2)
    assert "is being trained by another process" in output
    assert first.poll() is None, "the first trainer goes on"
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert read_checkpoint(out / "last.pt").step >= written
    assert len(events(out, "meta")) == 1 and not events(out, "resume")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--grad-clip", "-1"], "error: --grad-clip must be >= 0, got -1\n"),
        (["--gradclip=1"], "error: unknown flag --gradclip: did you mean --grad-clip?\n"),
        (["--data", "nowhere.bin"], "error: nowhere.bin does not exist"),
        (["--block", "5000"], "where one block of"),
        (["--vocab-size", "10"], "is outside the vocabulary of 10"),
        (["--device", "cuda:7"], "error: --device cuda:7 is not available"),
        (["--analysis-layers", "0,9"], "9"),
        (["--init-from", "nowhere"], "nowhere holds no checkpoint"),
    ],
)
def test_mistakes_leave_nothing_behind(words: list[str], sentence: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    given = {word.removeprefix("--").split("=")[0].replace("-", "_") for word in words[:1]}
    base = [word for word in flags(data, out) if word.removeprefix("--").split("=")[0].replace("-", "_") not in given]
    if "data" in given:
        base = [word for word in base if word != str(data)]
    output = train([*base, *words], expect=2)
    assert sentence in output and output.startswith("error: ") and output.count("\n") == 1, output
    assert not out.exists()
