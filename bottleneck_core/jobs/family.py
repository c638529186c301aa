"""All processes of a job: what must be gone before the job is."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable

import psutil

from bottleneck_core.jobs.job import Job

_POLL_S = 0.02
# What a command leaves behind may end by itself (a pool that sees its parent gone), or save (a trainer whose torchrun
# was killed), and would else hold the device that the next job needs.
_FAREWELL: tuple[tuple[signal.Signals | None, float], ...] = (
    (None, 2.0),
    (signal.SIGTERM, 15.0),
    (signal.SIGKILL, 5.0),
)


def family(job: Job) -> list[psutil.Process]:
    """The command's process, its descendants, the rest of its group, and all others that it or they started."""
    members = set(job.live_rest)
    leader = job.live_process
    if leader is not None:
        members.add(leader)
        with contextlib.suppress(psutil.NoSuchProcess):
            members.update(leader.children(recursive=True))
        for process in psutil.process_iter():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(process.pid) == leader.pid:
                    members.add(process)
    return living(members)


def end_rest(job: Job) -> None:
    """End what is left of a job whose command has ended: it gets time, is asked, and is killed."""
    for signum, seconds in _FAREWELL:
        rest = job.live_rest
        if not rest:
            return
        if signum is not None:
            send(rest, signum)
        wait(rest, seconds, more=lambda: job.live_rest)


def send(processes: Iterable[psutil.Process], signum: signal.Signals) -> None:
    """Signal them one by one: psutil looks at the start time before it does, killpg does not."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


def wait(
    processes: Iterable[psutil.Process],
    seconds: float,
    *,
    more: Callable[[], list[psutil.Process]] = list,
    found: Callable[[list[psutil.Process]], None] = lambda processes: None,
) -> list[psutil.Process]:
    """Those of `processes` that still live after `seconds`, or none as soon as all have ended.

    Once they have, `more` is asked for others, such as children born meanwhile: `found` hears of those, and they are
    waited for too.
    """
    deadline = time.monotonic() + seconds
    alive = living(processes)
    while time.monotonic() < deadline:
        if not alive:
            alive = more()
            if not alive:
                return []
            found(alive)
        time.sleep(_POLL_S)
        alive = living(alive)
    return alive or more()


def living(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that run. A zombie does not: it only waits for its parent to look, which nobody here can hasten."""
    return [process for process in processes if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
