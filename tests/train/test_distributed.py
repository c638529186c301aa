"""Two processes under torchrun compute what one does, and only the first writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import bottleneck_core as bc
from bottleneck_core.train.checkpoint import read_checkpoint

from .runs import environment, events, flags, train, write_tokens


@contextmanager
def torchrun(words: list[str], processes: int = 2, restarts: int = 0) -> Iterator[subprocess.Popen[str]]:
    """`train` on so many processes, none of which outlives the block; torchrun starts them anew so often."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command.append(f"--max-restarts={restarts}")
    process = subprocess.Popen(
        [*command, "-m", "bottleneck_core", "train", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.e2e
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    one, two = tmp_path / "one", tmp_path / "two"
    settings = {"steps": 6, "grad_accum": 2}
    train(flags(data, one, "decoupled", **settings))
    with torchrun(flags(data, two, "decoupled", **settings)) as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    for kind, key in (("train", "loss"), ("train", "grad_clip_total_norm"), ("eval", "val_loss")):
        ours, theirs = ([event[key] for event in events(folder, kind)] for folder in (one, two))
        assert ours == pytest.approx(theirs, rel=2e-5), (kind, key)
    assert len(events(two, "meta")) == 1, "one writer"
    assert bc.load_run(two).status == "done"
    ours, theirs = (read_checkpoint(folder / "last.pt") for folder in (one, two))
    assert ours.model.keys() == theirs.model.keys()
    assert all((a - theirs.model[name]).abs().max() < 1e-4 for name, a in ours.model.items())


@pytest.mark.e2e
def test_a_stop_is_agreed_on_and_resumes_on_one_process(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    out = tmp_path / "run"
    with torchrun(flags(data, out, steps=100_000)) as process:
        assert process.stdout is not None
        while "step 5/" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)  # torchrun passes it on to both
        process.communicate(timeout=120)
    assert events(out)[-1]["reason"] == "sigterm"
    step = read_checkpoint(out / "last.pt").step
    train(["--resume", str(out), "--steps", str(step + 2)])
    assert [event["step"] for event in events(out, "train")] == list(range(step + 2))


def test_batch_that_does_not_divide_is_a_sentence(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    with torchrun(flags(data, tmp_path / "run", batch_size=3)) as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "error: --batch-size 3 does not divide among 2 processes" in output
    assert not (tmp_path / "run").exists()
