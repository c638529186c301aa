"""Real processes for the tests of jobs: a small program that says when it is ready, and ways to wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from bottleneck_core.jobs import Job, start_job

# argv: whether SIGTERM saves or is ignored; its family: alone, or with a process that ignores SIGTERM and is its child,
# a child in another session (daemon), or a grandchild whose parent has ended (orphan). Runs in its run folder.
PROGRAM = """
import os, signal, subprocess, sys, time
on_term, family = sys.argv[1:]

def save(signum, frame):
    print("saved on", signal.Signals(signum).name, flush=True)
    os._exit(128 + signum)

def start_deaf():
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", code]
    deaf = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=family == "daemon")
    deaf.stdout.readline()
    with open("deaf", "w") as file:
        file.write(str(deaf.pid))

signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save if on_term == "saves" else signal.SIG_IGN)
if family in ("child", "daemon"):
    start_deaf()
elif family == "orphan":
    middle = os.fork()
    if not middle:
        start_deaf()
        os._exit(0)
    os.waitpid(middle, 0)
print("ready", flush=True)
time.sleep(600)
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
