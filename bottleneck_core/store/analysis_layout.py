"""The layout of analysis.h5, and how its rows are read from an open file.

/steps                   [S]                int64    the training step of each probe, increasing
/attn/<metric>           [S, layer, head]   float32  NaN where not measured
/weights/<metric>        [S, layer]         float32
/maps/L{i}/H{h}          [S, T, T]          float16  map of probe window 0, query by key, no null column
/svd/L{i}/H{h}           [S, T]             float32  singular values of a map, descending, mean over windows
/sem_scores, /geo_scores [S, T, T]          float16  scaled logits, below them L{i}/H{h} too; if asked for
/probe_tokens            [windows, T]       int32

S grows by one at each probe. The root carries `schema_version` and the run's settings as attributes, each
metric its `unit` and `definition`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from bottleneck_core.store.metrics import METRICS

SCHEMA_VERSION = 1
SCORE_PARTS = ("sem", "geo")

Head = tuple[int, int]  # (layer, head)
Steps = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class AnalysisError(ValueError):
    """An analysis file that cannot be read, or lacks what was asked for: one sentence that names the file."""


class Layout(Protocol):
    """What a reader needs of an open file, whatever its layout. `rows` is how many rows to trust."""

    def steps(self) -> Steps: ...
    def attn_metrics(self) -> list[str]: ...
    def weight_metrics(self) -> list[str]: ...
    def attn(self, metric: str, rows: int) -> Floats: ...
    def weights(self, metric: str, rows: int) -> Floats: ...
    def maps(self) -> list[Head]: ...
    def map(self, head: Head, row: int) -> Floats: ...
    def map_rows(self, head: Head, rows: int) -> list[int]: ...
    def svd(self, head: Head, rows: int) -> Floats: ...
    def svd_at(self, head: Head, rows: Sequence[int]) -> Floats: ...
    def heads_with_svd(self) -> list[Head]: ...
    def score_parts(self) -> list[str]: ...
    def scores(self, part: str, head: Head, row: int) -> Floats: ...
    def definition(self, metric: str) -> str: ...
    def probe_tokens(self) -> npt.NDArray[np.int32] | None: ...


def head_path(head: Head) -> str:
    """`L3/H0` for layer 3, head 0."""
    return f"L{head[0]}/H{head[1]}"


def heads_in(group: h5py.Group | None) -> list[Head]:
    """The layers and heads that have an `L{i}/H{h}` dataset below the group, sorted."""
    found: list[Head] = []
    for layer_name in group or ():
        layer_match = re.fullmatch(r"L(\d+)", str(layer_name))
        layer = subgroup(group, str(layer_name)) if group and layer_match else None
        if layer_match and layer:
            heads = (re.fullmatch(r"H(\d+)", str(name)) for name in layer)
            found += [(int(layer_match[1]), int(match[1])) for match in heads if match]
    return sorted(found)


def subgroup(parent: h5py.Group, name: str) -> h5py.Group | None:
    """The group of this name, None where there is none."""
    if name not in parent:  # not .get, which takes a damaged entry for a missing one
        return None
    found = parent[name]
    return found if isinstance(found, h5py.Group) else None


def in_metric_order(names: Any) -> list[str]:
    """Names in the order of METRICS, unknown ones at the end."""
    order = {name: position for position, name in enumerate(METRICS)}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def text_of(value: object) -> str:
    """An HDF5 string attribute as str, whether it was stored with fixed or variable length."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def require_own(file: h5py.Group, dataset: h5py.Dataset) -> None:
    """Raise AnalysisError where HDF5 would read the values from another file: it might be any file of this machine."""
    if dataset.external or dataset.is_virtual or dataset.file.filename != file.file.filename:
        raise AnalysisError(f"{dataset.name} lies in another file, which is not read")


def _require_whole(file: h5py.File, dataset: h5py.Dataset) -> None:
    """Raise AnalysisError where stored chunks lie beyond the end of the file: HDF5 reads these as zeros."""
    size = os.fstat(file.id.get_vfd_handle()).st_size
    ends = [0]
    if dataset.chunks is None:
        ends.append((dataset.id.get_offset() or 0) + dataset.id.get_storage_size())
    else:
        dataset.id.chunk_iter(lambda chunk: ends.append(chunk.byte_offset + chunk.size))
    if max(ends) > size:
        raise AnalysisError(f"it is truncated: {dataset.name} extends beyond its {size} bytes")


class RowLayout:
    """Our layout: one row per probe in every dataset."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def steps(self) -> Steps:
        """Steps up to the first that was not written: -1 fills a row whose step never reached the file."""
        steps = np.asarray(self._dataset("steps")[()])
        if steps.ndim != 1 or steps.dtype.kind != "i":
            raise AnalysisError(f"/steps is {steps.dtype} of shape {steps.shape}, not a list of integers")
        unwritten = np.flatnonzero(steps < 0)
        steps = steps[: unwritten[0] if len(unwritten) else None].astype(np.int64)
        if (np.diff(steps) <= 0).any():
            raise AnalysisError("/steps does not increase")
        return steps

    def attn_metrics(self) -> list[str]:
        return in_metric_order(subgroup(self._file, "attn") or ())

    def weight_metrics(self) -> list[str]:
        return in_metric_order(subgroup(self._file, "weights") or ())

    def attn(self, metric: str, rows: int) -> Floats:
        return self._rows(f"attn/{metric}", rows, ndim=3)

    def weights(self, metric: str, rows: int) -> Floats:
        return self._rows(f"weights/{metric}", rows, ndim=2)

    def maps(self) -> list[Head]:
        return heads_in(subgroup(self._file, "maps"))

    def map(self, head: Head, row: int) -> Floats:
        return self._row(f"maps/{head_path(head)}", row)

    def map_rows(self, head: Head, rows: int) -> list[int]:
        dataset = self._dataset(f"maps/{head_path(head)}")
        if dataset.chunks is None:
            return list(range(min(rows, len(dataset))))
        first: set[int] = set()  # rows that were never written have no chunk
        dataset.id.chunk_iter(lambda chunk: first.add(chunk.chunk_offset[0]))
        return sorted(row for start in first for row in range(start, start + dataset.chunks[0]) if row < rows)

    def svd(self, head: Head, rows: int) -> Floats:
        return self._rows(f"svd/{head_path(head)}", rows, ndim=2)

    def svd_at(self, head: Head, rows: Sequence[int]) -> Floats:
        name = f"svd/{head_path(head)}"
        dataset = self._dataset(name)
        if dataset.ndim != 2 or len(dataset) <= max(rows):
            raise AnalysisError(f"/{name} has shape {dataset.shape}, without a row {max(rows)}")
        return np.stack([np.asarray(dataset[row], dtype=np.float32) for row in rows])

    def heads_with_svd(self) -> list[Head]:
        return heads_in(subgroup(self._file, "svd"))

    def score_parts(self) -> list[str]:
        return [part for part in SCORE_PARTS if heads_in(subgroup(self._file, f"{part}_scores"))]

    def scores(self, part: str, head: Head, row: int) -> Floats:
        return self._row(f"{part}_scores/{head_path(head)}", row)

    def definition(self, metric: str) -> str:
        for group in ("attn", "weights"):
            if f"{group}/{metric}" in self._file and "definition" in self._file[f"{group}/{metric}"].attrs:
                return text_of(self._file[f"{group}/{metric}"].attrs["definition"])
        raise AnalysisError(f"there is no metric {metric!r} in it")

    def probe_tokens(self) -> npt.NDArray[np.int32] | None:
        if "probe_tokens" not in self._file:
            return None
        return np.asarray(self._dataset("probe_tokens")[()], dtype=np.int32)

    def _dataset(self, name: str) -> h5py.Dataset:
        if name not in self._file:
            raise AnalysisError(f"there is no /{name} in it")
        dataset = self._file[name]
        if not isinstance(dataset, h5py.Dataset):
            raise AnalysisError(f"/{name} is not a dataset")
        require_own(self._file, dataset)
        if self._file.swmr_mode:
            dataset.id.refresh()  # another handle in this process may have cached an earlier shape
        _require_whole(self._file, dataset)
        return dataset

    def _rows(self, name: str, rows: int, ndim: int) -> Floats:
        dataset = self._dataset(name)
        if dataset.ndim != ndim or len(dataset) < rows:
            raise AnalysisError(f"/{name} has shape {dataset.shape}, which does not fit {rows} steps")
        return np.asarray(dataset[:rows], dtype=np.float32)

    def _row(self, name: str, row: int) -> Floats:
        dataset = self._dataset(name)
        if dataset.ndim != 3 or len(dataset) <= row:
            raise AnalysisError(f"/{name} has shape {dataset.shape}, without a row {row}")
        return np.asarray(dataset[row], dtype=np.float32)
