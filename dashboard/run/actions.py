"""What can be done with one run: resume, clone, tag, take along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from dashboard.access import may_change, why_not
from dashboard.markdown import escaped
from dashboard.run.export import events_csv, run_zip
from dashboard.runs.actions import tag_popover
from dashboard.state import Row, reading, root_of

if TYPE_CHECKING:
    from bottleneck_core import Run

TRAIN_PAGE = "dashboard/pages/train.py"


def actions(run: Run, row: Row, rows: list[Row]) -> None:
    """The buttons of a run's page."""
    reason = why_not_resume(run)
    st.page_link(
        TRAIN_PAGE,
        label="Resume",
        icon=":material/resume:",
        query_params=train_address("resume", row, rows),
        disabled=reason is not None,
        help=reason or "Goes on from the last checkpoint.",
        width="content",
    )
    st.page_link(
        TRAIN_PAGE,
        label="Clone",
        icon=":material/content_copy:",
        query_params=train_address("clone", row, rows),
        disabled=not may_change(),
        help="A new run with these settings, to be changed before it starts." if may_change() else why_not(),
        width="content",
    )
    tag_popover([row], rows, "Tags and note")
    with st.popover("Export", icon=":material/download:", width="content"):
        path = row["path"]
        name = Path(path).name
        st.download_button(
            "Folder without checkpoints (zip)",
            lambda: run_zip(Path(path)),
            file_name=f"{name}.zip",
            mime="application/zip",
            key="export_zip",
            on_click="ignore",
        )
        st.download_button(
            "Events (CSV)",
            lambda: _csv(path),
            file_name=f"{name}.csv",
            mime="text/csv",
            key="export_csv",
            on_click="ignore",
        )


def why_not_resume(run: Run) -> str | None:
    """Why training cannot go on from here, in a sentence."""
    if not may_change():
        return why_not()
    if run.status in ("running", "queued"):
        return f"The run is {run.status}."
    if not any((run.path / name).exists() for name in ("last.pt", "last.dcp")):
        return "There is no checkpoint to go on from: clone the run instead."
    return None


def train_address(what: str, row: Row, rows: list[Row]) -> dict[str, str]:
    """Query parameters of the training page: `resume` or `clone`, and `root` where several folders have that id."""
    address = {what: row["id"]}
    if sum(other["id"] == row["id"] for other in rows) > 1:
        address["root"] = root_of(row)
    return address


def said(row: Row) -> None:
    """Tags and note, where there are any."""
    if row["tags"]:
        st.markdown(" ".join(f":gray-badge[{escaped(tag)}]" for tag in row["tags"]))
    if row["note"]:
        st.text(row["note"])


def _csv(path: str) -> str:
    with reading(path) as run:
        return events_csv(run)
