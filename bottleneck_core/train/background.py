"""What a run writes down while it trains on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Calls in the order in which they were given: in one thread beside the training, or at once without `threaded`.

    On a GPU the host has time while a step is computed; on the CPU a second thread would only take it from the step. An
    error of a call is raised by the next use.
    """

    def __init__(self, threaded: bool) -> None:
        self._pool = ThreadPoolExecutor(1, "recorder") if threaded else None
        self._pending: list[Future[Any]] = []

    def __call__(self, action: Callable[..., Any], *arguments: Any) -> None:
        if self._pool is None:
            action(*arguments)
            return
        for done in [future for future in self._pending if future.done()]:
            self._pending.remove(done)
            done.result()
        self._pending.append(self._pool.submit(action, *arguments))

    def wait(self) -> None:
        """Until all calls are done. Raises what the first that failed raised."""
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def close(self) -> None:
        """Ends the thread; calls that were given are still made."""
        if self._pool is not None:
            self._pool.shutdown()
