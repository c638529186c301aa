"""Writes analysis.h5, so that it can be read at any moment and survives the death of its writer.

The layout is described in `bottleneck_core.store.analysis_layout`; `AnalysisFile` reads it.

The file is in HDF5's single-writer-multiple-reader mode from the moment it has its name. All datasets are
created under a temporary name, the mode is switched on, and the file is renamed into place: one killed
between creation and the mode would open in no mode at all. Each probe is flushed before its step is written
and flushed, so that readers who trust the rows below len(/steps) see whole rows only. An existing file is
never opened for writing: `resume` copies rows into a new one.

HDF5's own file locks are off on both sides. They add nothing: run.lock admits one trainer, it writes only
files that it created, and readers cannot write. And they would do harm: a page that reads a foreign file
would hold a shared lock on it, which makes the foreign program's next open for writing fail.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from bottleneck_core.store.analysis_layout import (
    SCHEMA_VERSION,
    SCORE_PARTS,
    AnalysisError,
    Head,
    RowLayout,
    head_path,
    text_of,
)
from bottleneck_core.store.analysis_reader import AnalysisFile, layout_of, open_hdf5, sentences
from bottleneck_core.store.atomic import atomic_path
from bottleneck_core.store.metrics import METRICS

__all__ = ["AnalysisError", "AnalysisFile", "AnalysisWriter", "Head"]

_CHUNK_BYTES = 16_384  # of small rows: few chunks to read, little to rewrite at each probe

# Measured on ten 256 x 256 maps of a trained model, size and time to write one: gzip 1 with shuffle 0.38 in
# 2.3 ms, lzf with shuffle 0.43 in 2.0 ms, gzip 4 with shuffle 0.37 in 3.0 ms, none 0.35 ms. lzf exists in
# h5py only.
_COMPRESSION = {"compression": "gzip", "compression_opts": 1, "shuffle": True}


class AnalysisWriter:
    """Appends one row per probe. A context manager; one writer a file."""

    def __init__(self, file: h5py.File) -> None:
        """For `create` and `resume`: takes over a file that is in SWMR mode."""
        self._file = file
        self._steps = _steps_of(file)
        self._rows = {name: dataset for name, dataset in _datasets(file).items() if _grows(dataset)}
        del self._rows["steps"]
        self._last_step = int(self._steps[-1]) if len(self._steps) else -1

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        n_layer: int,
        n_head: int,
        attn_metrics: Iterable[str],
        weight_metrics: Iterable[str],
        chosen: Iterable[Head] = (),
        map_size: int = 0,
        save_scores: bool = False,
        probe_tokens: npt.ArrayLike | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> AnalysisWriter:
        """A new file without rows, which replaces any file of this name once it is complete.

        `chosen` are the (layer, head) pairs whose maps and singular values are stored, `map_size` is T;
        with `save_scores` their semantic and geometric logits are stored too. `probe_tokens` is [windows,
        T]. `attrs` become attributes of the file; dicts, lists and None are stored as JSON. Raises
        ValueError for a metric that METRICS does not define, or a chosen head that the model does not have.
        """
        chosen = sorted({(int(layer), int(head)) for layer, head in chosen})
        outside = [pair for pair in chosen if not (0 <= pair[0] < n_layer and 0 <= pair[1] < n_head)]
        if outside or (chosen and map_size < 1):
            raise ValueError(f"chosen heads {outside or chosen} with map size {map_size} do not fit the model")
        attn_metrics, weight_metrics = list(attn_metrics), list(weight_metrics)
        _check_defined(attn_metrics, "layer_head")
        _check_defined(weight_metrics, "layer")

        def fill(file: h5py.File) -> None:
            for name, value in {"schema_version": SCHEMA_VERSION, **(attrs or {})}.items():
                file.attrs[name] = _attribute(value)
            if probe_tokens is not None:
                file["probe_tokens"] = np.asarray(probe_tokens, dtype=np.int32)
            # -1 shows a row whose length reached the disk and whose value did not
            file.create_dataset("steps", (0,), np.int64, maxshape=(None,), chunks=(1024,), fillvalue=-1)
            for metric in attn_metrics:
                _describe(_create(file, f"attn/{metric}", (n_layer, n_head), np.float32), metric)
            for metric in weight_metrics:
                _describe(_create(file, f"weights/{metric}", (n_layer,), np.float32), metric)
            for head in chosen:
                _create(file, f"svd/{head_path(head)}", (map_size,), np.float32)
                for group in ("maps", *(f"{part}_scores" for part in SCORE_PARTS if save_scores)):
                    _create(file, f"{group}/{head_path(head)}", (map_size, map_size), np.float16)

        return cls(_publish(Path(path), fill))

    @classmethod
    def resume(cls, path: str | os.PathLike[str], *, keep_through_step: int) -> AnalysisWriter:
        """Continue a file after its rows of steps <= `keep_through_step`; later rows are dropped.

        The rows are copied into a new file that then takes the name, so the old one stays whole until the
        last moment. Raises AnalysisError where the file is missing, damaged or not in our layout; nothing
        is changed then.
        """
        path = Path(path)
        with sentences(path):
            source = open_hdf5(path)
        with contextlib.closing(source):
            with sentences(path):
                layout = layout_of(source)
                if not isinstance(layout, RowLayout) or "schema_version" not in source.attrs:
                    raise AnalysisError("it was not written by this program and cannot be continued")
                steps = layout.steps()
            rows = int(np.searchsorted(steps, keep_through_step, side="right"))
            return cls(_publish(path, lambda file: _copy(source, file, rows, path)))

    def append(
        self,
        step: int,
        *,
        attn: Mapping[str, npt.ArrayLike] | None = None,
        weights: Mapping[str, npt.ArrayLike] | None = None,
        maps: Mapping[Head, npt.ArrayLike] | None = None,
        svd: Mapping[Head, npt.ArrayLike] | None = None,
        scores: Mapping[str, Mapping[Head, npt.ArrayLike]] | None = None,
    ) -> None:
        """Write one probe: the row is on disk and visible to readers when this returns.

        `attn` maps metrics to [layer, head], `weights` to [layer]; `maps` maps (layer, head) to [T, T],
        `svd` to [T]; `scores` maps "sem" and "geo" to such dicts of [T, T]. What is not given is NaN in
        this row. Raises ValueError, and writes nothing, where the file has no such dataset, a shape
        differs, or `step` does not come after the last one.
        """
        if step <= self._last_step:
            raise ValueError(f"step {step} does not come after step {self._last_step}")
        given = {f"attn/{metric}": value for metric, value in (attn or {}).items()}
        given |= {f"weights/{metric}": value for metric, value in (weights or {}).items()}
        given |= {f"maps/{head_path(head)}": value for head, value in (maps or {}).items()}
        given |= {f"svd/{head_path(head)}": value for head, value in (svd or {}).items()}
        for part, of_heads in (scores or {}).items():
            given |= {f"{part}_scores/{head_path(head)}": value for head, value in of_heads.items()}
        row = {name: self._fitted(name, value) for name, value in given.items()}

        count = len(self._steps)
        for name, dataset in self._rows.items():
            dataset.resize(count + 1, axis=0)
            if name in row:
                dataset[count] = row[name]
        self._file.flush()
        self._steps.resize(count + 1, axis=0)
        self._steps[count] = step
        self._file.flush()
        os.fsync(self._file.id.get_vfd_handle())
        self._last_step = step

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> AnalysisWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fitted(self, name: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
        if name not in self._rows:
            raise ValueError(f"the file has no /{name}; it was created with {sorted(self._rows)}")
        dataset = self._rows[name]
        with np.errstate(over="ignore"):  # a logit beyond half precision becomes infinite
            array = np.asarray(value).astype(dataset.dtype)
        if array.shape != dataset.shape[1:]:
            raise ValueError(f"/{name} takes {dataset.shape[1:]} a row, got {array.shape}")
        return array


def _publish(path: Path, fill: Callable[[h5py.File], None]) -> h5py.File:
    """A file in SWMR mode that has its name only when `fill` is done and all of it is on disk."""
    for leftover in path.parent.glob(f".{path.stem}.*.tmp{path.suffix}"):
        leftover.unlink()  # of a writer that was killed before its rename; there is one writer a folder
    file: h5py.File | None = None
    try:
        with atomic_path(path) as temporary:
            file = h5py.File(temporary, "w", libver="latest", locking=False)
            fill(file)
            file.swmr_mode = True
            file.flush()
    except BaseException:
        if file is not None:
            file.close()
        raise
    return file


def _create(file: h5py.File, name: str, row_shape: tuple[int, ...], dtype: npt.DTypeLike) -> h5py.Dataset:
    """A dataset without rows. Matrices are stored one a chunk, compressed; small rows share a chunk."""
    row_bytes = int(np.prod(row_shape)) * np.dtype(dtype).itemsize
    matrix = np.dtype(dtype) == np.float16
    return file.create_dataset(
        name,
        (0, *row_shape),
        dtype,
        maxshape=(None, *row_shape),
        chunks=(1 if matrix else max(1, _CHUNK_BYTES // row_bytes), *row_shape),
        fillvalue=np.nan,
        **(_COMPRESSION if matrix else {}),
    )


def _copy(source: h5py.File, target: h5py.File, rows: int, path: Path) -> None:
    """Copy the whole file but only the first `rows` rows. Errors of reading name the old file, `path`."""
    with sentences(path):
        datasets = _datasets(source)
        attributes = _attributes(source)
    target.attrs.update(attributes)
    for name, old in datasets.items():
        with sentences(path):
            size = rows if _grows(old) else len(old)
            if len(old) < size:
                raise AnalysisError(f"/{name} has {len(old)} rows for {size} steps")
            attributes = _attributes(old)
        new = target.create_dataset_like(name, old, shape=(size, *old.shape[1:]))
        new.attrs.update(attributes)
        block = old.chunks[0] if old.chunks else max(1, size)
        for start in range(0, size, block):
            stop = min(start + block, size)
            with sentences(path):
                values = old[start:stop]
            new[start:stop] = values


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    found: dict[str, h5py.Dataset] = {}
    file.visititems(lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {}))
    return found


def _grows(dataset: h5py.Dataset) -> bool:
    return dataset.maxshape is not None and dataset.maxshape[0] is None


def _steps_of(file: h5py.File) -> h5py.Dataset:
    steps = file["steps"]
    assert isinstance(steps, h5py.Dataset)
    return steps


def _describe(dataset: h5py.Dataset, metric: str) -> None:
    dataset.attrs["unit"] = _attribute(METRICS[metric].unit)
    dataset.attrs["definition"] = _attribute(METRICS[metric].definition)


def _check_defined(metrics: list[str], per: str) -> None:
    unknown = [name for name in metrics if name not in METRICS or METRICS[name].per != per]
    if unknown:
        raise ValueError(f"METRICS defines no {unknown} per {per}")


def _attributes(item: h5py.File | h5py.Dataset) -> dict[str, Any]:
    pairs = item.attrs.items()
    return {name: _attribute(text_of(value) if isinstance(value, bytes) else value) for name, value in pairs}


def _attribute(value: Any) -> Any:
    """Strings with fixed length: SWMR forbids variable-length data, which lives in a heap of its own."""
    if value is None or isinstance(value, Mapping | list | tuple):
        value = json.dumps(value)
    if isinstance(value, str):
        encoded = value.encode("utf-8")
        return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(1, len(encoded))))
    return value
