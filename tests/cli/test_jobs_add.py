"""`jobs add -- train ...`: folder, device and words of what is queued. Nothing trains where the limit is 0."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bottleneck_core.cli import main
from bottleneck_core.config import RunConfig
from bottleneck_core.jobs import Job, find_jobs, job_state, queued_jobs, set_device_limit, stop_job
from bottleneck_core.store.layout import run_status
from tests.jobs.programs import until

NANO = ("train", "--size", "nano")
TINY = (*NANO, "--layers", "1", "--block", "32", "--batch-size", "2", "--eval-iters", "1", "--device", "cpu")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, whose queue `runs` starts nothing on cpu and two GPUs; what waits is ended after the test."""
    monkeypatch.chdir(tmp_path)
    for device in ("cpu", "cuda:0", "cuda:1"):
        set_device_limit(Path("runs"), device, 0)
    yield tmp_path
    for path in tmp_path.rglob("job.json"):
        job = Job.read(path.parent)
        with contextlib.suppress(psutil.NoSuchProcess):
            if job and job.live_supervisor:
                job.live_supervisor.kill()


def add(capsys: Capture, *words: str) -> list[dict[str, Any]]:
    assert main(["jobs", "add", "--json", *words]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def mistake(capsys: Capture, *words: str) -> str:
    assert main(["jobs", "add", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def train_words(row: dict[str, Any]) -> list[str]:
    argv = row["argv"]
    return argv[argv.index("train") + 1 :]


def test_the_folder_is_that_of_train(here: Path, capsys: Capture) -> None:
    (row,) = add(capsys, "--device", "cpu", "--", *NANO, "--exp", "paper_gqa", "--no-rope", "--lr", "0.001")
    assert (row["id"], row["path"], row["position"]) == ("nano_gqa", str(here / "runs" / "nano_gqa"), 0)
    assert row["argv"][:4] == [sys.executable, "-m", "bottleneck_core", "train"]
    words = train_words(row)
    assert sorted(words) == sorted(
        ["--size=nano", "--exp=paper_gqa", "--no-rope", "--lr=0.001", "--device=cpu", "--out-dir=runs/nano_gqa"]
    )
    (row,) = add(capsys, "--device", "cpu", "--", *NANO, "--out-dir", "other/place")
    assert (row["id"], row["path"], row["position"]) == ("place", str(here / "other" / "place"), 1)
    (row,) = add(capsys, "--device", "cpu", "--", *NANO, "--run-tag", "second")
    assert row["id"] == Path(RunConfig.resolve(size="nano", run_tag="second").folder).name
    assert [job.id for job in queued_jobs(Path("runs"))] == ["nano_gqa", "place", row["id"]]


def test_the_words_reach_train_as_they_were_meant(here: Path, capsys: Capture) -> None:
    (row,) = add(capsys, "--", *NANO, "--device", "cpu", "--kv-head", "none", "--resume", "--null-attn", "--steps=7")
    assert row["device"] == "cpu" and {"--kv-head=none", "--resume", "--null-attn", "--steps=7"} < set(train_words(row))
    assert main([*("train", *train_words(row)), "--print-config"]) == 0
    assert json.loads(capsys.readouterr().out)["training_args"]["steps"] == 7


def test_another_parent_has_its_own_queue(here: Path, capsys: Capture) -> None:
    set_device_limit(Path("mine"), "cpu", 0)
    (row,) = add(capsys, "--runs", "mine", "--device", "cpu", "--", *NANO)
    assert Path(row["path"]).parent == here / "mine" and queued_jobs(Path("runs")) == []
    assert [job.id for job in queued_jobs(Path("mine"))] == [row["id"]]


def test_no_folder_twice(here: Path, capsys: Capture) -> None:
    words = ("--device", "cpu", "--", *NANO, "--exp", "paper_gqa")
    add(capsys, *words)
    assert "a job waits in runs/nano_gqa already: give --out-dir runs/nano_gqa_2" in mistake(capsys, *words)
    held = here / "runs" / "nano_baseline"
    held.mkdir()
    (held / "train.jsonl").touch()
    words = ("--device", "cpu", "--", *NANO, "--exp", "paper_baseline")
    assert "holds a run already: add --resume to continue it, or give --out-dir runs/nano_baseline_2" in mistake(
        capsys, *words
    )
    (row,) = add(capsys, *words, "--resume")
    assert row["id"] == "nano_baseline"
    stop_job(held)
    (row,) = add(capsys, *words, "--resume", str(held / "last.pt"))
    assert row["path"] == str(held)


def test_the_four_runs_of_the_paper(here: Path, capsys: Capture) -> None:
    rows = add(capsys, "--device", "cpu", "--", *NANO, "--exp", "paper_all", "--out-dir", "four")
    names = ["nano_baseline", "nano_bottleneck", "nano_decoupled", "nano_gqa"]
    assert [(row["id"], row["position"]) for row in rows] == [(name, place) for place, name in enumerate(names)]
    assert all(f"--out-dir=four/{name}" in train_words(row) for name, row in zip(names, rows, strict=True))
    assert "--exp=paper_gqa" in train_words(rows[3]) and not any("paper_all" in word for word in rows[3]["argv"])
    assert "four/nano_baseline already" in mistake(
        capsys, "--device", "cpu", "--", *NANO, "--exp", "paper_all", "--out-dir", "four"
    )


def test_several_processes_go_through_torchrun(here: Path, capsys: Capture) -> None:
    (row,) = add(capsys, "--device", "cuda:0", "--nproc", "2", "--", *NANO)
    assert row["argv"][1:9] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "bottleneck_core", "train")
    ]
    assert (row["device"], row["nproc"]) == ("cuda:0", 2) and "--device=cuda" in train_words(row)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "jobs add takes the run after --"),
        (["--", "sample"], "jobs add takes the run after --"),
        (["--device", "cpu", "train"], "train"),
        (["--", "train", "--stps", "3"], "unknown flag --stps: did you mean --steps?"),
        (["--device", "cpu", "--", "train", "--steps", "-1"], "--steps must be"),
        (["--device", "cpu", "--", "train", "--device", "cuda"], "--device is cpu before -- and cuda after it"),
        (["--device", "gpu7", "--", "train"], "'gpu7' is no device"),
        (["--device", "cpu", "--nproc", "0", "--", "train"], "0 processes cannot train"),
        (["--", "train", "--print-config"], "--print-config trains nothing"),
    ],
)
def test_mistakes_queue_nothing(words: list[str], sentence: str, here: Path, capsys: Capture) -> None:
    assert sentence in mistake(capsys, *words)
    assert find_jobs(here) == ([], [])


def test_a_run_is_trained_stopped_and_resumed_through_the_queue(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    set_device_limit(Path("runs"), "cpu", 1)
    assert main(["jobs", "add", "--", *TINY, "--steps", "1000000", "--out-dir", "runs/a"]) == 0
    assert capsys.readouterr().out == f"a runs on cpu: {here / 'runs' / 'a'}\n"
    assert main(["jobs", "add", "--", *TINY, "--steps", "2", "--out-dir", "runs/b"]) == 0
    assert capsys.readouterr().out == f"b waits for cpu at position 0: {here / 'runs' / 'b'}\n"
    assert run_status("runs/b") == "queued"
    until(lambda: Path("runs/a/train.jsonl").exists(), "the run to train", 120)
    assert main(["jobs", "stop", "a"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "a ended by SIGTERM: stopped (exit code 143)"
    assert Path("runs/a/last.pt").exists() and run_status("runs/a") == "stopped"
    # The job is done a moment before its supervisor lets go of the folder.
    until(lambda: (job_state(Path("runs/b")), run_status("runs/b")) == ("done", "done"), "the next to train", 120)
    assert main(["jobs", "resume", "a"]) == 0
    until(lambda: '"resume"' in Path("runs/a/train.jsonl").read_text(), "the run to go on", 120)
    assert main(["jobs", "stop", "a"]) == 0
