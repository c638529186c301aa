"""What a run's curves are drawn from: the events' columns, and what follows from them.

Derived are perplexities (exp of the loss) and `tokens`, the training tokens seen; both only where the events
do not say them. Train steps are numbered from 0, so a train row at step s has seen s + 1 steps' tokens and an
evaluation at step s has seen s; systems that number from 1 are recognised by their first train row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bottleneck_core.store.foreign import with_our_columns

# Columns that a frame always has, NaN where the events know nothing.
COLUMNS = {
    "train": ("loss", "ppl", "tok_s", "lr", "step_ms", "mfu", "tokens", "time_s"),
    "eval": ("train_loss", "val_loss", "val_ppl", "tokens", "time_s"),
    "analysis": ("tokens", "time_s"),
}
_PERPLEXITIES = {"train": ("ppl", "loss"), "eval": ("val_ppl", "val_loss")}


def train_curve(events: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """The train frame: events by step, `COLUMNS`, and renamed columns under our names."""
    events = with_our_columns(events)
    return _completed("train", events, lambda: _tokens_seen(events, config))


def curve(kind: str, events: pd.DataFrame, train: pd.DataFrame, config: Mapping[str, Any]) -> pd.DataFrame:
    """The eval or analysis frame; `train` is the train frame of the same run, which knows the tokens."""
    return _completed(kind, events, lambda: _tokens_before(events["step"].to_numpy(float), train, config))


def tokens_per_step(config: Mapping[str, Any]) -> int | None:
    """Tokens of one step as the settings say, sequences x micro-steps x context; None if they do not."""
    factors = [config.get("batch_size"), config.get("grad_accum", 1), config.get("block_size")]
    if all(isinstance(factor, (int, float)) and factor > 0 for factor in factors):
        return int(np.prod(factors))
    return None


def _completed(kind: str, events: pd.DataFrame, tokens: Callable[[], np.ndarray]) -> pd.DataFrame:
    # Only columns that change are assigned: the rest of a long run would be copied at each step that it logs.
    columns = {name: _numbers(events, name) for name in COLUMNS[kind]}
    changed = {name: values for name, values in columns.items() if not _is_number_column(events, name)}
    if np.isnan(columns["tokens"]).any():
        changed["tokens"] = np.where(np.isnan(columns["tokens"]), tokens(), columns["tokens"])
    if kind in _PERPLEXITIES:
        ppl, loss = _PERPLEXITIES[kind]
        if np.isnan(columns[ppl]).any():
            # Above 700 nats exp overflows; such a loss has no perplexity worth a point.
            derived = np.exp(np.where(columns[loss] < 700, columns[loss], np.nan))
            changed[ppl] = np.where(np.isnan(columns[ppl]), derived, columns[ppl])
    return events.assign(**changed) if changed else events


def _tokens_seen(train: pd.DataFrame, config: Mapping[str, Any]) -> np.ndarray:
    """Tokens seen after each train row's step, NaN where nothing tells.

    Rows with a sequence length and a batch of their own are summed up, each standing for the steps since the
    last row.
    """
    done, per_step = _steps_done(train), tokens_per_step(config)
    if {"seq_len", "global_batch"} <= set(train.columns):
        return np.cumsum(np.diff(done, prepend=0) * _numbers(train, "seq_len") * _numbers(train, "global_batch"))
    return done * per_step if per_step is not None else np.full(len(train), np.nan)


def _tokens_before(steps: np.ndarray, train: pd.DataFrame, config: Mapping[str, Any]) -> np.ndarray:
    """Tokens seen before `steps`: between train rows interpolated, after the last one continued."""
    done, tokens = _steps_done(train), train["tokens"].to_numpy(float)
    known = np.isfinite(tokens)
    if not known.all():
        done, tokens = done[known], tokens[known]
    done, tokens = np.concatenate([[0.0], done]), np.concatenate([[0.0], tokens])
    if len(done) == 1:
        per_step = tokens_per_step(config)
        return steps * per_step if per_step is not None else np.where(steps == 0, 0.0, np.nan)
    rate = (tokens[-1] - tokens[-2]) / (done[-1] - done[-2])
    return np.where(steps > done[-1], tokens[-1] + (steps - done[-1]) * rate, np.interp(steps, done, tokens))


def _steps_done(train: pd.DataFrame) -> np.ndarray:
    steps = train["step"].to_numpy(float)
    return steps if len(steps) and steps[0] == 1 else steps + 1


def _is_number_column(frame: pd.DataFrame, name: str) -> bool:
    return name in frame.columns and frame[name].dtype == np.float64


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as float64, NaN where it is absent or holds something else than a number."""
    if name not in frame.columns:
        return np.full(len(frame), np.nan)
    column = frame[name]
    if column.dtype == object:
        column = column.map(lambda cell: cell if isinstance(cell, float) else np.nan)
    return column.to_numpy(float)
