"""How far a run is and when it will be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bottleneck_core import Run

# Rows that the pace is taken from: enough to even out evaluations in between.
_RECENT_ROWS = 200


@dataclass(frozen=True)
class Progress:
    """Steps done of `steps`, `share` of all; `eta_s` seconds are left at the recent pace. None: unknown."""

    done: int
    steps: int | None
    share: float | None
    eta_s: float | None


def progress_of(run: Run) -> Progress:
    """From the steps that the configuration asks for and the pace of the last train rows."""
    steps, last = steps_asked(run), run.last_step
    share, done = share_done(last, steps), steps_done(last, steps)
    if steps is None or last is None:
        return Progress(done, steps, share, None)
    recent = run.train.tail(_RECENT_ROWS)
    time, step = recent["time_s"].to_numpy(float), recent["step"].to_numpy(float)
    eta = None
    if len(recent) > 1 and step[-1] > step[0] and np.isfinite(time[-1] - time[0]):
        eta = max(0.0, (steps - done) * float(time[-1] - time[0]) / float(step[-1] - step[0]))
    return Progress(done, steps, share, eta)


def steps_asked(run: Run) -> int | None:
    """The steps of the configuration."""
    steps = run.config.get("steps")
    return int(steps) if isinstance(steps, (int, float)) and steps > 0 else None


def steps_done(last: int | None, steps: int | None) -> int:
    """Steps of a run whose last event is of step `last`: train steps count from 0, the final evaluation is `steps`."""
    if last is None:
        return 0
    return last if steps is not None and last >= steps else last + 1


def share_done(last: int | None, steps: int | None) -> float | None:
    """In [0, 1]; None where nobody said how many steps there are to be."""
    return None if steps is None else min(steps_done(last, steps) / steps, 1.0)
