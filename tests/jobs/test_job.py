"""Jobs with real processes: what is on disk, what outlives what, and whom a signal may reach."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bottleneck_core.errors import UserError
from bottleneck_core.jobs import Job, find_jobs, job_state, start_job, stop_job
from bottleneck_core.jobs.identity import ProcessIdentity, boot_id
from bottleneck_core.jobs.supervisor import Supervisor
from tests.jobs.programs import lives, run_program, run_python, until


def ended(folder: Path) -> Job:
    until(lambda: job_state(folder) != "running", "the job's end")
    job = Job.read(folder)
    assert job is not None
    return job


def test_a_job_is_recorded_before_start_returns(folder: Path) -> None:
    job = run_program(folder)
    record = json.loads((folder / "job.json").read_text())
    assert job.process is not None and record["pid"] == job.process.pid and lives(record["pid"])
    assert record["status"] == "running" and record["ended"] is None and record["exit_code"] is None
    assert (record["boot_id"], record["host"]) == (boot_id(), socket.gethostname())
    assert record["create_time"] == ProcessIdentity.of(record["pid"]).create_time
    assert record["argv"][:2] == [sys.executable, "-c"]
    assert Job.read(folder) == job and job.state == job_state(folder) == "running"


def test_a_job_is_detached(folder: Path) -> None:
    job = run_program(folder)
    assert job.process is not None and job.supervisor is not None
    assert os.getsid(job.process.pid) == os.getsid(job.supervisor.pid) != os.getsid(0)
    assert os.getpgid(job.process.pid) == job.process.pid  # signals for it are for its own family only
    assert job.supervisor.pid not in [child.pid for child in psutil.Process().children(recursive=True)]


def test_the_console_has_both_streams_and_there_is_no_input(folder: Path) -> None:
    run_python("import sys; print('out'); print('err', file=sys.stderr); print(repr(sys.stdin.read()))", folder)
    assert ended(folder).state == "done"
    assert sorted((folder / "console.log").read_text().split()) == ["''", "err", "out"]


@pytest.mark.parametrize(
    ("code", "state"),
    [(0, "done"), (1, "failed"), (2, "failed"), (3, "failed"), (130, "stopped"), (143, "stopped")],
)
def test_the_end_is_recorded(folder: Path, code: int, state: str) -> None:
    run_python(f"raise SystemExit({code})", folder)
    job = ended(folder)
    assert (job.state, job.exit_code) == (state, code) and job.ended is not None and job.ended >= job.created


def test_a_job_killed_from_outside_has_failed(folder: Path) -> None:
    job = run_program(folder)
    assert job.process is not None
    os.kill(job.process.pid, signal.SIGKILL)
    job = ended(folder)
    assert (job.state, job.exit_code) == ("failed", -signal.SIGKILL)


def test_a_job_outlives_its_starter(folder: Path) -> None:
    starter = (
        "import sys; from pathlib import Path; from tests.jobs.programs import run_program; "
        "run_program(Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", starter, str(folder)], check=True, cwd=Path(__file__).parents[2])
    assert job_state(folder) == "running"
    assert stop_job(folder).job.exit_code == 143


def test_one_job_a_folder(folder: Path) -> None:
    first = run_program(folder)
    with pytest.raises(UserError, match=r"a job already runs in .*nano_test.*jobs stop"):
        run_python("", folder)
    assert Job.read(folder) == first
    stop_job(folder)
    run_python("", folder)
    assert ended(folder).state == "done"


def test_a_command_that_is_missing(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no-such-program cannot be started .*No such file"):
        start_job([], folder, program=["no-such-program"])
    assert job_state(folder) is None


def test_an_inherited_deafness_to_ctrl_c_ends_at_the_supervisor(folder: Path) -> None:
    # As in a shell script that starts a program with &.
    code = "import signal as s; raise SystemExit(s.getsignal(s.SIGINT) != s.default_int_handler)"
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run_python(code, folder)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert ended(folder).state == "done"


def test_a_pid_that_is_used_again_is_not_the_job(folder: Path) -> None:
    run_python("", folder)
    job = ended(folder)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        identity = ProcessIdentity.of(stranger.pid)
        earlier = replace(identity, create_time=identity.create_time - 1)
        replace(job, status="running", process=earlier, supervisor=earlier).write()
        assert job_state(folder) == "lost"
        assert stop_job(folder).stage is None and stranger.poll() is None
        # The control: the same record with the right start time is a job that runs.
        replace(job, status="running", process=identity, supervisor=None).write()
        assert job_state(folder) == "running"
        replace(job, status="running", process=identity, supervisor=None, boot_id="another boot").write()
        assert job_state(folder) == "lost"
        assert stop_job(folder).stage is None and stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_killed_supervisor_leaves_a_job_that_runs_and_can_be_stopped(folder: Path) -> None:
    job = run_program(folder)
    assert job.supervisor is not None and job.process is not None
    supervisor = job.supervisor.pid
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: not lives(supervisor), "the supervisor's end")
    assert job_state(folder) == "running"
    with pytest.raises(UserError, match="already runs"):
        run_python("", folder)
    stopped = stop_job(folder)
    assert stopped.stage == "SIGTERM" and not lives(job.process.pid)
    assert (stopped.job.state, stopped.job.exit_code, job_state(folder)) == ("stopped", None, "stopped")
    assert "saved on SIGTERM" in (folder / "console.log").read_text()


def test_a_job_whose_processes_are_all_gone_is_lost(folder: Path) -> None:
    job = run_program(folder)
    assert job.supervisor is not None and job.process is not None
    os.kill(job.supervisor.pid, signal.SIGKILL)
    os.kill(job.process.pid, signal.SIGKILL)
    until(lambda: job_state(folder) == "lost", "the job to be lost")
    assert stop_job(folder).stage is None


def test_a_job_of_another_machine_is_left_alone(folder: Path) -> None:
    run_python("", folder)
    replace(ended(folder), status="running", host="elsewhere", process=None, supervisor=None).write()
    assert job_state(folder) == "running"
    with pytest.raises(UserError, match="runs on elsewhere: stop it there"):
        stop_job(folder)


def test_listing_finds_jobs_and_names_damaged_records(tmp_path: Path, folder: Path) -> None:
    run_python("", folder)
    ended(folder)
    later = tmp_path / "group" / "later"
    later.mkdir(parents=True)
    run_python("raise SystemExit(1)", later)
    ended(later)
    for name, text in (("half", '{"argv": ['), ("odd", '{"status": "asleep"}'), ("list", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "job.json").write_text(text)
    jobs, errors = find_jobs(tmp_path)
    assert [(job.id, job.state) for job in jobs] == [("later", "failed"), ("nano_test", "done")]
    assert len(errors) == 3 and all("job.json is no job record" in error for error in errors)
    with pytest.raises(UserError, match=r"half.job\.json is no job record"):
        job_state(tmp_path / "half")


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("python -m bottleneck_core train --size nano", "train --size nano"),
        ("python -m torch.distributed.run --standalone --nproc-per-node 2 -m bottleneck_core train", "train"),
        ("python -m torch.distributed.run --standalone --nproc-per-node 2 other.py", None),
        ("sh", None),
    ],
)
def test_the_command_for_people(argv: str, shown: str | None, tmp_path: Path) -> None:
    job = Job(run_dir=tmp_path, argv=tuple(argv.split()), cwd="", host="", boot_id="", created="")
    assert job.command_line == (shown or argv)


def test_no_job(folder: Path) -> None:
    assert job_state(folder) is None and find_jobs(folder) == ([], [])
    with pytest.raises(UserError, match="no job was started in"):
        stop_job(folder)


def test_a_command_that_cannot_be_recorded_does_not_run_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Job) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Job, "write", full)
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    job = Job(run_dir=folder, argv=command, cwd="", host=socket.gethostname(), boot_id=boot_id(), created="")
    supervisor = Supervisor(job)
    try:
        with pytest.raises(OSError, match="no space left"):
            supervisor.run(lambda message: pytest.fail(message))
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    child = supervisor._child
    assert child is not None and child.wait(30) == -signal.SIGKILL
