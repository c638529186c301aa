"""A smaller copy of analysis.h5: all metrics, and the attention maps of a few probes.

Maps are most of a file: 54 kB of 56 kB a probe and head at 256 tokens. Rows of maps that are left out read as NaN, and
`AnalysisFile.map_rows` says which are there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bottleneck_core.store.analysis_layout import AnalysisError, RowLayout, require_own
from bottleneck_core.store.analysis_reader import layout_of, open_hdf5, sentences
from bottleneck_core.store.atomic import atomic_path

_SMALL = {"compression": "gzip", "compression_opts": 9, "shuffle": True}


def thin_analysis(source: str | os.PathLike[str], target: str | os.PathLike[str], *, maps: int) -> None:
    """Copy an analysis file of our layout with the maps and logits of `maps` probes, evenly spaced, ends included.

    The copy is read as any other and not continued. Raises AnalysisError for a file that cannot be read, ValueError for
    a negative number.
    """
    if maps < 0:
        raise ValueError(f"maps must be >= 0, got {maps}")
    with sentences(Path(source)), open_hdf5(Path(source)) as old:
        layout = layout_of(old)
        if not isinstance(layout, RowLayout):
            raise AnalysisError("it was not written by this program and cannot be thinned")
        rows = len(layout.steps())
        kept = np.unique(np.linspace(0, rows - 1, maps).round().astype(int)) if rows and maps else np.empty(0, int)
        with atomic_path(target) as temporary, h5py.File(temporary, "w", libver="latest") as new:
            new.attrs.update(old.attrs.items())
            old.visititems(lambda name, item: _copy(new, str(name), item, rows, kept))


def _copy(new: h5py.File, name: str, item: Any, rows: int, kept: np.ndarray) -> None:
    if not isinstance(item, h5py.Dataset):
        return
    require_own(item.file, item)
    grows = item.maxshape is not None and item.maxshape[0] is None
    shape = (rows if grows else len(item), *item.shape[1:])
    if name.startswith("maps/") or "_scores/" in name:
        dataset = new.create_dataset(name, shape, item.dtype, chunks=(1, *shape[1:]), fillvalue=np.nan, **_SMALL)
        for row in kept:
            dataset[row] = item[row]
    else:
        dataset = new.create_dataset(name, data=item[: shape[0]], **(_SMALL if shape[0] else {}))
    dataset.attrs.update(item.attrs.items())
