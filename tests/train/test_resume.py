"""Exact resumption: killed at random moments, a run ends bit for bit where an uninterrupted one does."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from bottleneck_core.store.analysis import AnalysisFile
from bottleneck_core.train import load_checkpoint
from bottleneck_core.train.checkpoint import read_checkpoint

from .runs import events, flags, start, train, write_tokens

KILLS = 10
STEPS = 260
LINES_A_LIFE = 20  # ten lives of at most so many printed steps cannot reach the end


@pytest.mark.e2e
def test_ten_kills_leave_no_trace(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    settings = {
        "steps": STEPS,
        "dropout": 0.1,
        "eval_every": 10,
        "analysis_every": 15,
        "save_every": 3,
        "lr_schedule": "cosine",
        "warmup_steps": 5,
    }
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(flags(data, whole, "decoupled", **settings))

    rng = random.Random(20240607)
    for kill in range(KILLS):
        process = start([*flags(data, broken, "decoupled", **settings), "--resume"])
        assert process.stdout is not None
        for _ in range(rng.randint(1, LINES_A_LIFE)):
            assert process.stdout.readline(), f"life {kill} ended before it was killed"
        try:  # somewhere within the next steps, checkpoints, probes or evaluations
            process.wait(timeout=rng.uniform(0, 0.03))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        assert process.returncode == -9
        if (broken / "analysis.h5").exists():
            file = AnalysisFile.open(broken / "analysis.h5")
            assert np.isfinite(file.attn("entropy")).all()
            assert len(file.steps) == len(file.attn("entropy"))
    train([*flags(data, broken, "decoupled", **settings), "--resume"])

    ours, theirs = (read_checkpoint(folder / "last.pt") for folder in (whole, broken))
    assert ours.step == theirs.step == STEPS
    assert _equal(ours.model, theirs.model)
    assert ours.training is not None and theirs.training is not None
    assert _equal(ours.training["optimizer"], theirs.training["optimizer"])
    assert _equal(load_checkpoint(whole).model, load_checkpoint(broken).model)  # best.pt

    for kind in ("train", "eval", "analysis"):
        assert events(whole, kind) == events(broken, kind)
    assert [event["step"] for event in events(broken, "train")] == list(range(STEPS))
    assert [event["step"] for event in events(broken, "eval")] == list(range(0, STEPS + 1, 10))
    assert len(events(broken, "meta")) == 1
    assert events(broken)[-1]["type"] == "done" and events(broken)[-1]["reason"] == "completed"

    one, other = (AnalysisFile.open(folder / "analysis.h5") for folder in (whole, broken))
    assert one.steps.tolist() == other.steps.tolist() == [*range(0, STEPS, 15), STEPS]
    for metric in one.attn_metrics:
        assert np.array_equal(one.attn(metric), other.attn(metric), equal_nan=True), metric
    for layer, head in one.maps():
        assert np.array_equal(one.map(layer, head), other.map(layer, head))


def test_resume_of_a_finished_run_goes_on_with_more_steps(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    train(flags(data, tmp_path / "long", steps=8))
    train(flags(data, tmp_path / "short", steps=4))
    assert "finished" in train([*flags(data, tmp_path / "short", steps=4), "--resume"])
    train(["--resume", str(tmp_path / "short"), "--steps", "8"])  # all other settings come from the checkpoint
    assert events(tmp_path / "long", "train") == events(tmp_path / "short", "train")
    ours, theirs = (read_checkpoint(tmp_path / name / "last.pt") for name in ("long", "short"))
    assert _equal(ours.model, theirs.model)


def test_resume_refuses_what_would_be_another_run(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    out = tmp_path / "run"
    train(flags(data, out, steps=2))
    before = (out / "train.jsonl").read_bytes()
    cases = {
        f"--lr 0.5 differs from 0.003 in {out}/last.pt": [*flags(data, out, lr=0.5), "--resume"],
        "holds a run already: add --resume": flags(data, out),
        f"give --out-dir {out}_2": flags(data, out),
        "holds no checkpoint": ["--resume", str(tmp_path / "nowhere")],
        "holds weights only": ["--resume", str(out / "best.pt")],
        "is not the data": [*flags(write_tokens(tmp_path / "other.npy", 7000), out, steps=2), "--resume"],
    }
    for sentence, words in cases.items():
        output = train(words, expect=2)
        assert sentence in output, output
        assert output.startswith("error: ") and output.count("\n") == 1, output
    assert (out / "train.jsonl").read_bytes() == before


def test_damaged_checkpoint_is_a_sentence(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    out = tmp_path / "run"
    train(flags(data, out, steps=2))
    whole = (out / "last.pt").read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        (out / "last.pt").write_bytes(broken)
        assert "cannot be read as a checkpoint" in train([*flags(data, out, steps=2), "--resume"], expect=2)
    torch.save({"weights": torch.zeros(3)}, out / "last.pt")
    assert "checkpoint of another program" in train([*flags(data, out, steps=2), "--resume"], expect=2)


def test_init_from_takes_weights_and_nothing_else(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    train(flags(data, tmp_path / "first"))
    train(flags(data, tmp_path / "second", steps=0, init_from=tmp_path / "first"))
    first = events(tmp_path / "first", "eval")
    best = min(event["val_loss"] for event in first)
    assert events(tmp_path / "second", "eval")[0]["val_loss"] == best
    assert events(tmp_path / "second", "eval")[0]["step"] == 0
    other = train(flags(data, tmp_path / "third", d_ff=64, init_from=tmp_path / "first"), expect=2)
    assert "does not fit this model: blocks.0.mlp" in other


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(_equal, a, b))
    return a == b
