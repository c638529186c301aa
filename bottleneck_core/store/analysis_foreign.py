"""Analysis files of the seed's family: one group per probe, `/analysis/step_N/{attn,svd}/L{i}/H{h}`.

They hold half-precision maps and singular values of a few layers and heads and no metrics. What the maps
determine under the definitions of METRICS is computed from them; top-k and local mass need a k and a window
that the file does not name, redundancy needs all heads, and weight metrics need the weights: these are
absent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import h5py
import numpy as np
import numpy.typing as npt

from bottleneck_core.store.analysis_layout import (
    AnalysisError,
    Floats,
    Head,
    Steps,
    head_path,
    heads_in,
    require_own,
    subgroup,
)
from bottleneck_core.store.metrics import METRICS

# Rounding to half precision moves a row's sum by at most 2^-11 plus T 2^-25 (5.2e-4 at T = 1,024). A row that
# misses more than this sum has lost weight to a null column that was not stored.
_ROW_SUM_TOLERANCE = 1e-3

Map = npt.NDArray[np.float64]


def entropy(weights: Map) -> float:
    """Mean over rows of -sum p ln p, in nats. The map must hold all the weight: see `is_complete`."""
    return float(_row_entropies(weights).mean())


def entropy_norm(weights: Map) -> float:
    """Mean over rows of the entropy divided by ln of the visible keys; the first row counts as 0."""
    maxima = np.log(np.arange(2, len(weights) + 1))
    return float((_row_entropies(weights)[1:] / maxima).sum() / len(weights))


def sink_mass(weights: Map) -> float:
    """Mean weight on key 0."""
    return float(weights[:, 0].mean())


def prev_mass(weights: Map) -> float:
    """Mean weight on key q - 1 over the rows q >= 1; NaN for a single row."""
    return float(np.diagonal(weights, -1).mean()) if len(weights) > 1 else np.nan


def distance(weights: Map) -> float:
    """Mean over rows of sum over keys of p_j (q - j), in tokens."""
    positions = np.arange(len(weights))
    return float((weights * (positions[:, None] - positions)).sum(axis=1).mean())


def effective_rank(singular_values: npt.NDArray[np.float64]) -> float:
    """exp of the entropy of singular values normalised to sum 1 (Roy and Vetterli 2007); NaN if all are 0."""
    total = singular_values.sum()
    if not total > 0:
        return np.nan
    shares = singular_values[singular_values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def is_causal(weights: Map) -> bool:
    """Whether this is a square map of weights on the keys up to the query."""
    square = weights.ndim == 2 and weights.shape[0] == weights.shape[1] > 0
    return square and bool((weights >= 0).all()) and not np.triu(weights, 1).any()


def is_complete(weights: Map) -> bool:
    """Whether the rows sum to 1, so that no null column is missing."""
    return bool((np.abs(weights.sum(axis=1) - 1) <= _ROW_SUM_TOLERANCE).all())


def _row_entropies(weights: Map) -> Map:
    return -(weights * np.log(weights, where=weights > 0, out=np.zeros_like(weights))).sum(axis=1)


_FROM_MAP: dict[str, Callable[[Map], float]] = {
    "entropy": entropy,
    "entropy_norm": entropy_norm,
    "sink_mass": sink_mass,
    "prev_mass": prev_mass,
    "distance": distance,
}
_NEED_ALL_WEIGHT = ("entropy", "entropy_norm")


class StepGroups:
    """The foreign layout behind the reader's interface; cells and steps that are not stored are NaN."""

    def __init__(self, file: h5py.File) -> None:
        self._groups: list[tuple[int, h5py.Group]] = []
        analysis = subgroup(file, "analysis")
        for name, group in ({} if analysis is None else analysis).items():
            match = re.fullmatch(r"step_(\d+)", name)
            if match and isinstance(group, h5py.Group) and group.file.filename == file.filename:
                self._groups.append((int(group.attrs.get("step", match[1])), group))
        self._groups.sort(key=lambda pair: pair[0])
        self._maps = self._heads("attn")
        self._svds = self._heads("svd")

    def steps(self) -> Steps:
        return np.array([step for step, _ in self._groups], dtype=np.int64)

    def attn_metrics(self) -> list[str]:
        names = [name for name in _FROM_MAP if self._maps]
        if not self._first_maps_are_complete():
            names = [name for name in names if name not in _NEED_ALL_WEIGHT]
        return names + (["erank"] if self._svds else [])

    def weight_metrics(self) -> list[str]:
        return []

    def attn(self, metric: str, rows: int) -> Floats:
        if metric not in self.attn_metrics():
            raise AnalysisError(f"it has no {metric!r} and no data to compute it from")
        kind, heads = ("svd", self._svds) if metric == "erank" else ("attn", self._maps)
        shape = (rows, 1 + max(layer for layer, _ in heads), 1 + max(head for _, head in heads))
        values = np.full(shape, np.nan, dtype=np.float32)
        for row, (_, group) in enumerate(self._groups[:rows]):
            for layer, head in heads:
                stored = _stored(group, kind, (layer, head))
                if stored is not None:
                    values[row, layer, head] = _derive(metric, stored)
        return values

    def weights(self, metric: str, rows: int) -> Floats:
        raise AnalysisError(f"it has no {metric!r}: this kind of file holds no weight metrics")

    def maps(self) -> list[Head]:
        return self._maps

    def map(self, head: Head, row: int) -> Floats:
        if head not in self._maps:
            raise AnalysisError(f"there is no attention map of layer {head[0]} head {head[1]} in it")
        stored = _stored(self._groups[row][1], "attn", head)
        if stored is None:
            size = max(len(found) for _, group in self._groups if (found := _stored(group, "attn", head)) is not None)
            return np.full((size, size), np.nan, dtype=np.float32)
        return stored.astype(np.float32)

    def map_rows(self, head: Head, rows: int) -> list[int]:
        groups = enumerate(group for _, group in self._groups[:rows])
        return [row for row, group in groups if _stored(group, "attn", head) is not None]

    def svd(self, head: Head, rows: int) -> Floats:
        if head not in self._svds:
            raise AnalysisError(f"there are no singular values of layer {head[0]} head {head[1]} in it")
        stored = [_stored(group, "svd", head) for _, group in self._groups[:rows]]
        values = np.full((rows, max(len(row) for row in stored if row is not None)), np.nan, dtype=np.float32)
        for row, found in enumerate(stored):
            if found is not None:
                values[row, : len(found)] = found
        return values

    def svd_at(self, head: Head, rows: Sequence[int]) -> Floats:
        return self.svd(head, len(self._groups))[list(rows)]

    def heads_with_svd(self) -> list[Head]:
        return self._svds

    def score_parts(self) -> list[str]:
        return []

    def scores(self, part: str, head: Head, row: int) -> Floats:
        raise AnalysisError("this kind of file holds no scores")

    def definition(self, metric: str) -> str:
        if metric not in self.attn_metrics():
            raise AnalysisError(f"there is no metric {metric!r} in it")
        source = "singular values" if metric == "erank" else "half-precision map"
        return f"{METRICS[metric].definition} Computed here from the stored {source} of one window."

    def probe_tokens(self) -> None:
        return None

    def _heads(self, kind: str) -> list[Head]:
        return sorted({head for _, group in self._groups for head in heads_in(subgroup(group, kind))})

    def _first_maps_are_complete(self) -> bool:
        """Whether the model has no null key. One early map tells, as a null key starts with real weight."""
        for _, group in self._groups:
            for head in self._maps:
                stored = _stored(group, "attn", head)
                if stored is not None:
                    return is_complete(stored)
        return False


def _stored(group: h5py.Group, kind: str, head: Head) -> Map | None:
    name = f"{kind}/{head_path(head)}"
    if name not in group:
        return None
    dataset = group[name]
    if not isinstance(dataset, h5py.Dataset):
        return None
    require_own(group, dataset)
    return np.asarray(dataset[()], dtype=np.float64)


def _derive(metric: str, stored: Map) -> float:
    if metric == "erank":
        return effective_rank(stored)
    if not is_causal(stored) or (metric in _NEED_ALL_WEIGHT and not is_complete(stored)):
        return np.nan
    return _FROM_MAP[metric](stored)
