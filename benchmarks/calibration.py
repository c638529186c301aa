"""What this machine did a fixed piece of work in, and how busy others kept it: to be read beside every time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import psutil

_LINE = orjson.dumps({"type": "train", "step": 123_456, **{f"metric_{i}": 1.2345678901234567 * i for i in range(20)}})
_CALM = 0.25  # share of the machine that others may use
_PATIENCE_S = 2.0


def calibration(repeats: int = 5) -> dict[str, float]:
    """Medians: a thread parsing JSON in MB/s, two threads summing 64 MB each in GB/s; and what others use."""
    numbers = np.ones(8_000_000)

    def both() -> None:
        with ThreadPoolExecutor(2) as two:
            list(two.map(lambda _: numbers.sum(), range(2)))

    parse = statistics.median(_seconds(lambda: [orjson.loads(_LINE) for _ in range(20_000)]) for _ in range(repeats))
    add = statistics.median(_seconds(both) for _ in range(repeats))
    return {
        "json_mb_s": round(20_000 * len(_LINE) / parse / 1e6, 1),
        "sum_gb_s": round(2 * numbers.nbytes / add / 1e9, 2),
        "busy": others(),
    }


def measured(act: Callable[[], tuple[float, float]], repeats: int = 5) -> dict[str, Any]:
    """`act` gives seconds passed and seconds of processor time: medians and all in milliseconds, and the share of the
    machine that others used before each. Processor time says what others' work hides, but counts both cores."""
    times, worked, busy = [], [], []
    for _ in range(repeats):
        busy.append(calm())
        seconds, cpu = act()
        times.append(round(1e3 * seconds, 1))
        worked.append(round(1e3 * cpu))
    return {
        "median_ms": statistics.median(times),
        "median_cpu_ms": statistics.median(worked),
        "all_ms": times,
        "all_cpu_ms": worked,
        "busy_before": busy,
    }


def calm() -> float:
    """Waits a while for others to finish; the share of the machine that they use all the same."""
    deadline = time.monotonic() + _PATIENCE_S
    while (share := others()) > _CALM and time.monotonic() < deadline:
        pass
    return share


def others(seconds: float = 0.3) -> float:
    """The share of all cores in use while this process sleeps."""
    return round(psutil.cpu_percent(seconds) / 100, 2)


def _seconds(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start
