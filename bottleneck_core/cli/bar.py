"""How far something long is: a bar that redraws in place, or lines where the output is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bottleneck_core.figures.numbers import duration

_LINE_EVERY_S = 10.0


class Bar:
    """One activity of equal parts. The time left goes by the mean time of those after the first one."""

    def __init__(self, title: str, console: Console) -> None:
        self.title, self.console = title, console
        self._start: int | None = None  # a resumed activity does not begin at zero
        # When the first and the newest part of this start were done, and how many were done then.
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None
        self._next_line = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._task = self._progress.add_task(title, total=None, left="", note="")

    def __enter__(self) -> Bar:
        return self  # nothing is shown before the first report: there may be nothing to do

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def report(self, done: int, total: int | None, note: str = "") -> None:
        """Show that `done` of `total` parts are done (None: nobody knows how many), and a `note`."""
        left = self._time_left(done, total)
        self._progress.update(self._task, completed=done, total=total, left=left, note=note)
        if self.console.is_terminal:
            self._progress.start()
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_EVERY_S
            count = f"{done:,}" if total is None else f"{done:,}/{total:,}"
            self.console.print("  ".join(part for part in (self.title, count, note, left) if part), soft_wrap=True)

    def _time_left(self, done: int, total: int | None) -> str:
        if self._start is None or done < self._start:
            self._start, self._first = done, None
        if self._first is None:
            # What comes before the first part (imports, a first evaluation) says nothing of the others.
            self._first = self._last = (time.monotonic(), done) if done > self._start else None
        elif self._last and done != self._last[1]:
            self._last = (time.monotonic(), done)
        if total is None or self._first is None or self._last is None or not self._first[1] < done < total:
            return ""
        seconds, parts = (last - first for last, first in zip(self._last, self._first, strict=True))
        return f"ETA {duration(seconds / parts * (total - done))}"
