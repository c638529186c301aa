"""The stop ladder on programs that heed a signal, ignore it, or leave others behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from bottleneck_core.errors import UserError
from bottleneck_core.jobs import Job, job_state, stop, stop_job
from tests.jobs.programs import lives, run_program, until

SHORT = ((signal.SIGTERM, 0.2), (signal.SIGKILL, 10.0))


def test_a_polite_program_saves_and_ends_on_the_first_stage(folder: Path) -> None:
    run_program(folder)
    stages: list[str] = []
    stopped = stop_job(folder, on_stage=stages.append)
    assert stages == ["SIGTERM"] and stopped.stage == "SIGTERM"
    assert (stopped.job.state, stopped.job.exit_code, stopped.job.stop_signal) == ("stopped", 143, "SIGTERM")
    assert (folder / "console.log").read_text().count("saved on SIGTERM") == 1
    assert Job.read(folder) == stopped.job
    assert stop_job(folder).stage is None  # a second stop finds it ended


def test_the_first_stage_may_be_ctrl_c(folder: Path) -> None:
    run_program(folder)
    stopped = stop_job(folder, ladder=[(signal.SIGINT, 10.0)])
    assert (stopped.stage, stopped.job.state, stopped.job.exit_code) == ("SIGINT", "stopped", 130)


def test_a_deaf_program_is_killed(folder: Path) -> None:
    job = run_program(folder, on_term="ignores")
    assert job.process is not None
    stages: list[str] = []
    stopped = stop_job(folder, ladder=SHORT, on_stage=stages.append)
    assert stages == ["SIGTERM", "SIGKILL"] and stopped.stage == "SIGKILL"
    assert not lives(job.process.pid)
    # Killed because someone asked for its end: stopped, not failed.
    assert (stopped.job.state, stopped.job.exit_code) == ("stopped", -signal.SIGKILL)


def test_a_ladder_without_its_last_rung_gives_up_with_a_sentence(folder: Path) -> None:
    job = run_program(folder, on_term="ignores")
    assert job.process is not None
    with pytest.raises(UserError, match=f"outlives SIGTERM: look at process {job.process.pid}"):
        stop_job(folder, ladder=SHORT[:1])
    assert job_state(folder) == "running"


@pytest.mark.parametrize(
    ("on_term", "family"),
    [("saves", "child"), ("ignores", "child"), ("saves", "daemon"), ("saves", "orphan"), ("saves", "stray")],
)
def test_what_the_program_started_ends_with_it(folder: Path, on_term: str, family: str) -> None:
    run_program(folder, on_term=on_term, family=family)
    deaf = int((folder / "deaf").read_text())
    assert lives(deaf)
    assert stop_job(folder, ladder=SHORT).stage == "SIGKILL"
    assert not lives(deaf)


def test_a_supervisor_that_hangs_does_not_keep_the_job_alive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop, "_RECORD_S", 0.2)
    job = run_program(folder)
    assert job.supervisor is not None and job.process is not None
    os.kill(job.supervisor.pid, signal.SIGSTOP)
    stopped = stop_job(folder, ladder=SHORT)
    assert stopped.stage == "SIGKILL" and not lives(job.process.pid) and not lives(job.supervisor.pid)
    assert (job_state(folder), stopped.job.stop_signal) == ("stopped", "SIGKILL")


def test_a_signal_to_the_supervisor_is_one_to_the_program(folder: Path) -> None:
    # As when the machine shuts down, or somebody kills what `ps` shows first.
    job = run_program(folder)
    assert job.supervisor is not None
    os.kill(job.supervisor.pid, signal.SIGTERM)
    until(lambda: job_state(folder) == "stopped", "the job to stop")
    record = Job.read(folder)
    assert record is not None and (record.exit_code, record.stop_signal) == (143, "SIGTERM")


def test_a_closed_terminal_does_not_reach_the_job(folder: Path) -> None:
    job = run_program(folder)
    assert job.supervisor is not None
    os.kill(job.supervisor.pid, signal.SIGHUP)
    os.kill(job.supervisor.pid, signal.SIGTERM)  # comes after it: had SIGHUP killed, no end would be recorded
    until(lambda: job_state(folder) != "running", "the job's end")
    assert job_state(folder) == "stopped"
