"""The queue below a folder of runs: who waits for a device, in which order, and how many a device takes at once.

There is no process that runs the queue. `ROOT/.queue/queue.json` holds names and limits, changed under a lock and
replaced as a whole; every waiting job has its supervisor, which looks now and then whether its turn has come
(`bottleneck_core.jobs.waiting`). So the queue needs neither dashboard nor terminal, and no process whose death stops
it: whether a job waits or runs is always judged from its own record and the processes alive, the file only lists.
What vanished (SIGKILL, a reboot) is recorded as lost by the next who changes or lists the queue, and frees its slot.

Devices are those of one machine: on a folder that several share, each counts the jobs of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import filelock

from bottleneck_core.errors import UserError
from bottleneck_core.jobs.job import Job, read_job
from bottleneck_core.store.atomic import atomic_write_text
from bottleneck_core.store.lock import JOB_LOCK_NAME

DEFAULT_LIMIT = 1
_LOCK_S = 30.0  # it is held for some syncs of a disk


@dataclass
class Lines:
    """What queue.json holds: folders that wait, in order; those that may go past the limit; those that have a slot."""

    waiting: list[str] = field(default_factory=list)
    urgent: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)

    def limit(self, device: str) -> int:
        return self.limits.get(device, DEFAULT_LIMIT)


class Queue:
    """The queue of `root`. Nothing is created before the first change."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.realpath(root))
        self.path = self.root / ".queue" / "queue.json"

    def read(self) -> Lines:
        """As the file has it, with names of what may be gone. Raises UserError for a damaged file."""
        try:
            fields = json.loads(self.path.read_text(encoding="utf-8"))
            names = {key: [str(name) for name in fields[key]] for key in ("waiting", "urgent", "running")}
            return Lines(**names, limits={str(key): int(value) for key, value in fields["limits"].items()})
        except FileNotFoundError:
            return Lines()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path} is no queue ({error}): remove it, what waits lists itself again") from None

    @contextlib.contextmanager
    def edit(self) -> Iterator[Lines]:
        """The lines, rid of what is gone, under the lock; what the block made of them is written.

        Raises UserError where the lock is not to be had or the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path.with_name("queue.lock"), thread_local=False).acquire(timeout=_LOCK_S)
        except filelock.Timeout:
            raise UserError(f"the queue in {self.root} is locked by a process that hangs: find and end it") from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}): choose another folder") from None
        with lock:
            before = self.read()
            lines = self._settled(before)
            yield lines
            if lines != before:
                atomic_write_text(self.path, json.dumps(asdict(lines), indent=2) + "\n")

    def name(self, run_dir: Path) -> str:
        """A folder's name in the file: its path from the root, so that a root may be moved."""
        path = Path(os.path.realpath(run_dir))
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def job(self, name: str) -> Job | None:
        """The job of that name, None where there is none any more."""
        try:
            return read_job(self.root / name)
        except UserError:  # a damaged record names no process and no device: it takes no slot
            return None

    def waiting(self, lines: Lines) -> list[Job]:
        """The jobs that wait, in order."""
        jobs = [self.job(name) for name in lines.waiting]
        return [job for job in jobs if job is not None and job.state == "queued"]

    def is_turn(self, lines: Lines, job: Job) -> bool:
        """Whether `job` may start: nobody before it waits for a device of its, and each of them has a free slot."""
        name, wanted = self.name(job.run_dir), set(job.devices)
        if name in lines.urgent:
            return True
        ahead = lines.waiting[: lines.waiting.index(name)] if name in lines.waiting else lines.waiting
        if any(wanted & set(other.devices) for other in self._jobs(ahead, "queued")):
            return False
        taken = Counter(device for other in self._jobs(lines.running, "running") for device in other.devices)
        return all(taken[device] < lines.limit(device) for device in wanted)

    def _jobs(self, names: list[str], state: str) -> Iterator[Job]:
        for name in names:
            job = self.job(name)
            if job is not None and job.is_here and job.state == state:
                yield job

    def _settled(self, lines: Lines) -> Lines:
        """The lines as the jobs are now; those that vanished are recorded as lost."""
        waiting: list[str] = []
        running: list[str] = []
        for name in dict.fromkeys([*lines.waiting, *lines.running]):
            job = self.job(name)
            state = job.state if job else None
            if job and state == "lost" and job.status != "lost":
                _record_lost(job)
            waiting += [name] if state == "queued" else []
            running += [name] if state == "running" else []
        return Lines(waiting, [name for name in lines.urgent if name in waiting], running, dict(lines.limits))


def queued_jobs(root: Path) -> list[Job]:
    """The jobs that wait in the queue of `root`, in order. Raises UserError for a damaged queue."""
    queue = Queue(root)
    lines = queue.read()
    jobs = queue.waiting(lines)
    if len(jobs) < len(lines.waiting):
        with contextlib.suppress(UserError, OSError), queue.edit():  # a folder may be read-only: then it stays so
            pass
    return jobs


def move_job(run_dir: Path, root: Path, to: int) -> None:
    """Give a job that waits position `to` (0 is next; past the end is last).

    Raises UserError where it does not wait, or for a position below 0.
    """
    if to < 0:
        raise UserError(f"position {to} does not exist: 0 is the front of the queue")
    queue = Queue(root)
    with queue.edit() as lines:
        name = _waiting_name(queue, lines, run_dir)
        lines.waiting.remove(name)
        lines.waiting.insert(to, name)


def start_now(run_dir: Path, root: Path) -> None:
    """Let a job that waits start past order and limit; its supervisor sees that within two seconds.

    Raises UserError where it does not wait.
    """
    queue = Queue(root)
    with queue.edit() as lines:
        name = _waiting_name(queue, lines, run_dir)
        lines.urgent = [*(other for other in lines.urgent if other != name), name]


def device_limits(root: Path) -> dict[str, int]:
    """How many jobs of the queue a device takes at once: those set, those that jobs use, and "cpu".

    Raises UserError for a damaged queue.
    """
    queue = Queue(root)
    lines = queue.read()
    jobs = [*queue.waiting(lines), *queue._jobs(lines.running, "running")]
    used = [device for job in jobs for device in job.devices]
    return {device: lines.limit(device) for device in sorted({"cpu", *used, *lines.limits})}


def set_device_limit(root: Path, device: str, limit: int) -> None:
    """Let `device` take `limit` jobs at once; 0 holds the queue, and no job that runs is stopped.

    Raises UserError for what is no device or a limit below 0.
    """
    if limit < 0:
        raise UserError(f"a limit of {limit} jobs is below 0: give 0 to hold the queue of {device}")
    with Queue(root).edit() as lines:
        lines.limits[device_name(device)] = limit


def device_name(device: str) -> str:
    """A device as the queue counts it: "cuda" is "cuda:0". Raises UserError for what is none."""
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,4})?", device):
        raise UserError(f"{device!r} is no device: give cpu, mps, cuda:0, cuda:1 and so on")
    return "cuda:0" if device == "cuda" else device


def _waiting_name(queue: Queue, lines: Lines, run_dir: Path) -> str:
    name = queue.name(run_dir)
    if name not in lines.waiting:
        job = queue.job(name)
        what = f"is {job.state}" if job else "is none"
        raise UserError(f"the job in {run_dir} {what}, it does not wait: `jobs` shows what waits")
    return name


def _record_lost(job: Job) -> None:
    """Nobody else will. Not where somebody is on the folder just now: the job is theirs."""
    with (
        contextlib.suppress(filelock.Timeout, OSError),
        filelock.FileLock(job.run_dir / JOB_LOCK_NAME).acquire(timeout=0),
    ):
        latest = read_job(job.run_dir)
        if latest == job:
            replace(job, status="lost").write()
