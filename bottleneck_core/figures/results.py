"""The table of results: a line a run or a group of repetitions, each against the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from . import numbers
from .seeds import estimate, welch

REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True)
class Side:
    """A run or a group of repetitions: the best validation loss of each, and other numbers as means over them."""

    name: str
    losses: Sequence[float]
    values: Mapping[str, float | None]
    runs: int = 1


def signed(value: float | None) -> str:
    """Nats with a sign, 4 decimals."""
    if value is None or not math.isfinite(value):
        return numbers.MISSING
    return f"{value:+.4f}".replace("-", "−")


FORMATS: dict[str, Callable[[float | None], str]] = {
    "runs": numbers.count,
    "best loss": numbers.loss,
    "± 95 %": numbers.loss,
    "Δ loss": signed,
    "ppl": numbers.perplexity,
    "KV per token": numbers.size,
    "KV @128k": numbers.size,
    "params": numbers.count,
    "tokens": numbers.count,
    "tok/s": numbers.rate,
    "time": numbers.duration,
}
_VALUES = {
    "KV per token": "kv_bytes_per_token",
    "KV @128k": "kv_bytes_128k",
    "params": "n_params",
    "tokens": "tokens",
    "tok/s": "tok_s",
    "time": "time_s",
}


def results_frame(sides: Sequence[Side]) -> pd.DataFrame:
    """One line a side, numbers as numbers; columns in which no side has a value are left out.

    Best loss is a mean over the side's runs with its 95 % interval, Δ loss what is above the first side, and
    `difference` what Welch's test says of it; with a single run on a side it says nothing.
    """
    estimates = [estimate(side.losses) if side.losses else None for side in sides]
    columns: dict[str, list[object]] = {
        "run": [side.name for side in sides],
        "runs": [side.runs for side in sides],
        "best loss": [e.mean if e else None for e in estimates],
        "± 95 %": [e.half_width if e else None for e in estimates],
        "Δ loss": [],
        "Δ 95 %": [],
        "difference": [],
        "ppl": [math.exp(e.mean) if e and e.mean < 700 else None for e in estimates],
    }
    for i, side in enumerate(sides):
        if i == 0 or not side.losses or not sides[0].losses:
            columns["Δ loss"].append(None)
            columns["Δ 95 %"].append(None)
            columns["difference"].append(REFERENCE if i == 0 else "no validation loss: no statement")
            continue
        found = welch(sides[0].losses, side.losses)
        known = found.low is not None and found.high is not None
        columns["Δ loss"].append(found.delta)
        columns["Δ 95 %"].append(f"{signed(found.low)} to {signed(found.high)}" if known else None)
        columns["difference"].append(found.statement)
    columns |= {name: [side.values.get(key) for side in sides] for name, key in _VALUES.items()}
    if all(side.runs == 1 for side in sides):
        del columns["runs"]
    frame = pd.DataFrame(columns)
    for name in FORMATS.keys() & columns.keys():
        frame[name] = frame[name].astype("float64")
    return frame.dropna(axis="columns", how="all")


def written_rows(frame: pd.DataFrame) -> list[list[str]]:
    """The cells as people read them."""
    return [
        [_written(str(name), value) for name, value in zip(frame, row, strict=True)]
        for row in frame.itertuples(index=False, name=None)
    ]


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of what is known; None where nothing is."""
    known = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.mean(known)) if known else None


def _written(column: str, value: object) -> str:
    if column in FORMATS:
        return FORMATS[column](value)  # pyright: ignore[reportArgumentType]
    return numbers.MISSING if value is None or value != value else str(value)
