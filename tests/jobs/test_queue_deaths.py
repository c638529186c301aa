"""What dies in a queue, and how: a slot is freed and no other job is held up, but never while something still runs."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

from bottleneck_core.jobs import Job, job_state, move_job, queued_jobs, requeue_job, stop, stop_job
from bottleneck_core.jobs.queue import Queue
from bottleneck_core.store.layout import run_status
from tests.jobs.programs import begun, journal, let_go, lives, queue_turn, until


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(pid), f"the end of {pid}")


def pids(job: Job) -> tuple[int, int]:
    assert job.supervisor is not None and job.process is not None
    return job.supervisor.pid, job.process.pid


def test_a_slot_is_freed_when_its_holder_is_killed_but_not_before_all_of_it_is_gone(root: Path) -> None:
    supervisor, process = pids(queue_turn(root, "a"))
    b = queue_turn(root, "b")
    kill(supervisor)
    queue = Queue(root)
    assert job_state(root / "a") == "running" and not queue.is_turn(queue.read(), b)
    kill(process)
    begun(root, "b")
    record = Job.read(root / "a")  # by then it is on disk, for those that look at files only
    assert record is not None and record.status == "lost" and run_status(root / "a") == "lost"
    assert queue.read().running == ["b"]


def test_a_command_killed_from_outside_frees_its_slot(root: Path) -> None:
    _, process = pids(queue_turn(root, "a"))
    queue_turn(root, "b")
    kill(process)
    begun(root, "b")
    assert job_state(root / "a") == "failed"


def test_a_waiting_job_that_vanished_is_lost_and_holds_nobody_up(root: Path) -> None:
    queue_turn(root, "a")
    b = queue_turn(root, "b")
    queue_turn(root, "c")
    assert b.supervisor is not None
    kill(b.supervisor.pid)
    assert job_state(root / "b") == "lost"
    assert run_status(root / "b") == "queued"  # files do not tell, until somebody looks at the queue
    assert [job.id for job in queued_jobs(root)] == ["c"]
    assert run_status(root / "b") == "lost" and Queue(root).read().waiting == ["c"]
    move_job(root / "c", root, 0)
    let_go(root, "a")
    begun(root, "c")

    again = requeue_job(root / "b", root)
    assert (again.state, again.argv, again.cwd) == ("queued", b.argv, b.cwd)
    let_go(root, "c")
    begun(root, "b")
    assert journal(root) == ["begin a", "end a", "begin c", "end c", "begin b"]


def test_a_vanished_job_at_the_front_does_not_block(root: Path) -> None:
    # Nobody lists or changes the queue here: the one behind it finds out for itself.
    queue_turn(root, "a")
    b = queue_turn(root, "b")
    queue_turn(root, "c")
    assert b.supervisor is not None
    kill(b.supervisor.pid)
    let_go(root, "a")
    begun(root, "c")
    assert job_state(root / "b") == "lost" and journal(root)[-1] == "begin c"


def test_after_a_reboot_what_waited_and_what_ran_is_lost(root: Path) -> None:
    jobs = [queue_turn(root, name) for name in "ab"]
    for job in reversed(jobs):
        replace(job, boot_id="another boot").write()
    assert [job_state(root / name) for name in "ab"] == ["lost", "lost"]
    assert queued_jobs(root) == [] and queue_turn(root, "c").state == "running"
    let_go(root, "a")  # which the new records do not name any more
    until(lambda: all(process is None for process in (jobs[0].live_process, jobs[1].live_supervisor)), "their ends")
    assert not any("b" in line.split() for line in journal(root))


def test_a_waiting_job_that_is_stopped_never_runs(root: Path) -> None:
    queue_turn(root, "a")
    b = queue_turn(root, "b")
    queue_turn(root, "c")
    stages: list[str] = []
    stopped = stop_job(root / "b", on_stage=stages.append)
    assert stages == ["SIGTERM"] and b.live_supervisor is None
    record = stopped.job
    assert (record.state, record.exit_code, record.stop_signal, record.process) == ("stopped", None, "SIGTERM", None)
    assert [job.id for job in queued_jobs(root)] == ["c"]
    let_go(root, "a", "b", "c")
    begun(root, "c")
    assert not any("b" in line.split() for line in journal(root))
    assert stop_job(root / "b").stage is None


def test_a_waiting_job_records_its_end_when_the_machine_shuts_down(root: Path) -> None:
    queue_turn(root, "a")
    b = queue_turn(root, "b")
    supervisor = b.live_supervisor
    assert supervisor is not None
    supervisor.terminate()
    until(lambda: not lives(supervisor.pid), "the supervisor's end")
    record = Job.read(root / "b")
    assert record is not None and (record.status, record.stop_signal) == ("stopped", "SIGTERM")
    assert Queue(root).read().waiting == [] and journal(root) == ["begin a"]


def test_a_waiting_supervisor_that_hangs_is_killed(root: Path, monkeypatch) -> None:
    monkeypatch.setattr(stop, "_RECORD_S", 0.2)
    queue_turn(root, "a")
    b = queue_turn(root, "b")
    assert b.supervisor is not None
    os.kill(b.supervisor.pid, signal.SIGSTOP)
    stopped = stop_job(root / "b", ladder=[(signal.SIGTERM, 0.2), (signal.SIGKILL, 10.0)])
    assert (stopped.stage, stopped.job.state) == ("SIGKILL", "stopped") and not lives(b.supervisor.pid)
    assert queued_jobs(root) == []


def test_the_last_record_of_a_job_is_that_of_its_second_life(root: Path) -> None:
    first = queue_turn(root, "a")
    stop_job(root / "a")
    second = requeue_job(root / "a", root)
    assert second.state == "running" and second.mark != first.mark and second.exit_code is None
    assert json.loads((root / "a" / "job.json").read_text())["stop_signal"] is None
