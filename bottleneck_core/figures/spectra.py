"""Singular values of attention maps: how many independent ways of mixing a head has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from .layout import axis, axis_title, base_layout, note
from .palette import Theme, translucent

# What half precision leaves of a singular value is noise below this share of the largest.
_FLOOR = 1e-6


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Singular values (n, T), descending, of one head of one run at `steps` (n): the last strong, others faint."""

    name: str
    color: str
    steps: Sequence[int]
    values: NDArray


def spectra_figure(spectra: Sequence[Spectrum], *, title: str, theme: Theme = "light", height: int = 300) -> go.Figure:
    """Singular values over their index on a log axis; values that are zero to half precision are left out."""
    traces: list[dict[str, Any]] = []
    for spectrum in spectra:
        for i, (step, values) in enumerate(zip(spectrum.steps, spectrum.values, strict=True)):
            shown = i == len(spectrum.steps) - 1
            largest = np.nanmax(values, initial=0.0)
            kept = np.where(values > _FLOOR * largest, values, np.nan) if largest > 0 else np.full(len(values), np.nan)
            if not np.isfinite(kept).any():
                continue
            name = f"step {step:,}" if len(spectra) == 1 else f"{spectrum.name}, step {step:,}"
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": name,
                    "x": np.arange(1, len(kept) + 1, dtype=np.int32),
                    "y": kept.astype(np.float32),
                    "line": {
                        "color": spectrum.color if shown else translucent(spectrum.color, 0.22),
                        "width": 2.2 if shown else 1,
                    },
                    "hovertemplate": "singular value %{x}: %{y:.4g}<extra>" + name + "</extra>",
                }
            )
    # What is shown lies over what is faint.
    traces.sort(key=lambda trace: trace["line"]["width"])
    layout = base_layout(theme, title=title, height=height)
    layout["hovermode"] = "closest"
    layout["xaxis"] = axis(theme, title=axis_title(theme, "index, largest first"))
    layout["yaxis"] = axis(
        theme, title=axis_title(theme, "singular value"), type="log", exponentformat="power", nticks=6, dtick=1
    )
    if not traces:
        layout["annotations"] = [note(theme, "no values yet")]
    return go.Figure(traces, layout)
