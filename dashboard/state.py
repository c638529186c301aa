"""What all sessions of the dashboard share, and what one session knows of its reader.

Runs are read once and shared: `st.cache_data` would copy their frames on every use. A lock keeps two sessions
from reading new events into the same run at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

import bottleneck_core as bc
from dashboard.kept import Kept
from dashboard.run.index import Row, RunIndex, run_index

if TYPE_CHECKING:
    from bottleneck_core import Run

# Seconds between two looks at a run that is being trained.
LIVE_SECONDS = 2.0
# And between two looks at folders where nothing is.
IDLE_SECONDS = 10.0
_RUNS_KEPT = 64
# Of each of them what was drawn last: the charts of a tab in some views.
_DRAWN_KEPT = 40


def run_roots() -> list[Path]:
    """The folders to look for runs in: those of BOTTLENECK_RUNS, separated like PATH, else `runs`."""
    named = [Path(part) for part in os.environ.get("BOTTLENECK_RUNS", "").split(os.pathsep) if part]
    return named or [Path("runs")]


def all_runs() -> RunIndex:
    """The index of all runs below the roots that exist, without those that links lead out of the roots for."""
    return run_index(tuple(run_roots()))


def run_rows(*named: str | None) -> list[Row]:
    """Its rows, those of the ids `named` in an address among them. They are shared: copy what you change."""
    return all_runs().rows([run_id for run_id in named if run_id])


def address_of(row: Row, rows: list[Row]) -> dict[str, str]:
    """Query parameters of the run's page: `id`, and `root` where several folders have a run of that id."""
    if sum(other["id"] == row["id"] for other in rows) == 1:
        return {"id": row["id"]}
    return {"id": row["id"], "root": root_of(row)}


def find_row(rows: list[Row], run_id: str, root: str | None) -> Row | None:
    """The row that an address means; the first where `root` is not given, None where there is none."""
    return next((r for r in rows if r["id"] == run_id and root in (None, root_of(r))), None)


def root_of(row: Row) -> str:
    """The folder that the row's id is relative to."""
    path = Path(row["path"])
    return str(path.parents[len(Path(row["id"]).parts) - 1])


class _SharedRun:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.lock = threading.RLock()
        self.drawn = Kept(_DRAWN_KEPT)


@st.cache_resource(max_entries=_RUNS_KEPT, show_spinner=False)
def _shared_run(path: str) -> _SharedRun:
    return _SharedRun(bc.load_run(path))


@contextmanager
def reading(path: str) -> Iterator[Run]:
    """The run at `path`, up to date and untouched by other sessions inside the block."""
    shared = _shared_run(path)
    with shared.lock:
        if shared.run.refresh():
            shared.drawn.clear()
        yield shared.run


def drawn_of(path: str) -> Kept:
    """What was drawn of the run at `path` as it is now; for use inside of `reading`, which forgets it with changes."""
    return _shared_run(path).drawn
