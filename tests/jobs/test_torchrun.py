"""Jobs of several processes: torchrun gives each a session of its own, out of reach of a signal to the group.

The ranks are small programs without torch; the launcher is the real one.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from bottleneck_core.errors import UserError
from bottleneck_core.jobs import Job, job_state, queue_job, requeue_job, stop_job
from bottleneck_core.jobs.queue import Queue
from tests.jobs.programs import lives, queue_turn, until

RANK = """
import os, signal, sys, time
on_term = sys.argv[1]

def save(signum, frame):
    open(f"saved{os.environ['RANK']}", "w").close()
    os._exit(128 + signum)

signal.signal(signal.SIGTERM, save if on_term == "saves" else signal.SIG_IGN)
with open(f"half{os.environ['RANK']}", "w") as file:  # renamed when it is whole
    file.write(f"{os.getpid()} {os.getsid(0)} {os.environ['WORLD_SIZE']}")
os.rename(file.name, f"rank{os.environ['RANK']}")
time.sleep(600)
"""
SHORT = ((signal.SIGTERM, 0.5), (signal.SIGKILL, 20.0))


def start_ranks(root: Path, on_term: str = "saves", name: str = "two") -> tuple[Job, list[int]]:
    """A job of two ranks, and their process ids; each leads a session of its own."""
    folder = root / name
    folder.mkdir()
    (folder / "rank.py").write_text(RANK)
    program = [sys.executable, "rank.py"]
    env = {"OMP_NUM_THREADS": "1"}
    job = queue_job([on_term], folder, root=root, device="cpu", nproc=2, program=program, cwd=folder, env=env)
    until(lambda: all((folder / f"rank{rank}").exists() for rank in (0, 1)), "the ranks to be ready", 120)
    ranks = [tuple(map(int, (folder / f"rank{rank}").read_text().split())) for rank in (0, 1)]
    assert all(pid == session and size == 2 for pid, session, size in ranks)
    return job, [pid for pid, _, _ in ranks]


def saved(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "two").glob("saved*"))


def test_all_ranks_save_on_the_first_stage(root: Path) -> None:
    _, ranks = start_ranks(root)
    stopped = stop_job(root / "two")
    # torchrun ends with 1 on a signal, however its ranks ended: that is no failure when somebody asked for it.
    assert (stopped.stage, stopped.job.state, stopped.job.exit_code) == ("SIGTERM", "stopped", 1)
    assert saved(root) == ["saved0", "saved1"] and not any(map(lives, ranks))


def test_deaf_ranks_are_killed_with_the_launcher(root: Path) -> None:
    job, ranks = start_ranks(root, on_term="ignores")
    stopped = stop_job(root / "two", ladder=SHORT)
    assert (stopped.stage, stopped.job.state) == ("SIGKILL", "stopped")
    assert job.process is not None and not any(map(lives, [*ranks, job.process.pid]))


def test_ranks_of_a_killed_launcher_save_and_end_before_the_job_does(root: Path) -> None:
    job, ranks = start_ranks(root)
    assert job.process is not None
    os.kill(job.process.pid, signal.SIGKILL)
    until(lambda: job_state(root / "two") != "running", "the job's end")
    assert job_state(root / "two") == "failed" and saved(root) == ["saved0", "saved1"]
    assert not any(map(lives, ranks))


def test_ranks_that_nobody_watches_any_more_still_are_the_job(root: Path) -> None:
    job, ranks = start_ranks(root)
    waiter = queue_turn(root, "next")
    assert job.process is not None and job.supervisor is not None
    for pid in (job.supervisor.pid, job.process.pid):
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not lives(pid), "launcher and supervisor to be gone")
    assert all(map(lives, ranks)) and job_state(root / "two") == "running"
    queue = Queue(root)
    assert not queue.is_turn(queue.read(), waiter)  # they still have the device
    with pytest.raises(UserError, match="is running: only what was lost"):
        requeue_job(root / "two", root)
    stopped = stop_job(root / "two")
    assert (stopped.stage, stopped.job.state) == ("SIGTERM", "stopped")
    assert saved(root) == ["saved0", "saved1"] and not any(map(lives, ranks))
    until(lambda: job_state(root / "next") == "running", "the next to have the device")
