"""How curves are looked at: the x-axis, smoothing, zoom, theme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .downsample import Range
from .palette import Theme

XAxis = Literal["step", "tokens", "time"]


@dataclass(frozen=True, kw_only=True)
class XScale:
    """An x-axis: the frame's column, what its values are divided by, and the title."""

    column: str
    divisor: float
    title: str

    @classmethod
    def of(cls, kind: XAxis, *frames: pd.DataFrame) -> XScale:
        """The scale for `kind`; time is in the unit that suits the longest frame."""
        if kind == "step":
            return cls(column="step", divisor=1, title="step")
        if kind == "tokens":
            return cls(column="tokens", divisor=1, title="tokens")
        longest = max(
            (np.nan_to_num(f["time_s"].to_numpy(np.float64)).max(initial=0) for f in frames if "time_s" in f),
            default=0,
        )
        for seconds, unit in ((3600, "hours"), (60, "minutes")):
            if longest >= 2 * seconds:
                return cls(column="time_s", divisor=seconds, title=f"time ({unit})")
        return cls(column="time_s", divisor=1, title="time (seconds)")

    def values(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """x of each row (n,); empty where the frame does not have the column."""
        if self.column not in frame:
            return np.empty(0)
        values = frame[self.column].to_numpy(np.float64)
        return values if self.divisor == 1 else values / self.divisor

    def extent(self, *frames: pd.DataFrame) -> Range | None:
        """The least and greatest finite x of all frames; None if they span nothing."""
        x = np.concatenate([self.values(frame) for frame in frames])
        x = x[np.isfinite(x)]
        return (float(x.min()), float(x.max())) if len(x) and x.max() > x.min() else None


@dataclass(frozen=True, kw_only=True)
class View:
    """How curves are looked at; the same for all charts that are seen together.

    `x_range` is zoomed to and gets finer points, `x_extent` is what "all" means (None: what a chart's series span),
    `right` the least right margin in pixels, which aligns charts in a column.
    """

    x_axis: XAxis = "step"
    scale: XScale | None = None
    smoothing: float = 0.0
    log_y: bool = False
    all_values: bool = False
    x_range: Range | None = None
    x_extent: Range | None = None
    columns: int = 600
    right: float = 16
    theme: Theme = "light"

    def scale_for(self, *frames: pd.DataFrame) -> XScale:
        """The view's scale, else the one that suits the frames."""
        return self.scale or XScale.of(self.x_axis, *frames)
