"""What a report reads of one run: its settings, curves, end results and what of them is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bottleneck_core.errors import UserError
from bottleneck_core.figures import numbers
from bottleneck_core.figures.quantities import Quantity
from bottleneck_core.figures.scatter import CACHE, LOSS
from bottleneck_core.sizing import kv_memory, parameters_of
from bottleneck_core.store.index import run_row
from bottleneck_core.store.layout import is_run
from bottleneck_core.store.run import Run, load_run, load_runs

KV_BYTES = "kv_bytes"
QUALITY = Quantity(key=LOSS, label="best validation loss", unit="nats per token", format=numbers.loss)


def cache_quantity(context: int) -> Quantity:
    """KV bytes per token of context, as an axis."""
    label = f"KV cache per token at {context_words(context)} tokens"
    return Quantity(key=CACHE, label=label, unit="bytes", format=numbers.size, log=True, binary=True)


def context_words(context: int) -> str:
    """128k for 128,000, 128Ki for 131,072, else all digits."""
    for size, unit in ((1_000_000, "M"), (1 << 20, "Mi"), (1000, "k"), (1 << 10, "Ki")):
        if context >= size and context % size == 0:
            return f"{context // size:,}{unit}"
    return f"{context:,}"


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A run: `frames` by kind of event, `values` by the keys of a results table, `missing` in sentences."""

    id: str
    run: Run
    status: str
    config: Mapping[str, Any]
    frames: Mapping[str, pd.DataFrame]
    values: Mapping[str, float | None]
    missing: tuple[str, ...]

    def last(self, kind: str, column: str) -> float | None:
        """The last finite value of a curve."""
        known = known_values(self.frames[kind], column)
        return float(known[-1]) if len(known) else None


def reported_runs(folders: Sequence[Path], context: int) -> list[Reported]:
    """The runs in the order given, each once; a folder that is no run stands for the runs below it.

    Raises UserError for a folder without runs.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        if is_run(folder) or not folder.is_dir():
            runs = [load_run(folder)]
        else:
            runs = load_runs(folder)
            if not runs:
                raise UserError(f"{folder} holds no run: give run folders, or a folder of runs")
        for run in runs:
            found.setdefault(run.path.resolve(), run)
    names = _names(list(found.values()))
    return [_reported(run, name, context) for run, name in zip(found.values(), names, strict=True)]


def known_values(frame: pd.DataFrame, column: str) -> np.ndarray:
    """The finite values of a column; none where it is absent or holds something else than numbers."""
    if column not in frame:
        return np.empty(0)
    values = frame[column].to_numpy()
    return values[np.isfinite(values)] if values.dtype.kind in "fiu" else np.empty(0)


def _reported(run: Run, name: str, context: int) -> Reported:
    row = run_row(run)
    frames = {"train": run.train, "eval": run.eval, "analysis": run.analysis}
    missing = [_sentence(error) for error in run.errors]
    cache = None
    try:
        cache = kv_memory(run, context).bytes
    except UserError as error:
        missing.append(f"The KV cache cannot be sized: {error}.")
    if row["best_val_loss"] is None:
        missing.append("It has no validation loss.")
    if not len(known_values(frames["train"], "loss")):
        missing.append("It has no training curve.")
    values = {
        LOSS: row["best_val_loss"],
        CACHE: cache / context if cache else None,
        KV_BYTES: cache,
        "n_params": row["n_params"] or (parameters_of(run) if run.model else None),
        "tokens": row["tokens"],
        "tok_s": row["tok_s"],
        "time_s": _last(frames["train"], "time_s"),
    }
    return Reported(
        id=name,
        run=run,
        status=row["status"],
        config=run.config,
        frames=frames,
        values=values,
        missing=tuple(missing),
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """Ids; one that two of the runs share has its parent folder before it, and a number where that is not enough."""
    ids = [run.id for run in runs]
    wanted = [f"{run.path.resolve().parent.name}/{run.id}" if ids.count(run.id) > 1 else run.id for run in runs]
    seen: dict[str, int] = {}
    names = []
    for name in wanted:
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return names


def _last(frame: pd.DataFrame, column: str) -> float | None:
    known = known_values(frame, column)
    return float(known[-1]) if len(known) else None


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
