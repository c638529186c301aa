"""Real processes for the tests of jobs: a small program that says when it is ready, and ways to wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bottleneck_core.jobs import Job, job_state, queue_job, start_job

# argv: whether SIGTERM saves or is ignored; its family: alone, or with a process that ignores SIGTERM and is its child,
# a child in another session (daemon), a grandchild whose parent has ended (orphan), or one that is both (stray). Runs
# in its run folder.
PROGRAM = """
import os, signal, subprocess, sys, time
on_term, family = sys.argv[1:]

def save(signum, frame):
    print("saved on", signal.Signals(signum).name, flush=True)
    os._exit(128 + signum)

def start_deaf():
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", code]
    deaf = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=family in ("daemon", "stray"))
    deaf.stdout.readline()
    with open("deaf", "w") as file:
        file.write(str(deaf.pid))

signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save if on_term == "saves" else signal.SIG_IGN)
if family in ("child", "daemon"):
    start_deaf()
elif family in ("orphan", "stray"):
    middle = os.fork()
    if not middle:
        start_deaf()
        os._exit(0)
    os.waitpid(middle, 0)
print("ready", flush=True)
time.sleep(600)
"""

# Says that it runs, in a file that jobs share, until there is a file "go" in its folder. argv: its name, the file.
TURN = """
import os, sys, time
name, journal = sys.argv[1:3]

def say(what):
    with open(journal, "a") as file:
        file.write(f"{what} {name}\\n")

say("begin")
print("ready", *sys.argv[3:], flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
say("end")
"""


def run_python(code: str, folder: Path, *words: str) -> Job:
    """A job that runs `code` in `folder`, which is also its run folder."""
    return start_job(["-c", code, *words], folder, program=[sys.executable], cwd=folder)


def run_program(folder: Path, on_term: str = "saves", family: str = "alone") -> Job:
    """A job that runs `PROGRAM`, from when it has its signal handlers."""
    folder.mkdir(exist_ok=True)
    job = run_python(PROGRAM, folder, on_term, family)
    until(lambda: "ready" in (folder / "console.log").read_text(), "the program to be ready")
    return job


def queue_turn(root: Path, name: str, device: str = "cpu", **more: Any) -> Job:
    """A job that runs `TURN` in the queue of `root`."""
    folder = root / name
    folder.mkdir(exist_ok=True)
    words = ["-c", TURN, name, str(root / "journal")]
    return queue_job(words, folder, root=root, device=device, program=[sys.executable], cwd=folder, **more)


def let_go(root: Path, *names: str) -> None:
    """End those jobs, now or as soon as they begin, and wait for the end of those that run."""
    for name in names:
        (root / name / "go").touch()
    until(lambda: not any(job_state(root / name) == "running" for name in names), f"the end of {names}")


def journal(root: Path) -> list[str]:
    """What the jobs of `root` said: "begin a", "end a", ..."""
    path = root / "journal"
    return path.read_text().splitlines() if path.exists() else []


def begun(root: Path, name: str) -> None:
    """Wait until a job has begun."""
    until(lambda: f"begin {name}" in journal(root), f"{name} to begin")


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Return as soon as `condition` holds; fail when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
