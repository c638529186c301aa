"""A job again: with which words, on which device, and when not."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bottleneck_core.errors import UserError
from bottleneck_core.jobs import Job, job_state, queue_job, queued_jobs, requeue_job, stop_job
from tests.jobs.programs import let_go, queue_turn, run_program, run_python, until

TELL = "import os, sys; print('words', *sys.argv[1:], os.environ.get('ODD')); raise SystemExit(1)"


def asked(root: Path, *words: str) -> Path:
    """The folder of a job that said its words and failed."""
    folder = root / "a"
    folder.mkdir()
    program = [sys.executable, "-c", TELL]
    queue_job(words, folder, root=root, device="cpu", program=program, cwd=root, env={"ODD": "1 2"})
    until(lambda: job_state(folder) == "failed", "the failure")
    return folder


def said(folder: Path) -> list[str]:
    until(lambda: job_state(folder) == "failed", "the failure")
    lines = (folder / "console.log").read_text().splitlines()
    return [line.removeprefix("words ") for line in lines if line.startswith("words ")]


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (["--steps", "3"], "--steps 3 --resume"),
        (["--resume", "--steps", "3"], "--steps 3 --resume"),
        (["--resume=other", "--steps=3"], "--steps=3 --resume"),
        (["--resume", "other", "--steps=3"], "--steps=3 --resume"),
    ],
)
@pytest.mark.parametrize("left", ["last.pt", "manifest.json", "train.jsonl"])
def test_what_began_is_resumed(root: Path, words: list[str], again: str, left: str) -> None:
    # Without a checkpoint train begins anew on --resume, and refuses a folder with events without it.
    folder = asked(root, *words)
    (folder / left).touch()
    requeue_job(folder, root)
    assert said(folder) == [f"{' '.join(words)} 1 2", f"{again} 1 2"]
    requeue_job(folder, root)
    assert said(folder)[-1] == f"{again} 1 2"


def test_what_never_began_is_started_as_it_was_asked(root: Path) -> None:
    folder = asked(root, "--resume", "other")
    job = requeue_job(folder, root)
    assert said(folder) == ["--resume other 1 2"] * 2
    assert (job.device, job.cwd, job.env) == ("cpu", str(root), {"ODD": "1 2"})


def test_it_waits_in_turn_and_keeps_device_and_processes(root: Path) -> None:
    stub = root / "python"
    stub.write_text(f"#!{sys.executable}\n")
    stub.chmod(0o755)
    queue_job([], root / "two", root=root, device="cuda", nproc=2, program=[str(stub)])
    until(lambda: job_state(root / "two") == "done", "the end")
    queue_turn(root, "a", device="cuda:1")
    with pytest.raises(UserError, match="two is done: only what was lost, stopped or failed"):
        requeue_job(root / "two", root)
    stop_job(root / "a")
    queue_turn(root, "b", device="cuda:1")
    again = requeue_job(root / "a", root)
    assert (again.state, again.device) == ("queued", "cuda:1")
    assert [job.id for job in queued_jobs(root)] == ["a"]


def test_a_job_that_had_no_device_takes_no_slot(root: Path) -> None:
    queue_turn(root, "a")
    run_python("raise SystemExit(1)", root / "b")
    until(lambda: job_state(root / "b") == "failed", "the failure")
    assert requeue_job(root / "b", root).devices == ()


def test_what_runs_waits_or_never_was_is_refused(root: Path) -> None:
    queue_turn(root, "a")
    queue_turn(root, "b")
    for name, state in (("a", "running"), ("b", "queued")):
        with pytest.raises(UserError, match=f"is {state}: only what was lost, stopped or failed is queued again"):
            requeue_job(root / name, root)
    with pytest.raises(UserError, match="no job was started in"):
        requeue_job(root / "nobody", root)


def test_a_start_folder_that_is_gone_is_named(root: Path) -> None:
    (root / "there").mkdir()
    queue_job(
        ["-c", "raise SystemExit(1)"], root / "a", root=root, device="cpu", program=[sys.executable], cwd=root / "there"
    )
    until(lambda: job_state(root / "a") == "failed", "the failure")
    (root / "there").rmdir()
    with pytest.raises(UserError, match=r"there, where the job in .*a started, is gone"):
        requeue_job(root / "a", root)


def test_records_from_before_the_queue_still_read(folder: Path) -> None:
    run_program(folder)
    stop_job(folder)
    path = folder / "job.json"
    fields = json.loads(path.read_text())
    for name in ("device", "nproc", "root", "env", "mark", "started"):
        del fields[name]
    path.write_text(json.dumps(fields))
    job = Job.read(folder)
    assert job is not None and (job.device, job.nproc, job.root, job.started) == ("", 1, None, None)
    assert job.state == "stopped"


def test_a_job_that_starts_another_does_not_own_it(root: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.jobs.programs import queue_turn; "
        "queue_turn(Path(sys.argv[1]), 'inner'); print('ready', flush=True); time.sleep(600)"
    )
    outer = root / "outer"
    outer.mkdir()
    home = Path(__file__).parents[2]
    queue_job(["-c", code, str(root)], outer, root=root, device="cuda:0", program=[sys.executable], cwd=home)
    until(lambda: "ready" in (outer / "console.log").read_text(), "the outer job to start the inner one")
    assert stop_job(outer).stage == "SIGTERM"
    assert job_state(root / "inner") == "running"
    let_go(root, "inner")
    assert job_state(root / "inner") == "done"
