"""Rows that are ticked in the table of runs. The browser ticks places; runs keep their ticks when places change."""

from __future__ import annotations

import json
from collections.abc import Sequence

import streamlit as st

from bottleneck_core.figures.tables import csv_text
from dashboard.state import Row

TABLE = "runs_table"
_TICKED = "ticked_runs"
_SHOWN = "shown_runs"
_COLUMNS = (
    "id",
    "status",
    "attn_mode",
    "size",
    "exp",
    "best_val_loss",
    "best_val_step",
    "best_ppl",
    "last_loss",
    "last_step",
    "tokens",
    "tok_s",
    "kv_bytes_128k",
    "n_params",
    "created",
    "path",
    "tags",
    "note",
)


def ticked_places(before: Sequence[str], ticked: Sequence[str], places: Sequence[int]) -> list[str]:
    """The paths that are ticked when `places` are among the shown paths `before`; hidden ones stay as they were."""
    hidden = [path for path in ticked if path not in before]
    return hidden + [before[i] for i in places if i < len(before)]


def follow_rows(shown: Sequence[Row]) -> None:
    """Before the table is drawn: moves the ticks to where their runs are now, and brings them back on returning."""
    paths = [row["path"] for row in shown]
    known = TABLE in st.session_state
    if not known or st.session_state.get(_SHOWN) != paths:
        ticked = st.session_state.get(_TICKED, [])
        rows = [i for i, path in enumerate(paths) if path in ticked]
        if known or rows:
            st.session_state[TABLE] = {"selection": {"rows": rows, "columns": [], "cells": []}}
        st.session_state[_SHOWN] = paths


def on_tick() -> None:
    """To be called when the reader ticks or unticks a row."""
    places = st.session_state[TABLE]["selection"]["rows"]
    st.session_state[_TICKED] = ticked_places(
        st.session_state.get(_SHOWN, []), st.session_state.get(_TICKED, []), places
    )


def untick_all() -> None:
    """As if nothing had been ticked."""
    st.session_state[_TICKED] = []
    st.session_state.pop(_SHOWN, None)


def ticked_rows(rows: Sequence[Row]) -> list[Row]:
    """The ticked ones of `rows`, in the order of their ticks."""
    ticked = st.session_state.get(_TICKED, [])
    by_path = {row["path"]: row for row in rows if row["path"] in ticked} if ticked else {}
    return [by_path[path] for path in ticked if path in by_path]


def rows_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV: numbers as they are, in bytes, nats and tokens; tags are divided by semicolons."""

    def cell(value: object) -> object:
        return "" if value is None else "; ".join(value) if isinstance(value, list) else value

    return csv_text(_COLUMNS, [[cell(row.get(name)) for name in _COLUMNS] for row in rows])


def rows_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list, with the settings and what is broken in each."""
    kept = [{name: row.get(name) for name in (*_COLUMNS, "config", "errors")} for row in rows]
    # Foreign settings may hold what faster writers refuse: whole numbers of any length, halves of characters.
    return json.dumps(kept, indent=2)
