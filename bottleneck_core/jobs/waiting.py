"""How a supervisor waits for its job's turn: it lists itself, looks now and then, and starts under the queue's lock.

A waiting job costs a process of 13 MB and 0.1 % of a core (40 of them, measured): all but the first read three small
files and look at one process. What this buys is that nobody else has to live for the queue to go on.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from bottleneck_core.errors import UserError
from bottleneck_core.jobs.job import Job
from bottleneck_core.jobs.queue import Lines, Queue

_NEXT_S = 0.5  # between two looks of the first in line; each job further back waits a little longer
_FURTHER_S = 0.05
_LONGEST_S = 2.0


class Place:
    """The place of `job`, which this process supervises, in the queue of its root."""

    def __init__(self, job: Job) -> None:
        assert job.root is not None
        self.job = job
        self.queue = Queue(job.root)
        self.name = self.queue.name(job.run_dir)
        self._pause_s = _NEXT_S
        self._complaint = ""
        self._starts = self._started = False

    def enter(self, record: Callable[[], None], start: Callable[[], None]) -> bool:
        """`record` that the job waits, list it last, and `start` it where nothing is in its way: whether it did.

        Raises UserError where the queue cannot be had, and what `record` and `start` raise.
        """
        with self._whatever_follows_the_start(), self.queue.edit() as lines:
            record()
            lines.waiting = [*(name for name in lines.waiting if name != self.name), self.name]
            if self.queue.is_turn(lines, self.job):
                self._start(lines, start)
        return self._started

    def wait(self, start: Callable[[], None], gives_up: Callable[[], bool]) -> bool:
        """Until the job's turn, then `start` it: whether it did. It does not when `gives_up` says so, or when the
        record is no longer this job's: its folder was removed, or somebody wrote its end.

        Raises what `start` raises.
        """
        while not gives_up():
            if not self._is_mine():
                return False
            if self._has_turn() and self._take(start):
                return True
            time.sleep(self._pause_s)
        return False

    def _is_mine(self) -> bool:
        try:
            latest = Job.read(self.job.run_dir)
        except UserError:
            return False
        return latest is not None and (latest.status, latest.mark) == ("queued", self.job.mark)

    def _has_turn(self) -> bool:
        """A look without the lock. Who finds himself missing in the file (somebody removed it) lists himself again."""
        try:
            lines = self.queue.read()
            if self.name not in lines.waiting:
                with self.queue.edit() as lines:
                    lines.waiting += [] if self.name in lines.waiting else [self.name]
            self._pause_s = min(_NEXT_S + _FURTHER_S * lines.waiting.index(self.name), _LONGEST_S)
            return self.queue.is_turn(lines, self.job)
        except (OSError, UserError) as error:  # a full disk, a damaged file: people can mend it, and waiting goes on
            if str(error) != self._complaint:
                print(f"the queue cannot be used: {error}", file=sys.stderr, flush=True)
                self._complaint = str(error)
            return False

    def _take(self, start: Callable[[], None]) -> bool:
        """Start if it is still our turn. What fails before the start is tried again at the next look."""
        try:
            with self._whatever_follows_the_start(), self.queue.edit() as lines:
                if self._is_mine() and self.queue.is_turn(lines, self.job):
                    self._start(lines, start)
        except (OSError, UserError):
            if self._starts:
                raise
        return self._started

    def _start(self, lines: Lines, start: Callable[[], None]) -> None:
        self._starts = True
        start()
        self._started = True
        lines.waiting.remove(self.name)
        lines.urgent = [name for name in lines.urgent if name != self.name]
        lines.running.append(self.name)

    @contextlib.contextmanager
    def _whatever_follows_the_start(self) -> Iterator[None]:
        """A list that cannot be written then does no harm: the next who changes it sees that the job runs."""
        try:
            yield
        except OSError:
            if not self._started:
                raise

    def leave(self) -> None:
        """Take the job off the list; where that fails the next who changes the queue does it."""
        with contextlib.suppress(OSError, UserError), self.queue.edit() as lines:
            lines.waiting = [name for name in lines.waiting if name != self.name]
