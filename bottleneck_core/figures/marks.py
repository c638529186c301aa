"""Events of a run as marks on the x-axis of its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from . import numbers
from .palette import Theme, ink
from .view import XScale

_MOST_GAPS = 50


@dataclass(frozen=True, kw_only=True)
class Mark:
    """An event on the x-axis, such as a resume; `text` is shown on hovering."""

    x: float
    text: str
    symbol: str = "triangle-up"
    alarming: bool = False


def event_marks(frames: Mapping[str, pd.DataFrame], scale: XScale) -> list[Mark]:
    """Resumes, non-finite losses and an early end, from the frames of `train`, `resume` and `done` events.

    Events know their step only; places on another axis are read off the train frame.
    """
    train = frames.get("train", pd.DataFrame({"step": []}))
    steps, x = train["step"].to_numpy(np.float64), scale.values(train)
    known = np.isfinite(x) if len(x) == len(steps) else np.zeros(len(steps), bool)

    def place(step: float) -> float | None:
        if scale.column == "step":
            return float(step)
        return float(np.interp(step, steps[known], x[known])) if known.any() else None

    found: list[tuple[float, str, str, bool]] = []
    for step in _steps(frames.get("resume")):
        found.append((step, f"resumed at step {numbers.steps(step)}", "triangle-right", False))
    for step in _gap_starts(train)[:_MOST_GAPS]:
        found.append((step, f"non-finite loss at step {numbers.steps(step)}", "x", True))
    done = frames.get("done")
    for step in _steps(done)[-1:]:
        reason = str(done["reason"].iloc[-1]) if done is not None and "reason" in done else "done"
        if reason != "completed":
            found.append((step, f"stopped at step {numbers.steps(step)}: {reason}", "square", True))
    return [
        Mark(x=at, text=text, symbol=symbol, alarming=alarming)
        for step, text, symbol, alarming in found
        if (at := place(step)) is not None
    ]


def mark_traces(marks: Sequence[Mark], theme: Theme) -> list[dict[str, Any]]:
    """One trace at the bottom of the plot, on an axis of its own."""
    if not marks:
        return []
    return [
        {
            "type": "scatter",
            "x": [mark.x for mark in marks],
            "y": [0.0] * len(marks),
            "yaxis": "y2",
            "mode": "markers",
            "name": "event",
            "cliponaxis": False,
            "marker": {
                "symbol": [mark.symbol for mark in marks],
                "size": 9,
                "color": [ink("warning" if mark.alarming else "muted", theme) for mark in marks],
            },
            "customdata": [mark.text for mark in marks],
            "hovertemplate": "%{customdata}<extra></extra>",
        }
    ]


def _steps(frame: pd.DataFrame | None) -> list[float]:
    return [] if frame is None or "step" not in frame else frame["step"].to_numpy(np.float64).tolist()


def _gap_starts(train: pd.DataFrame) -> list[float]:
    """The first step of each stretch without a finite loss."""
    if "loss" not in train or len(train) == 0:
        return []
    missing = ~np.isfinite(train["loss"].to_numpy(np.float64))
    starts = missing & ~np.append(False, missing[:-1])
    return train["step"].to_numpy(np.float64)[starts].tolist()
