"""The table of runs: one row a run, quick enough for ten thousand folders that are looked at again and again.

A row depends on the run's files and on whether a trainer holds its lock. Unchanged files (size and
modification time) are not read again. A run in training keeps its reader, so that only new events are read.
Rows of big event files, and those of many runs, are also kept on disk between processes; a few small ones are
read faster than such a cache is checked.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bottleneck_core.store.atomic import atomic_write_bytes
from bottleneck_core.store.notes import Notes, read_notes
from bottleneck_core.store.row import Row, run_row, unreadable_row, with_notes
from bottleneck_core.store.run import Run
from bottleneck_core.store.scan import FoundRun, Signature, scan_runs
from bottleneck_core.store.status import read_json

_ROW_VERSION = 3  # part of what is kept on disk: raise it when rows change
_BIG_BYTES = 32 << 10  # some 10 ms to read
_MANY = 200
_REST = 20  # of the time that writing the file took, before it is written again

Roots = Iterable[str | os.PathLike[str]] | str | os.PathLike[str]


@dataclass(slots=True)
class _Entry:
    signature: Signature
    row: Row
    run: Run | None = None  # kept while the run is trained
    notes: Signature | None = None
    noted: Row | None = None  # the row with id, path and notes, the same object as long as nothing changes


_entries: dict[str, _Entry] = {}  # by real path
_guard = threading.Lock()


def index(roots: Roots) -> list[Row]:
    """Rows of all runs below the roots, sorted by id, each folder once; broken ones have `errors`.

    Rows are shared: copy what you change. Raises UserError for a root that does not exist.
    """
    return look(roots)[0]


def look(roots: Roots, seconds: float | None = None, first: Collection[str] = ()) -> tuple[list[Row], int]:
    """As `index`, but reading what is new takes not much more than `seconds`; and how many runs are left for the next
    look. Those have no row yet. Runs whose id is in `first` are read in any case."""
    if isinstance(roots, (str, os.PathLike)):
        roots = [roots]
    found = {run.real: run for root in reversed(list(roots)) for run in reversed(scan_runs(root))}
    deadline = None if seconds is None else time.monotonic() + seconds
    rows, unread = [], 0
    with _guard:  # pages of several visitors share the readers
        if not _entries:
            _entries.update(_kept.read())
        for run in sorted(found.values(), key=lambda run: run.id not in first) if first else found.values():
            entry = _entries.get(run.real)
            if entry is None or entry.signature != run.signature or _status_is_old(entry, run):
                late = deadline is not None and time.monotonic() > deadline and run.id not in first
                if late and entry is None:
                    unread += 1
                    continue
                entry = _entries[run.real] = _updated(entry, run)
                _kept.dirty |= _belongs_on_disk(entry)
            rows.append(_noted(entry, run))
        _kept.write()
    return sorted(rows, key=lambda row: (row["id"], row["path"])), unread


def _status_is_old(entry: _Entry, run: FoundRun) -> bool:
    """Whether a trainer came or went without a trace in the files: killed, or nothing written yet."""
    return run.is_busy != (entry.row["status"] == "running")


def _updated(entry: _Entry | None, found: FoundRun) -> _Entry:
    if entry is not None and entry.run is not None:
        run = entry.run
        run.refresh()
    else:
        run = Run(found.path, found.id)
    try:
        row = run_row(run)
    except Exception as error:  # one folder must not hide the others; what reading can meet has no bound
        row = unreadable_row(run, error)
    return _Entry(found.signature, row, run if row["status"] == "running" else None)


def _noted(entry: _Entry, found: FoundRun) -> Row:
    row = entry.noted
    if row is None or entry.notes != found.notes or row["path"] != found.path or row["id"] != found.id:
        notes = read_notes(found.path) if found.notes[0] >= 0 else Notes()
        entry.notes = found.notes
        entry.noted = row = with_notes(entry.row, notes) | {"id": found.id, "path": found.path}
    return row


def _belongs_on_disk(entry: _Entry) -> bool:
    return entry.run is None and (len(_entries) > _MANY or entry.signature[0] > _BIG_BYTES)


class _KeptRows:
    """The rows on disk. Many of them take a while to write, so they are not written with each change."""

    def __init__(self) -> None:
        self.dirty = False
        self._next = 0.0

    @property
    def path(self) -> Path:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        return Path(base) / "bottleneck_core" / "index.json"

    def read(self) -> dict[str, _Entry]:
        kept = read_json(self.path)
        if kept.get("version") != _ROW_VERSION:
            return {}
        return {key: _Entry(signature, row) for key, (signature, row) in kept["rows"].items()}

    def write(self) -> None:
        if not self.dirty or time.monotonic() < self._next:
            return
        start = time.monotonic()
        rows: dict[str, Any] = {
            key: [entry.signature, entry.row]
            for key, entry in _entries.items()
            if _belongs_on_disk(entry) and os.path.isdir(key)
        }
        # Without a cache the next process reads the files again; TypeError: a foreign setting that has no JSON form.
        with contextlib.suppress(OSError, TypeError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_bytes(self.path, orjson.dumps({"version": _ROW_VERSION, "rows": rows}))
        self.dirty = False
        self._next = time.monotonic() + _REST * (time.monotonic() - start)


_kept = _KeptRows()
