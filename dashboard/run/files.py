"""The Files tab: what lies in a run's folder, and the way to take a file along."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pandas as pd
import streamlit as st

from bottleneck_core.figures import numbers
from dashboard.markdown import escaped

if TYPE_CHECKING:
    from bottleneck_core import Run

# Larger ones would fill the memory of server and browser.
_MOST_BYTES = 512 << 20


def files(run: Run) -> None:
    """What lies in the run's folder; a ticked file can be downloaded."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(escaped(str(run.path)), width="stretch")
        button = st.container(width="content")
    frame = file_frame(run.path)
    picked = st.dataframe(
        frame.drop(columns="bytes"),
        hide_index=True,
        height="content" if len(frame) <= 20 else 720,
        column_config={"changed": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm:ss")},
        on_select="rerun",
        selection_mode="single-row",
        key="files_table",
    )
    rows = picked["selection"]["rows"]  # pyright: ignore[reportIndexIssue]
    with button:
        if rows and rows[0] < len(frame):
            download(run.path, str(frame["file"].iloc[rows[0]]))
        else:
            st.caption("Tick a file to download it.")


def download(folder: Path, name: str) -> None:
    """A button for one file of the folder, or why there is none."""
    path = file_inside(folder, name)
    if path is None:
        st.caption("This file lies elsewhere and is not offered.")
    elif path.stat().st_size > _MOST_BYTES:
        st.caption(f"{numbers.size(path.stat().st_size)} are too much for the browser: copy it from the folder.")
    else:
        st.download_button(
            f"Download {escaped(path.name)}",
            lambda: opened(path),
            file_name=path.name,
            mime=mimetypes.guess_type(path.name)[0] or "application/octet-stream",
            icon=":material/download:",
            on_click="ignore",
        )


def opened(path: Path) -> BinaryIO:
    return open(path, "rb")


def file_inside(folder: Path, name: str) -> Path | None:
    """The file of that name below `folder`; None where it is no file, or a link that leads out of it."""
    path, root = Path(os.path.realpath(folder / name)), Path(os.path.realpath(folder))
    return path if path.is_relative_to(root) and path.is_file() else None


def file_frame(folder: Path) -> pd.DataFrame:
    """Files at and below `folder`: name, size in words, time of the last change, bytes."""
    rows = []
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            try:
                status = path.stat()
            except OSError:  # gone since it was listed: checkpoints come and go
                continue
            changed = pd.Timestamp(status.st_mtime, unit="s", tz="UTC")
            rows.append((path.relative_to(folder).as_posix(), numbers.size(status.st_size), changed, status.st_size))
    return pd.DataFrame(sorted(rows), columns=["file", "size", "changed", "bytes"])
