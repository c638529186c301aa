"""What is known of each compared run: settings, curves, and the numbers it ends with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.figures.differences import Setting, differences, seed_groups
from bottleneck_core.figures.quantities import Quantity
from bottleneck_core.figures.scatter import CACHE, LOSS
from bottleneck_core.memory import training_flops_per_token
from dashboard.compare.runs import tokens_of
from dashboard.kept import Kept, Same
from dashboard.state import Row, drawn_of, reading

if TYPE_CHECKING:
    from bottleneck_core import Run

_CONTEXT = 128_000
# What decides whether losses are about the same text.
_TEXT = ("data", "tokenizer", "vocab_size", "val_frac")
# Runs that differ by less in tokens were trained equally long.
_SAME_TOKENS = 0.01
MADE = Kept(32)

RESULTS = (
    Quantity(key=LOSS, label="best validation loss", unit="nats per token", format=numbers.loss),
    Quantity(key=CACHE, label="KV cache per token", unit="bytes", format=numbers.size, log=True, binary=True),
    Quantity(key="n_params", label="parameters", format=numbers.count),
    Quantity(key="tokens", label="tokens seen", format=numbers.count),
    Quantity(key="tok_s", label="throughput", unit="tokens per second", format=numbers.rate),
)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A run: `frames` by kind of event, `values` by the keys of `RESULTS` and the probes' means, as of the last."""

    row: Row
    token: str
    config: Mapping[str, Any]
    frames: Mapping[str, pd.DataFrame]
    flops_per_token: int | None
    values: Mapping[str, float | None]

    @property
    def id(self) -> str:
        return self.row["id"]


def compared_runs(chosen: Sequence[Row], rows: Sequence[Row]) -> list[Compared]:
    """The chosen rows with their curves; a run that is gone since it was listed is left out."""
    found = []
    for row, token in zip(chosen, tokens_of(chosen, rows), strict=True):
        with contextlib.suppress(bc.UserError), reading(row["path"]) as run:
            drawn = drawn_of(row["path"])  # forgets with the run's changes
            found.append(drawn.get(("compared", Same([row]), token), partial(_compared, row, token, run)))
    return found


def differing(runs: Sequence[Compared]) -> list[Setting]:
    """The settings in which the runs differ, the weightiest first."""
    return MADE.get(("differing", Same(runs)), lambda: differences([run.config for run in runs], setting_order()))


def repetitions(runs: Sequence[Compared]) -> list[list[int]]:
    """Numbers of the runs that are equal but for their seed."""
    return MADE.get(("repetitions", Same(runs)), lambda: seed_groups([run.config for run in runs]))


def metric_columns(runs: Sequence[Compared]) -> dict[str, str]:
    """The numeric columns that any run has a value in, and the frame of each, in the order of `METRICS`."""
    found: dict[str, str] = {}
    for kind in ("eval", "train", "analysis"):
        for run in runs:
            frame = run.frames[kind]
            for name in frame:
                if name not in found and name not in ("step", "tokens", "time_s") and _has_values(frame, str(name)):
                    found[str(name)] = kind
    order = list(bc.METRICS)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def attention_quantities(runs: Sequence[Compared]) -> list[Quantity]:
    """The probes' means that any run has, as axes."""
    names = {name for run in runs for name, value in run.values.items() if name.endswith("_mean") and value is not None}
    return [
        Quantity(key=name, label=metric.label[0].lower() + metric.label[1:], unit=metric.unit)
        for name, metric in bc.METRICS.items()
        if name in names
    ]


def cautions(runs: Sequence[Compared]) -> list[str]:
    """What to know before losses are compared, one sentence each."""
    found = []
    text = [name for name in _TEXT if len({str(r.config[name]) for r in runs if r.config.get(name) is not None}) > 1]
    if text:
        found.append(f"The runs differ in {', '.join(text)}: their losses need not be about the same text.")
    tokens = [seen for run in runs if (seen := run.values["tokens"])]
    if tokens and max(tokens) > (1 + _SAME_TOKENS) * min(tokens):
        found.append(
            f"The runs saw between {numbers.count(min(tokens))} and {numbers.count(max(tokens))} tokens: "
            "a loss compares what was reached, not what equal training gives."
        )
    return found


def setting_order() -> list[str]:
    """Settings by their weight in a comparison: run, data, model, training, then the rest."""
    return [name for group in bc.RunConfig.__bases__ for name in getattr(group, "model_fields", {})]


def _compared(row: Row, token: str, run: Run) -> Compared:
    frames = {"train": run.train, "eval": run.eval, "analysis": run.analysis}
    config = run.config
    try:
        flops = training_flops_per_token(config, int(run.model["vocab_size"]))
    except (ValueError, TypeError, KeyError):  # a foreign configuration need not say enough
        flops = None
    cache = row.get("kv_bytes_128k")
    if cache is None:
        with contextlib.suppress(bc.UserError):
            cache = bc.kv_memory(config, _CONTEXT).bytes
    values: dict[str, float | None] = {
        LOSS: row.get("best_val_loss"),
        CACHE: cache / _CONTEXT if cache else None,
        "kv_bytes_128k": cache,
        **{name: row.get(name) for name in ("n_params", "tokens", "tok_s")},
        "time_s": _last(frames["train"], "time_s"),
    }
    means = (name for name in frames["analysis"] if str(name).endswith("_mean"))
    values |= {str(name): _last(frames["analysis"], str(name)) for name in means}
    return Compared(row=row, token=token, config=config, frames=frames, flops_per_token=flops, values=values)


def _known(frame: pd.DataFrame, name: str) -> np.ndarray:
    """The finite values of a column; none of one that holds something else than numbers."""
    values = frame[name].to_numpy()
    return values[np.isfinite(values)] if values.dtype.kind in "fiu" else np.empty(0)


def _has_values(frame: pd.DataFrame, name: str) -> bool:
    return len(_known(frame, name)) > 0


def _last(frame: pd.DataFrame, name: str) -> float | None:
    known = _known(frame, name)
    return float(known[-1]) if len(known) else None
