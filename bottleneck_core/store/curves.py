"""What a run's curves are drawn from: the events' columns, and what follows from them.

Derived are perplexities (exp of the loss) and `tokens`, the training tokens seen; both only where the events
do not say them. Train steps are numbered from 0, so a train row at step s has seen s + 1 steps' tokens and an
evaluation at step s has seen s; systems that number from 1 are recognised by their first train row.

A single column costs no frame: the table of runs needs three of them from each of thousands of runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck_core.store.event_log import EventLog
from bottleneck_core.store.foreign import their_column, with_our_columns

if TYPE_CHECKING:
    import pandas as pd

# Columns that a frame always has, NaN where the events know nothing.
COLUMNS = {
    "train": ("loss", "ppl", "tok_s", "lr", "step_ms", "mfu", "tokens", "time_s"),
    "eval": ("train_loss", "val_loss", "val_ppl", "tokens", "time_s"),
    "analysis": ("tokens", "time_s"),
}
_PERPLEXITIES = {("train", "ppl"): "loss", ("eval", "val_ppl"): "val_loss"}


class Curve:
    """Train, eval or analysis rows of a run as of now: after the log has read on, make another one."""

    def __init__(self, log: EventLog, kind: str, config: Mapping[str, Any], train: Curve | None = None) -> None:
        """`train` is the run's train curve, which knows the tokens; the train curve itself has none."""
        self.kind = kind
        self._log, self._config, self._train = log, config, train
        self._recorded: dict[str, np.ndarray] = {}
        self._values: dict[str, np.ndarray] = {}

    @property
    def steps(self) -> np.ndarray:
        """The step of each row, int64, rising."""
        return self._log.steps(self.kind)

    def values(self, name: str) -> np.ndarray:
        """A column as float64, derived where the events do not say it; NaN where nothing tells."""
        if name not in self._values:
            values = self._numbers(name)
            if (name == "tokens" or (self.kind, name) in _PERPLEXITIES) and (unknown := np.isnan(values)).any():
                values = np.where(unknown, self._tokens() if name == "tokens" else self._perplexity(name), values)
            self._values[name] = values
        return self._values[name]

    def frame(self) -> pd.DataFrame:
        """The events by step, `COLUMNS`, and renamed columns under our names."""
        events = self._log.frame(self.kind)
        if self.kind == "train":
            events = with_our_columns(events)
        # Only columns that change are assigned: the rest of a long run would be copied at each step that it logs.
        changed = {
            name: values
            for name in COLUMNS[self.kind]
            if (values := self.values(name)) is not self._numbers(name) or not _is_number_column(events, name)
        }
        return events.assign(**changed) if changed else events

    def _numbers(self, name: str) -> np.ndarray:
        """A column as the events say it, under our name or a renamed one's."""
        if name not in self._recorded:
            self._recorded[name] = self._log.numbers(self.kind, self._name(name) or name)
        return self._recorded[name]

    def _name(self, name: str) -> str | None:
        """What the events call a column; None where they have none."""
        named = [name, their_column(name) if self.kind == "train" else None]
        return next((known for known in named if known and self._log.has(self.kind, known)), None)

    def _perplexity(self, name: str) -> np.ndarray:
        loss = self._numbers(_PERPLEXITIES[self.kind, name])
        # Above 700 nats exp overflows; such a loss has no perplexity worth a point.
        return np.exp(np.where(loss < 700, loss, np.nan))

    def _tokens(self) -> np.ndarray:
        """Tokens seen, NaN where nothing tells."""
        if self._train is not None:
            return self._tokens_before(self._train)
        per_step = tokens_per_step(self._config)
        if self._name("seq_len") and self._name("global_batch"):
            # Rows with a sequence length and a batch of their own are summed up, each standing for the steps since
            # the last row.
            since = np.diff(self._steps_done(), prepend=0)
            return np.cumsum(since * self._numbers("seq_len") * self._numbers("global_batch"))
        return self._steps_done() * (np.nan if per_step is None else per_step)

    def _tokens_before(self, train: Curve) -> np.ndarray:
        """Tokens seen before each row's step: between train rows interpolated, after the last one continued."""
        steps = self.steps.astype(float)
        done, tokens = train._steps_done(), train.values("tokens")
        known = np.isfinite(tokens)
        if not known.all():
            done, tokens = done[known], tokens[known]
        done, tokens = np.concatenate([[0.0], done]), np.concatenate([[0.0], tokens])
        if len(done) == 1:
            per_step = tokens_per_step(self._config)
            return steps * per_step if per_step is not None else np.where(steps == 0, 0.0, np.nan)
        rate = (tokens[-1] - tokens[-2]) / (done[-1] - done[-2])
        return np.where(steps > done[-1], tokens[-1] + (steps - done[-1]) * rate, np.interp(steps, done, tokens))

    def _steps_done(self) -> np.ndarray:
        steps = self.steps.astype(float)
        return steps if len(steps) and steps[0] == 1 else steps + 1


def tokens_per_step(config: Mapping[str, Any]) -> int | None:
    """Tokens of one step as the settings say, sequences x micro-steps x context; None if they do not."""
    factors = [config.get("batch_size"), config.get("grad_accum", 1), config.get("block_size")]
    if all(isinstance(factor, (int, float)) and factor > 0 for factor in factors):
        return int(np.prod(factors))
    return None


def _is_number_column(frame: pd.DataFrame, name: str) -> bool:
    return name in frame.columns and frame[name].dtype == np.float64
