"""The table of runs and that of their groups: which columns, in which words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd
import streamlit as st

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.figures.differences import written
from bottleneck_core.figures.sparkline import sparkline
from dashboard.progress import share_done
from dashboard.runs.query import RunGroup
from dashboard.state import Row

STATUSES = ("queued", "running", "stopped", "done", "failed", "lost")
ATTENTION_MODES = ("standard", "gqa", "bottleneck", "decoupled", "mla")

# Columns by the values behind them. The KV column and the sparkline are made here.
VALUES = {
    "run": "id",
    "status": "status",
    "attention": "attn_mode",
    "size": "size",
    "best loss": "best_val_loss",
    "ppl": "best_ppl",
    "validation": "curve",
    "progress": "share",
    "last loss": "last_loss",
    "tokens": "tokens",
    "tok/s": "tok_s",
    "KV": "kv",
    "params": "n_params",
    "tags": "tags",
    "note": "note",
    "created": "created",
    "errors": "errors",
}
# Shown unless the reader chose others; each only where a run has a value in it.
USUAL = [name for name in VALUES if name not in ("last loss", "note")]
_FORMATS = {
    "best loss": numbers.loss,
    "last loss": numbers.loss,
    "ppl": numbers.perplexity,
    "tokens": numbers.count,
    "tok/s": numbers.rate,
    "params": numbers.count,
    "errors": numbers.count,
}


@lru_cache(maxsize=20_000)
def _spark(curve: tuple[float, ...]) -> list[float]:
    return sparkline(curve)


def table_frame(
    rows: Sequence[Row], sizes: Sequence[int | None], at: str, shown: Sequence[str] = USUAL
) -> pd.DataFrame:
    """One line a run, numbers as numbers so that columns sort. `sizes`: bytes of the caches at the context `at`.

    `shown` are names of `VALUES` and of settings; a setting has a column of its own, as text where it is no number.
    """
    cells: dict[str, Any] = {"run": [row["id"] for row in rows]}
    for name in shown:
        if name == "KV":
            cells[kv_column(at)] = pd.Series(sizes, dtype="float64")
        elif name == "validation":
            cells[name] = [_spark(tuple(row["curve"])) for row in rows]
        elif name == "progress":
            cells[name] = _numbers([share_done(row["last_step"], row["steps"]) for row in rows])
        elif name == "tags":
            cells[name] = [row["tags"] or None for row in rows]
        elif name == "note":
            cells[name] = [row["note"] or None for row in rows]
        elif name == "errors":
            cells[name] = _numbers([len(row["errors"]) or None for row in rows])
        elif name == "created":
            cells[name] = pd.to_datetime(
                [row.get("created") for row in rows], utc=True, errors="coerce", format="ISO8601"
            )
        elif name in ("status", "attention", "size"):
            cells[name] = [row.get(VALUES[name]) for row in rows]
        elif name in VALUES and name != "run":
            cells[name] = _numbers([row.get(VALUES[name]) for row in rows])
        elif name != "run":
            cells[setting_column(name)] = _setting([row["config"].get(name) for row in rows])
    return pd.DataFrame(cells)


def group_frame(groups: Sequence[RunGroup], sizes: Callable[[Row], int | None], by: str, at: str) -> pd.DataFrame:
    """One line a group: how many runs, their best losses, and the means of what they cost."""
    losses = [group.losses for group in groups]
    caches = [[size for row in group.rows if (size := sizes(row)) is not None] for group in groups]
    return pd.DataFrame(
        {
            by: [group.name for group in groups],
            "runs": [len(group.rows) for group in groups],
            "mean loss": _numbers([_mean(found) for found in losses]),
            "min loss": _numbers([min(found, default=None) for found in losses]),
            "max loss": _numbers([max(found, default=None) for found in losses]),
            "ppl": _numbers([math.exp(min(_mean(found) or 0, 700)) if found else None for found in losses]),
            "running": _numbers([sum(row["status"] == "running" for row in group.rows) or None for group in groups]),
            "tokens": _numbers([_mean(_known(group.rows, "tokens")) for group in groups]),
            "tok/s": _numbers([_mean(_known(group.rows, "tok_s")) for group in groups]),
            kv_column(at): _numbers([_mean(found) for found in caches]),
        }
    )


def styled(frame: pd.DataFrame) -> Any:
    """The frame with the texts that readers see; sorting still goes by the numbers."""
    formats = {**_FORMATS, **dict.fromkeys(("mean loss", "min loss", "max loss"), numbers.loss)}
    formats |= {name: numbers.size for name in frame if str(name).startswith("KV @")}
    return frame.style.format({name: how for name, how in formats.items() if name in frame})


def columns(frame: pd.DataFrame, on_open: Callable[[], None], key: str) -> dict[str, Any]:
    """Column settings of the table of runs; a click on a run's name calls `on_open`, and `key` holds which."""
    column = st.column_config
    at = next((str(name).removeprefix("KV @") for name in frame if str(name).startswith("KV @")), "")
    found = {
        "run": _button(frame["run"].tolist(), on_open, key),
        "best loss": column.NumberColumn(help=bc.METRICS["val_loss"].definition + " The least of the run."),
        "ppl": column.NumberColumn(help="exp of the best validation loss."),
        "validation": column.LineChartColumn(help="Validation loss over training.", width=110),
        "progress": column.ProgressColumn(format="percent", min_value=0, max_value=1, width=100),
        "last loss": column.NumberColumn(help=bc.METRICS["loss"].definition + " As of the last step."),
        "tokens": column.NumberColumn(help="Tokens seen in training."),
        "tok/s": column.NumberColumn(help="Tokens per second, median of the last rows."),
        kv_column(at): column.NumberColumn(help=kv_help(at)),
        "tags": column.ListColumn(help="Given by people: tick runs and press Tag."),
        "note": column.TextColumn(width="medium"),
        "created": column.DatetimeColumn(format="YYYY-MM-DD HH:mm"),
        "errors": column.NumberColumn(help="What is broken in the run's folder; its page has the sentences."),
    }
    return {name: how for name, how in found.items() if name in frame}


def group_columns(frame: pd.DataFrame, on_open: Callable[[], None], key: str) -> dict[str, Any]:
    """As `columns`, for the table of groups, whose first column names them."""
    column = st.column_config
    by, at = str(frame.columns[0]), str(frame.columns[-1]).removeprefix("KV @")
    return {
        by: _button(frame[by].tolist(), on_open, key),
        "mean loss": column.NumberColumn(help="Mean of the runs' best validation losses, nats per token."),
        "min loss": column.NumberColumn(help="The best run's."),
        "max loss": column.NumberColumn(help="The worst run's best."),
        "ppl": column.NumberColumn(help="exp of the mean."),
        "tokens": column.NumberColumn(help="Tokens seen in training, mean over the runs."),
        "tok/s": column.NumberColumn(help="Tokens per second, mean over the runs."),
        str(frame.columns[-1]): column.NumberColumn(help=kv_help(at) + " Mean over the runs."),
    }


def column_order(frame: pd.DataFrame) -> list[str]:
    """The columns in which any run has a value."""
    return [str(name) for name in frame if bool(frame[name].notna().any())]


def kv_column(at: str) -> str:
    return f"KV @{at}"


def kv_help(at: str) -> str:
    """What the KV column says."""
    recorded = ", as the run recorded it" if at == "128k" else ", under the run's own cache policy"
    return f"KV cache of one request at {at} tokens{recorded}."


def setting_column(name: str) -> str:
    """A setting's column: its own name, told apart from ours where we have one of that name."""
    return f"{name} (setting)" if name in VALUES else name


def _button(names: Sequence[str], on_open: Callable[[], None], key: str) -> Any:
    width = min(40 + 8 * max(map(len, names), default=0), 360)
    return st.column_config.ButtonColumn(type="tertiary", alignment="left", width=width, on_click=on_open, key=key)


def _setting(values: list[Any]) -> pd.Series:
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in known):
        return _numbers(values)
    return pd.Series([None if value is None else written(value) for value in values], dtype=object)


def _numbers(values: Sequence[Any]) -> pd.Series:
    return pd.Series(values, dtype="float64")


def _known(rows: Sequence[Row], name: str) -> list[float]:
    return [value for row in rows if (value := row.get(name)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
