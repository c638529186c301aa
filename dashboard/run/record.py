"""The tabs of what a run wrote besides numbers: summary, settings, log."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from bottleneck_core.jobs import job_log

if TYPE_CHECKING:
    from bottleneck_core import Run

_LOG_LINES = 400
_LOG_EVENTS = 200
# Keys that say when and not what.
_NOT_SHOWN = ("step", "wall_time", "time_s", "type")


def summary(run: Run) -> None:
    """summary.md as it is."""
    if run.summary_text.strip():
        # Its headings are a document's; on a tab they are sections. Pictures would be fetched from wherever it says.
        st.markdown(re.sub(r"(?m)^(?=##? )", "##", run.summary_text).replace("![", r"\!["))
    else:
        st.info("summary.md is written when the run ends." if run.status == "running" else "The run has no summary.md.")


def settings(run: Run) -> None:
    """The command line, then configuration and environment as tables that one search box narrows."""
    if run.argv:
        st.code(shlex.join(run.argv), language="bash", wrap_lines=True)
    text = st.text_input("Search settings", key="find", bind="query-params", placeholder="name or value")
    left, right = st.columns(2, gap="medium")
    environment = run.manifest or run.events.last("meta").get("env") or {}
    for column, title, table in ((left, "Configuration", run.config), (right, "Environment", environment)):
        with column:
            st.markdown(f"**{title}**")
            frame = setting_frame(table, text)
            if len(frame):
                st.dataframe(frame, hide_index=True, height="content" if len(frame) <= 20 else 720)
            else:
                st.caption("nothing matches" if text else "not recorded")


def setting_frame(settings: Mapping[str, Any], text: str = "") -> pd.DataFrame:
    """`settings`, nested ones with dotted names, one line each, that contain every word of `text`."""
    words = text.lower().split()
    lines = [(name, _written(value)) for name, value in _flat(settings)]
    lines = [line for line in lines if all(word in " ".join(line).lower() for word in words)]
    return pd.DataFrame(lines, columns=["setting", "value"])


def log(run: Run) -> None:
    """The end of what the job printed, and the last events."""
    printed = job_log(run.path, _LOG_LINES)
    if printed:
        st.markdown("**console.log**")
        st.code(printed, language=None, height=320)
    st.markdown("**Last events**")
    frame = last_events(run)
    if len(frame):
        st.dataframe(
            frame,
            hide_index=True,
            height=520,
            column_config={
                "step": st.column_config.NumberColumn(width=80, format="localized"),
                "type": st.column_config.TextColumn(width=90),
                "time": st.column_config.TextColumn(width=170),
                "values": st.column_config.TextColumn(width="large"),
            },
        )
    else:
        st.caption("no events yet")


def last_events(run: Run, most: int = _LOG_EVENTS) -> pd.DataFrame:
    """The last events of all types, newest first: step, type, time, values."""
    lines: list[tuple[str, float, int, str, str]] = []
    # Events of one second and step come in the order in which their types first came.
    for order, kind in enumerate(run.events.types):
        for event in run.events.frame(kind).tail(most).to_dict("records"):
            values = " · ".join(
                f"{name} {_written(value)}"
                for name, value in event.items()
                if name not in _NOT_SHOWN and not _missing(value) and not isinstance(value, (dict, list))
            )
            lines.append((str(event.get("wall_time", "")), float(event.get("step", 0)), order, kind, values))
    lines.sort(key=lambda line: line[:3], reverse=True)
    rows = [(step, kind, time[:19].replace("T", " "), values) for time, step, _, kind, values in lines[:most]]
    return pd.DataFrame(rows, columns=["step", "type", "time", "values"])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return " ".join(str(item) for item in value)
    return "–" if value is None else str(value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
