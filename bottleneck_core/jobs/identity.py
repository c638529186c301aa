"""Which process a record on disk means: a pid alone is not enough, since pids are used again.

A process is the same one if its pid, its start time and the boot it lived in are the same. On Linux the
start time counts from the boot, in hundredths of a second: unlike the wall time of the start it does not
move when the clock is set, and the boot id says which boot it counts from. Elsewhere it is the wall time of
the start, which needs no boot.

What a command starts in turn nobody records. Its processes are known by a mark in their environment, which
they inherit also when they leave its group, its session or their dead parent.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
MARK = "BOTTLENECK_JOB"  # the environment variable
_TOLERANCE_S = 0.05  # five clock ticks: start times are exact, sums and differences of floats are not


@dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process that can be recognised later, by another process: its pid and `create_time` in seconds."""

    pid: int
    create_time: float

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        """The process that has `pid` now. Raises psutil.NoSuchProcess."""
        return cls(pid=pid, create_time=_create_time(psutil.Process(pid)))

    def find(self) -> psutil.Process | None:
        """The process if it lives; None when it ended (a zombie has), or when its pid is another's now."""
        try:
            process = psutil.Process(self.pid)
            if abs(_create_time(process) - self.create_time) > _TOLERANCE_S:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.NoSuchProcess:
            return None


def marked(mark: str) -> list[psutil.Process]:
    """The living processes whose environment has `mark`, as far as this user may look: some ms a call."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def boot_id() -> str:
    """The kernel's name for this boot; empty where start times are wall times."""
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def _create_time(process: psutil.Process) -> float:
    if sys.platform == "linux":
        # psutil adds the boot time, which follows the clock; without it, this is the kernel's own value.
        return round(process.create_time() - psutil.boot_time(), 2)
    return process.create_time()
