"""What a run's analysis.h5 holds, read as far as a view needs it.

A metric is read whole, once a state of the file: its range, its alarms and its lines need all steps. Maps and
spectra, which make up nearly all of a file, are read one probe at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

import bottleneck_core as bc
from bottleneck_core.figures.alarms import RULES
from bottleneck_core.figures.attention import uniform_value
from bottleneck_core.figures.tokens import token_labels
from bottleneck_core.store.analysis import AnalysisError
from dashboard.state import Row, reading

if TYPE_CHECKING:
    from bottleneck_core import Run

Head = tuple[int, int]  # (layer, head)
Stamp = tuple[int, ...]

# 24 layers x 16 heads x 5,000 steps are 8 MB a metric.
_METRICS_KEPT = 16


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
    with reading(row["path"]) as run:
        if not run.paths.analysis.is_file():
            raise bc.UserError(
                f"{row['id']} has no attention metrics by layer and head: train with --instrument full to record them"
            )
        try:
            return _probed(row, run)
        except AnalysisError as error:
            raise bc.UserError(str(error)) from None


def values_of(probed: Probed, metric: str) -> NDArray[np.float32]:
    """A metric, [S, layer, head], of layers [S, layer, 1]. Raises UserError."""
    values = _values(probed.path, metric, probed.stamp)
    return values if values.ndim == 3 else values[:, :, None]


def value_limits(runs: Sequence[Probed], metric: str) -> tuple[float, float] | None:
    """The least and greatest value of a metric in all runs at all steps; None where there is none."""
    ranges = [_range(run.path, metric, run.stamp) for run in runs if metric in run.metrics]
    known = [limits for limits in ranges if limits is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def watched_values(probed: Probed) -> dict[str, NDArray[np.float32]]:
    """The metrics that alarms look at, as stored: per head or per layer."""
    return {r.metric: _values(probed.path, r.metric, probed.stamp) for r in RULES if r.metric in probed.metrics}


def map_of(probed: Probed, head: Head, probe: int, part: str | None = None) -> tuple[NDArray[np.float32], int]:
    """The map (T, T) of one head, or a part's logits, at the probe nearest to `probe` that stored it; and that probe.

    Raises UserError.
    """
    with reading(probed.path) as run:
        try:
            file = run.analysis_file
            row = min(file.map_rows(*head), key=lambda row: (abs(row - probe), row), default=probe)
            return (file.map(*head, row) if part is None else file.scores(part, *head, row)), row
        except AnalysisError as error:
            raise bc.UserError(str(error)) from None


def spectra_of(probed: Probed, head: Head, probes: Sequence[int]) -> NDArray[np.float32]:
    """Singular values (len(probes), T) of one head. Raises UserError."""
    with reading(probed.path) as run:
        try:
            return run.analysis_file.svd_at(*head, probes)
        except AnalysisError as error:
            raise bc.UserError(str(error)) from None


def per_layer(metric: str) -> bool:
    """Whether a metric has one value a layer instead of one a head."""
    known = bc.METRICS.get(metric)
    return known is not None and known.per == "layer"


def baseline(probed: Probed, metric: str) -> float | None:
    """What uniform attention would measure; None where that is not defined."""
    if probed.tokens is None:
        return None
    return uniform_value(metric, probed.tokens, null=probed.null, top_k=probed.top_k, window=probed.window)


def _probed(row: Row, run: Run) -> Probed:
    config = run.config
    with run.analysis_file as file:
        names, mapped, attrs, ids = (
            [*file.attn_metrics, *file.weight_metrics],
            file.maps(),
            file.attrs,
            file.probe_tokens,
        )
        spectral, parts, steps = file.heads_with_svd(), file.score_parts, file.steps
        if not len(steps):
            raise bc.UserError(f"{row['id']} has no probe yet: the first one is written with the first evaluation")
        metrics = [name for name in names if name in bc.METRICS]
        if not metrics:
            raise bc.UserError(f"{row['id']} has an analysis without attention metrics: --instrument full records them")
        tokens = ids.shape[1] if ids is not None else len(file.map(*mapped[0])) if mapped else None
    tokenizer = config.get("tokenizer")
    status = run.paths.analysis.stat()
    return Probed(
        row=row,
        live=run.status == "running",
        stamp=(len(steps), int(steps[-1]), status.st_ino, status.st_mtime_ns, status.st_size),
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
