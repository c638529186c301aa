"""What all sessions of the dashboard share, and what one session knows of its reader.

Runs are read once and shared: `st.cache_data` would copy their frames on every use. A lock keeps two sessions
from reading new events into the same run at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

import bottleneck_core as bc

from .progress import share_done, steps_asked

if TYPE_CHECKING:
    from bottleneck_core import Run

Row = dict[str, Any]

# Seconds between two looks at a run that is being trained.
LIVE_SECONDS = 2.0
# And between two looks at folders where nothing is.
IDLE_SECONDS = 10.0
_RUNS_KEPT = 64
# A table that is complete a little later is better than a late one.
_DETAILS_SECONDS = 0.5


def run_roots() -> list[Path]:
    """The folders to look for runs in: those of BOTTLENECK_RUNS, separated like PATH, else `runs`."""
    named = [Path(part) for part in os.environ.get("BOTTLENECK_RUNS", "").split(os.pathsep) if part]
    return named or [Path("runs")]


def run_rows() -> list[Row]:
    """The index of all runs below the roots that exist."""
    return bc.index([root for root in run_roots() if root.is_dir()])


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


@st.cache_resource(max_entries=_RUNS_KEPT, show_spinner=False)
def _shared_run(path: str) -> _SharedRun:
    return _SharedRun(bc.load_run(path))


@contextmanager
def reading(path: str) -> Iterator[Run]:
    """The run at `path`, up to date and untouched by other sessions inside the block."""
    shared = _shared_run(path)
    with shared.lock:
        shared.run.refresh()
        yield shared.run


def with_details(rows: list[Row], seconds: float = _DETAILS_SECONDS) -> tuple[list[Row], bool]:
    """`rows` with `share` of the steps done and `curve`, the validation losses thinned for a table cell.

    Both need the events, which takes a hundredth of a second a run: what `seconds` do not suffice for is left empty
    for the next call, and the flag is false. What was read stays known until the files change.
    """
    known, deadline, complete = _details(), time.monotonic() + seconds, True
    detailed = []
    for row in rows:
        path, stamps = row["path"], _stamps(row["path"])
        if known.get(path, (None,))[0] != stamps:
            if time.monotonic() > deadline:
                complete = False
            else:
                known[path] = (stamps, *_read_details(path, growing=row["status"] == "running"))
        _, steps, curve = known.get(path, (None, None, []))
        detailed.append(row | {"share": share_done(row["last_step"], steps), "curve": curve})
    return detailed, complete


@st.cache_resource(show_spinner=False)
def _details() -> dict[str, tuple[Any, int | None, list[float]]]:
    return {}


def _read_details(path: str, *, growing: bool) -> tuple[int | None, list[float]]:
    from bottleneck_core.figures.sparkline import sparkline

    try:
        # Finished runs are not kept: a folder of hundreds would stay in memory for one column.
        with reading(path) if growing else nullcontext(bc.load_run(path)) as run:
            evaluations = run.events.frame("eval")
            curve = sparkline(evaluations["val_loss"].to_numpy(float)) if "val_loss" in evaluations else []
            return steps_asked(run), curve
    except bc.UserError:  # gone since it was listed
        return None, []


def _stamps(path: str) -> list[int]:
    """Sizes and times of the files that `_details` depends on."""
    found = []
    for name in ("train.jsonl", "config.json", "summary.md"):
        try:
            status = (Path(path) / name).stat()
        except OSError:
            found.append(0)
        else:
            found += [status.st_size, status.st_mtime_ns]
    return found
