"""One run as a row of the table of runs: plain values that survive a trip through JSON."""

from __future__ import annotations

import math
from statistics import median
from typing import Any

import numpy as np

from bottleneck_core.store.notes import Notes
from bottleneck_core.store.run import Run

Row = dict[str, Any]
_RECENT = 20
_CURVE_CELLS = 30
_NOT_SETTINGS = ("given",)

VALUES = (
    "attn_mode",
    "size",
    "exp",
    "steps",
    "last_step",
    "best_val_loss",
    "best_val_step",
    "best_ppl",
    "last_loss",
    "tokens",
    "tok_s",
    "n_params",
    "model",
    "kv_bytes_128k",
    "created",
)


def run_row(run: Run) -> Row:
    """One run as plain values: losses in nats, `tokens` seen in training, `tok_s` as of late, `model` its shape.

    `steps` are those asked for, `config` all settings, `curve` the validation losses thinned to what a table cell
    shows. `errors` leaves out what only opening analysis.h5 would show.
    """
    train, best, config = run.curve("train"), run.best_val_loss, run.config
    tokens, steps = _last(train.values("tokens")), config.get("steps")
    return {
        "id": run.id,
        "path": str(run.path),
        "status": run.status,
        "attn_mode": run.attn_mode,
        "size": run.size,
        "exp": run.exp,
        "steps": int(steps) if isinstance(steps, (int, float)) and 0 < steps < 2**53 else None,
        "last_step": run.last_step,
        "best_val_loss": best,
        "best_val_step": run.best_val_step,
        "best_ppl": math.exp(best) if best is not None and best < 700 else None,
        "last_loss": _last(train.values("loss")),
        "tokens": None if tokens is None else int(tokens),
        "tok_s": _median(train.values("tok_s")[-_RECENT:]),
        "n_params": run.n_params,
        "model": dict(run.model),
        "kv_bytes_128k": run.kv_bytes_128k,
        "created": run.created,
        "config": {name: value for name, value in config.items() if name not in _NOT_SETTINGS},
        "curve": thinned(run.curve("eval").values("val_loss")),
        "errors": run.quick_errors,
    }


def unreadable_row(run: Run, error: Exception) -> Row:
    """The row of a run that could not be read."""
    row = dict.fromkeys(VALUES) | {"id": run.id, "path": str(run.path), "status": "lost", "config": {}, "curve": []}
    row["errors"] = [f"cannot be read: {type(error).__name__}: {error}"]
    return row


def with_notes(row: Row, notes: Notes) -> Row:
    """The row with `tags` and `note`."""
    return row | {"tags": list(notes.tags), "note": notes.note}


def thinned(values: np.ndarray) -> list[float]:
    """The finite ones of `values` (n,): all of a short curve; of a long one the first, the last and the least and
    greatest of each of some 30 stretches."""
    y = values[np.isfinite(values)]
    if len(y) > 2 * _CURVE_CELLS:
        edges = np.linspace(0, len(y), _CURVE_CELLS + 1).astype(int)[:-1]
        cells = [slice(a, b) for a, b in zip(edges, [*edges[1:], len(y)], strict=True)]
        extremes = {i for cell in cells for i in (cell.start + y[cell].argmin(), cell.start + y[cell].argmax())}
        y = y[sorted({0, len(y) - 1, *map(int, extremes)})]
    return y.round(5).tolist()


def _last(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)].tolist()
    return median(known) if known else None
