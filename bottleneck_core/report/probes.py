"""Attention metrics of a run as a report uses them: per layer and head where they are stored, else as means."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bottleneck_core.errors import UserError
from bottleneck_core.figures.alarms import RULES, Alarm, alarms_at
from bottleneck_core.figures.attention import uniform_value
from bottleneck_core.store.analysis import AnalysisError, AnalysisFile
from bottleneck_core.store.metrics import METRICS

from .reported import Reported, known_values

DIAGNOSTICS = ("entropy", "local_mass", "topk_mass", "null_mass", "erank")
"""What a report shows of attention, in this order."""

Head = tuple[int, int]  # (layer, head)


@dataclass(frozen=True, kw_only=True)
class Probes:
    """A run's probes: `values` [S, layer, head] by metric over `steps` (S); those without a value are left out.

    `per_layer` holds metrics of layers [S, layer]; `tokens` is the probe window's length, None where unknown.
    """

    steps: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]
    per_layer: Mapping[str, NDArray[np.float64]]
    tokens: int | None
    null: bool
    top_k: int
    window: int
    mapped: tuple[Head, ...]

    def uniform(self, metric: str) -> float | None:
        """What uniform attention would measure; None where that is not defined or not known."""
        if self.tokens is None:
            return None
        return uniform_value(metric, self.tokens, null=self.null, top_k=self.top_k, window=self.window)

    def alarms(self) -> list[Alarm]:
        """What is worth a second look in the last probe."""
        return alarms_at(self.steps, {**self.values, **self.per_layer}, len(self.steps) - 1)


def probes_of(run: Reported) -> Probes | str:
    """The probes of a run, or a sentence that says why there are none by layer and head."""
    if not run.run.paths.analysis.is_file():
        return "no analysis.h5: nothing by layer and head"
    try:
        return _read(run)
    except (AnalysisError, UserError) as error:
        return f"{str(error).replace(f'{run.run.paths.analysis}: ', 'analysis.h5: ')}".rstrip(".")


def mean_curve(run: Reported, probes: Probes | None, metric: str) -> pd.DataFrame:
    """Steps and means over layers and heads under the metric's name: of the arrays, else of the analysis events."""
    if probes is not None and metric in probes.values:
        values = probes.values[metric].reshape(len(probes.steps), -1)
        with warnings.catch_warnings():  # a probe may hold none of this metric
            warnings.simplefilter("ignore", RuntimeWarning)
            return pd.DataFrame({"step": probes.steps, metric: np.nanmean(values, axis=1)})
    frame, column = run.frames["analysis"], f"attn_{metric}_mean"
    known = known_values(frame, column)
    # A model without a null key has none of its mass everywhere.
    if not len(known) or (metric == "null_mass" and not known.any()):
        return pd.DataFrame({"step": [], metric: []}, dtype=np.float64)
    return pd.DataFrame({"step": frame["step"], metric: frame[column]})


def map_of(run: Reported, head: Head) -> NDArray[np.float32] | None:
    """The last stored map of a head (T, T); None where it cannot be read."""
    try:
        return run.run.attention_map(*head)
    except UserError:
        return None


def _read(run: Reported) -> Probes | str:
    config = run.config
    with AnalysisFile.open(run.run.paths.analysis) as file:
        steps, attrs, ids, mapped = file.steps, file.attrs, file.probe_tokens, file.maps()
        if not len(steps):
            return "an analysis.h5 without a probe"
        watched = [*DIAGNOSTICS, *(rule.metric for rule in RULES)]
        names = [name for name in METRICS if name in file.attn_metrics and name in watched]
        values = {name: file.attn(name).astype(np.float64) for name in names}
        layers = {name: file.weights(name).astype(np.float64) for name in file.weight_metrics if name in watched}
        tokens = ids.shape[1] if ids is not None else len(file.map(*mapped[0])) if mapped else None
    values = {name: array for name, array in values.items() if np.isfinite(array).any()}
    if not np.nansum(values.get("null_mass", np.zeros(1))) > 0:
        values.pop("null_mass", None)
    return Probes(
        steps=steps,
        values=values,
        per_layer=layers,
        tokens=tokens,
        null=bool(config.get("null_attn")),
        top_k=_whole(attrs.get("topk"), config.get("analysis_topk"), 8),
        window=_whole(attrs.get("local_window"), config.get("analysis_local_window"), 32),
        mapped=tuple(mapped),
    )


def _whole(*candidates: object) -> int:
    """The first that is a positive whole number."""
    return next(int(c) for c in candidates if isinstance(c, (int, np.integer)) and c > 0)
