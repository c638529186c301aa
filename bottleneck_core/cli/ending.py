"""Ctrl-C as a question that is asked at the right moments, not an exception that may strike anywhere."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """Whether the user wants it to end: SIGINT, SIGTERM, or a terminal that was closed. A context manager."""

    def __init__(self) -> None:
        self.asked = False
        self._at_once = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Ending:
        for signum in _SIGNALS:
            self._previous[signum] = signal.signal(signum, self._received)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, the wish raises KeyboardInterrupt: for long work that can be dropped and asks nobody."""
        self._at_once = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = False

    def _received(self, signum: int, frame: FrameType | None) -> None:
        self.asked = True
        if self._at_once:
            self._at_once = False  # a second one must not interrupt what cleans up after the first
            raise KeyboardInterrupt
