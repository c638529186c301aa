"""What ends a run early: signals, the clock, and numbers that are not finite."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from types import FrameType
from typing import Any

import torch
from torch import Tensor

EXIT_CODES = {"completed": 0, "max_minutes": 0, "nonfinite": 3, "sigint": 130, "sigterm": 143}
_REASONS = {0: None, 1: "max_minutes", 2: "sigint", 3: "sigterm"}


class StopRequest:
    """Whether and why the run should save and stop. A context manager: signal handlers are restored at its end.

    A second SIGINT ends the process at once, as people expect of a second Ctrl-C.
    """

    def __init__(self, max_minutes: float | None) -> None:
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._code = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._code == 2:
            raise KeyboardInterrupt
        self._code = 2 if number == signal.SIGINT else 3

    @property
    def code(self) -> int:
        """0: go on; else a number that processes can agree on (the largest wins)."""
        if not self._code and self._deadline is not None and time.monotonic() >= self._deadline:
            return 1
        return self._code

    @staticmethod
    def reason(code: int) -> str | None:
        return _REASONS[code]


class NonFinite(Exception):
    """Loss or gradient norm of a step is NaN or infinite."""

    def __init__(self, step: int, loss: float, grad_norm: float) -> None:
        self.step, self.loss, self.grad_norm = step, loss, grad_norm
        what = "loss" if not _finite(loss) else "gradient norm"
        super().__init__(f"{what} is not finite at step {step} (loss {loss}, gradient norm {grad_norm})")


class FiniteGuard:
    """Raises `NonFinite` for a step whose loss or gradient norm is not finite.

    On a GPU asking for a number waits for all that was queued before. So both are copied to the host as soon as they
    are known, and looked at one step later, when the copy has long arrived; `settle` looks at all of them and is called
    before anything is saved.
    """

    def __init__(self, lag: int, check_norm: bool) -> None:
        self._lag, self._check_norm = lag, check_norm
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()

    def watch(self, step: int, loss: Tensor, grad_norm: Tensor) -> None:
        values, arrived = torch.stack((loss.detach().float(), grad_norm.detach().float())), None
        if values.is_cuda:
            values = torch.empty(2, pin_memory=True).copy_(values, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        self._pending.append((step, values, arrived))
        while len(self._pending) > self._lag:
            self._check(*self._pending.popleft())

    def settle(self) -> None:
        while self._pending:
            self._check(*self._pending.popleft())

    def _check(self, step: int, values: Tensor, arrived: torch.cuda.Event | None) -> None:
        if arrived is not None:
            arrived.synchronize()
        loss, grad_norm = values.tolist()
        # A fp16 loss scale that is too high overflows gradients by design; the scaler skips that step.
        if not _finite(loss) or (self._check_norm and not _finite(grad_norm)):
            raise NonFinite(step, loss, grad_norm)


def _finite(value: float) -> bool:
    return value - value == 0
