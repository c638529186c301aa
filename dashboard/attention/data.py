"""What a run's analysis.h5 holds, read as far as a view needs it.

A metric is read whole, once a state of the file: its range, its alarms and its lines need all steps. Maps and
spectra, which make up nearly all of a file, are read one probe at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

import bottleneck_core as bc
from bottleneck_core.figures.alarms import RULES, Alarm, alarms_at
from bottleneck_core.figures.attention import uniform_value
from bottleneck_core.figures.tokens import token_labels
from bottleneck_core.store.analysis import AnalysisError
from dashboard.state import Row, drawn_of, reading

if TYPE_CHECKING:
    from bottleneck_core import Run
    from bottleneck_core.store.analysis import AnalysisFile

Head = tuple[int, int]  # (layer, head)
Stamp = tuple[int, ...]

# 24 layers x 16 heads x 5,000 steps are 8 MB a metric.
_METRICS_KEPT = 16
# Alarms of a probe, spectra of a head, and maps: up to 4 MB each.
_ALARMS_KEPT, _HEADS_KEPT, _MAPS_KEPT = 64, 64, 12


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A run with an analysis file: `steps` (S), metrics in the order of METRICS, heads with maps and spectra.

    `labels` are the tokens of the stored maps' window, None where unknown; `tokens` is the window's length.
    """

    row: Row
    live: bool
    stamp: Stamp
    steps: NDArray[np.int64]
    metrics: list[str]
    mapped: list[Head]
    spectral: list[Head]
    parts: list[str]
    labels: list[str] | None
    tokens: int | None
    tokenizer: str | None
    null: bool
    top_k: int
    window: int

    @property
    def id(self) -> str:
        return self.row["id"]

    @property
    def path(self) -> str:
        return self.row["path"]

    def nearest(self, step: int) -> int:
        """Index of the probe that is nearest to a step; the earlier one of two."""
        return int(np.argmin(np.abs(self.steps - step)))


def probed_run(row: Row) -> Probed:
    """What can be looked at. Raises UserError, one sentence, where there is no analysis that can be read."""
    path = row["path"]
    with reading(path) as run:
        if not run.paths.analysis.is_file():
            raise bc.UserError(
                f"{row['id']} has no attention metrics by layer and head: train with --instrument full to record them"
            )
        try:
            stamp = _stamp(row, run)
            probed = drawn_of(path).get(("probed", stamp), lambda: _probed(row, run, stamp))
        except AnalysisError as error:
            raise bc.UserError(str(error)) from None
        return replace(probed, row=row, live=run.status == "running")


def values_of(probed: Probed, metric: str) -> NDArray[np.float32]:
    """A metric, [S, layer, head], of layers [S, layer, 1]. Raises UserError."""
    values = _values(probed.path, metric, probed.stamp)
    return values if values.ndim == 3 else values[:, :, None]


def value_limits(runs: Sequence[Probed], metric: str) -> tuple[float, float] | None:
    """The least and greatest value of a metric in all runs at all steps; None where there is none."""
    ranges = [_range(run.path, metric, run.stamp) for run in runs if metric in run.metrics]
    known = [limits for limits in ranges if limits is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def watched(probed: Probed) -> list[str]:
    """The metrics of the run that alarms look at."""
    return [rule.metric for rule in RULES if rule.metric in probed.metrics]


def alarms_of(probed: Probed, probe: int) -> list[Alarm]:
    """The alarms of the probe with index `probe`. Raises UserError."""
    return _alarms(probed.path, tuple(watched(probed)), probe, probed.stamp, probed.steps)


def map_of(probed: Probed, head: Head, probe: int, part: str | None = None) -> tuple[NDArray[np.float32], int]:
    """The map (T, T) of one head, or a part's logits, at the probe nearest to `probe` that stored it; and that probe.

    Raises UserError.
    """
    rows = _map_rows(probed.path, head, probed.stamp)
    row = min(rows, key=lambda row: (abs(row - probe), row), default=probe)
    return _map(probed.path, head, row, part, probed.stamp), row


def spectra_of(probed: Probed, head: Head, probes: Sequence[int]) -> NDArray[np.float32]:
    """Singular values (len(probes), T) of one head. Raises UserError."""
    return _spectra(probed.path, head, tuple(probes), probed.stamp)


def per_layer(metric: str) -> bool:
    """Whether a metric has one value a layer instead of one a head."""
    known = bc.METRICS.get(metric)
    return known is not None and known.per == "layer"


def baseline(probed: Probed, metric: str) -> float | None:
    """What uniform attention would measure; None where that is not defined."""
    if probed.tokens is None:
        return None
    return uniform_value(metric, probed.tokens, null=probed.null, top_k=probed.top_k, window=probed.window)


def _stamp(row: Row, run: Run) -> Stamp:
    """Changes with the analysis file."""
    steps, status = run.analysis_file.steps, run.paths.analysis.stat()
    if not len(steps):
        raise bc.UserError(f"{row['id']} has no probe yet: the first one is written with the first evaluation")
    return len(steps), int(steps[-1]), status.st_ino, status.st_mtime_ns, status.st_size


def _probed(row: Row, run: Run, stamp: Stamp) -> Probed:
    config = run.config
    with run.analysis_file as file:
        names, mapped, attrs, ids = (
            [*file.attn_metrics, *file.weight_metrics],
            file.maps(),
            file.attrs,
            file.probe_tokens,
        )
        spectral, parts, steps = file.heads_with_svd(), file.score_parts, file.steps
        metrics = [name for name in names if name in bc.METRICS]
        if not metrics:
            raise bc.UserError(f"{row['id']} has an analysis without attention metrics: --instrument full records them")
        tokens = ids.shape[1] if ids is not None else len(file.map(*mapped[0])) if mapped else None
    tokenizer = config.get("tokenizer")
    return Probed(
        row=row,
        live=False,
        stamp=stamp,
        steps=steps,
        metrics=metrics,
        mapped=mapped,
        spectral=spectral,
        parts=parts,
        labels=None if ids is None else token_labels(tokenizer, ids[0].tolist()),
        tokens=tokens,
        tokenizer=str(tokenizer) if tokenizer else None,
        null=bool(config.get("null_attn")),
        top_k=_whole(attrs.get("topk"), config.get("analysis_topk"), 8),
        window=_whole(attrs.get("local_window"), config.get("analysis_local_window"), 32),
    )


@contextmanager
def _analysis(path: str) -> Iterator[AnalysisFile]:
    """The analysis of the run at `path`. Raises UserError."""
    with reading(path) as run:
        try:
            yield run.analysis_file
        except AnalysisError as error:
            raise bc.UserError(str(error)) from None


def _whole(*candidates: Any) -> int:
    """The first that is a positive whole number."""
    return next(int(c) for c in candidates if isinstance(c, (int, np.integer)) and c > 0)


@st.cache_resource(max_entries=_METRICS_KEPT, show_spinner=False)
def _values(path: str, metric: str, stamp: Stamp) -> NDArray[np.float32]:
    del stamp  # part of the key alone
    with reading(path) as run:
        return run.weights(metric) if per_layer(metric) else run.attention(metric)


@st.cache_resource(max_entries=16 * _METRICS_KEPT, show_spinner=False)
def _range(path: str, metric: str, stamp: Stamp) -> tuple[float, float] | None:
    values = _values(path, metric, stamp)
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if len(known) else None


@st.cache_resource(max_entries=_ALARMS_KEPT, show_spinner=False)
def _alarms(path: str, metrics: tuple[str, ...], probe: int, stamp: Stamp, _steps: NDArray[np.int64]) -> list[Alarm]:
    return alarms_at(_steps, {metric: _values(path, metric, stamp) for metric in metrics}, probe)


@st.cache_resource(max_entries=_HEADS_KEPT, show_spinner=False)
def _map_rows(path: str, head: Head, stamp: Stamp) -> list[int]:
    del stamp  # part of the key alone
    with _analysis(path) as file:
        return file.map_rows(*head)


@st.cache_resource(max_entries=_MAPS_KEPT, show_spinner=False)
def _map(path: str, head: Head, row: int, part: str | None, stamp: Stamp) -> NDArray[np.float32]:
    del stamp  # part of the key alone
    with _analysis(path) as file:
        return file.map(*head, row) if part is None else file.scores(part, *head, row)


@st.cache_resource(max_entries=_HEADS_KEPT, show_spinner=False)
def _spectra(path: str, head: Head, probes: tuple[int, ...], stamp: Stamp) -> NDArray[np.float32]:
    del stamp  # part of the key alone
    with _analysis(path) as file:
        return file.svd_at(*head, probes)
