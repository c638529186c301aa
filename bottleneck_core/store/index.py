"""The table of runs: one row a run, quick enough for hundreds of folders that are looked at again and again.

A row depends on the run's files and on whether a trainer holds its lock. Unchanged files (size and
modification time) are not read again. A run in training keeps its reader, so that only new events are read.
Rows of big event files are also kept on disk between processes; small ones are read faster than such a cache
is checked.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bottleneck_core.store.atomic import atomic_write_bytes
from bottleneck_core.store.description import file_stamp
from bottleneck_core.store.layout import RunPaths
from bottleneck_core.store.lock import is_busy
from bottleneck_core.store.run import Run, load_runs
from bottleneck_core.store.status import read_json

_ROW_VERSION = 2  # part of what is kept on disk: raise it when rows change
_BIG_BYTES = 32 << 10  # some 10 ms to read
_RECENT = 20

_VALUES = (
    "attn_mode",
    "size",
    "exp",
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

Row = dict[str, Any]
Signature = list[list[int] | None]


@dataclass
class _Entry:
    signature: Signature
    row: Row
    run: Run | None = None  # kept while the run is trained


_entries: dict[str, _Entry] = {}  # by real path
_guard = threading.Lock()


def run_row(run: Run) -> Row:
    """One run as plain values: losses in nats, `tokens` seen in training, `tok_s` as of late, `model` its shape.

    `errors` leaves out what only opening analysis.h5 would show.
    """
    train, best = run.train, run.best_val_loss
    tokens = _last(train["tokens"].to_numpy())
    return {
        "id": run.id,
        "path": str(run.path),
        "status": run.status,
        "attn_mode": run.attn_mode,
        "size": run.size,
        "exp": run.exp,
        "last_step": run.last_step,
        "best_val_loss": best,
        "best_val_step": run.best_val_step,
        "best_ppl": math.exp(best) if best is not None and best < 700 else None,
        "last_loss": _last(train["loss"].to_numpy()),
        "tokens": None if tokens is None else int(tokens),
        "tok_s": _median(train["tok_s"].to_numpy()[-_RECENT:]),
        "n_params": run.n_params,
        "model": dict(run.model),
        "kv_bytes_128k": run.kv_bytes_128k,
        "created": run.created,
        "errors": run.quick_errors,
    }


def index(roots: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[Row]:
    """Rows of all runs below the roots, sorted by id, each folder once; broken ones have `errors`.

    Raises UserError for a root that does not exist.
    """
    if isinstance(roots, (str, os.PathLike)):
        roots = [roots]
    runs = {os.path.realpath(run.path): run for root in roots for run in load_runs(root)}
    rows, kept_on_disk = [], True
    with _guard:  # pages of several visitors share the readers
        if not _entries:
            _entries.update(_rows_on_disk())
        for key, run in runs.items():
            entry, signature = _entries.get(key), _signature(run.paths)
            if entry is None or entry.signature != signature or _status_is_old(entry, run):
                entry = _entries[key] = _updated(entry, run, signature)
                kept_on_disk &= not _belongs_on_disk(entry)
            rows.append(entry.row | {"id": run.id, "path": str(run.path)})
        if not kept_on_disk:
            _write_rows_to_disk()
    return sorted(rows, key=lambda row: (row["id"], row["path"]))


def _status_is_old(entry: _Entry, run: Run) -> bool:
    """Whether a trainer came or went without a trace in the files: killed, or nothing written yet."""
    return is_busy(run.path) != (entry.row["status"] == "running")


def _updated(entry: _Entry | None, run: Run, signature: Signature) -> _Entry:
    if entry is not None and entry.run is not None:
        run = entry.run
        run.refresh()
    try:
        row = run_row(run)
    except Exception as error:  # one folder must not hide the others; what reading can meet has no bound
        row = dict.fromkeys(_VALUES) | {"id": run.id, "path": str(run.path), "status": "lost"}
        row["errors"] = [f"cannot be read: {type(error).__name__}: {error}"]
    return _Entry(signature, row, run if row["status"] == "running" else None)


def _signature(paths: RunPaths) -> Signature:
    files = (paths.events, paths.config, paths.manifest, paths.summary, paths.job, paths.analysis)
    return [list(stamp) if stamp else None for stamp in map(file_stamp, files)]


def _belongs_on_disk(entry: _Entry) -> bool:
    size = entry.signature[0][0] if entry.signature[0] else 0
    return entry.run is None and size > _BIG_BYTES


def _cache_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "bottleneck_core" / "index.json"


def _rows_on_disk() -> dict[str, _Entry]:
    kept = read_json(_cache_path())
    if kept.get("version") != _ROW_VERSION:
        return {}
    return {key: _Entry(signature, row) for key, (signature, row) in kept["rows"].items()}


def _write_rows_to_disk() -> None:
    big = {key: entry for key, entry in _entries.items() if _belongs_on_disk(entry) and os.path.isdir(key)}
    kept = {
        "version": _ROW_VERSION,
        "rows": {key: [entry.signature, entry.row] for key, entry in big.items()},
    }
    path = _cache_path()
    with contextlib.suppress(OSError):  # without a cache the next process reads the files again
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_bytes(path, orjson.dumps(kept))


def _last(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
