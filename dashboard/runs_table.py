"""The table of runs: which rows, which columns, in which words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from bottleneck_core.figures import numbers

from .state import Row

STATUSES = ("queued", "running", "stopped", "done", "failed", "lost")
ATTENTION_MODES = ("standard", "gqa", "bottleneck", "decoupled", "mla")

# Searched besides the id.
_SEARCHED = ("id", "status", "attn_mode", "size", "exp")

_FORMATS = {
    "best loss": numbers.loss,
    "ppl": numbers.perplexity,
    "tokens": numbers.count,
    "tok/s": numbers.rate,
    "KV @128k": numbers.size,
    "params": numbers.count,
    "errors": numbers.count,
}


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Running first, then the newest."""
    newest = sorted(rows, key=lambda row: str(row.get("created") or ""), reverse=True)
    return sorted(newest, key=lambda row: row["status"] != "running")


def matching(rows: Sequence[Row], text: str = "", statuses: Sequence[str] = (), modes: Sequence[str] = ()) -> list[Row]:
    """Rows that contain every word of `text` and have one of the statuses and modes; empty means any."""
    words = text.lower().split()

    def matches(row: Row) -> bool:
        searched = " ".join(str(row[name]) for name in _SEARCHED if row.get(name) is not None).lower()
        return (
            all(word in searched for word in words)
            and (not statuses or row["status"] in statuses)
            and (not modes or row.get("attn_mode") in modes)
        )

    return [row for row in rows if matches(row)]


def table_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """One line a run, numbers as numbers so that columns sort."""
    return pd.DataFrame(
        {
            "run": [row["id"] for row in rows],
            "status": [row["status"] for row in rows],
            "attention": [row.get("attn_mode") for row in rows],
            "size": [row.get("size") for row in rows],
            "best loss": _numbers(rows, "best_val_loss"),
            "ppl": _numbers(rows, "best_ppl"),
            "validation": [row["curve"] for row in rows],
            "progress": _numbers(rows, "share"),
            "tokens": _numbers(rows, "tokens"),
            "tok/s": _numbers(rows, "tok_s"),
            "KV @128k": _numbers(rows, "kv_bytes_128k"),
            "params": _numbers(rows, "n_params"),
            "created": pd.to_datetime([row.get("created") for row in rows], utc=True, errors="coerce"),
            "errors": _numbers([{"errors": len(row["errors"]) or None} for row in rows], "errors"),
        }
    )


def styled(frame: pd.DataFrame) -> Any:
    """The frame with the texts that readers see; sorting still goes by the numbers."""
    return frame.style.format(_FORMATS)


def columns(frame: pd.DataFrame, on_open: Any, key: str) -> dict[str, Any]:
    """Column settings of the table; a click on a run's name calls `on_open`, and `key` holds which."""
    column = st.column_config
    name_width = min(40 + 8 * max(map(len, frame["run"]), default=0), 360)
    return {
        "run": column.ButtonColumn(type="tertiary", alignment="left", width=name_width, on_click=on_open, key=key),
        "best loss": column.NumberColumn(help="Least validation loss, nats per token."),
        "ppl": column.NumberColumn(help="exp of the best validation loss."),
        "validation": column.LineChartColumn(help="Validation loss over training.", width=110),
        "progress": column.ProgressColumn(format="percent", min_value=0, max_value=1, width=100),
        "tokens": column.NumberColumn(help="Tokens seen in training."),
        "tok/s": column.NumberColumn(help="Tokens per second, median of the last rows."),
        "KV @128k": column.NumberColumn(help="KV cache of one request at 128,000 tokens, as the run recorded it."),
        "created": column.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        "errors": column.NumberColumn(help="What is broken in the run's folder; its page has the sentences."),
    }


def column_order(frame: pd.DataFrame) -> list[str]:
    """The columns in which any run has a value."""
    return [str(name) for name in frame if bool(frame[name].notna().any())]


def _numbers(rows: Sequence[Row], name: str) -> pd.Series:
    return pd.Series([row.get(name) for row in rows], dtype="float64")
