"""Reads analysis.h5, ours or foreign, also while a trainer writes it and after one was killed.

Each call opens the file, reads and closes it, or uses the handle of a surrounding `with` block. All files
are opened without HDF5's file locks: see `bottleneck_core.store.analysis`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import numpy.typing as npt
from h5py._objects import phil  # the lock around all of h5py's calls into HDF5

from bottleneck_core.store.analysis_foreign import StepGroups
from bottleneck_core.store.analysis_layout import (
    AnalysisError,
    Floats,
    Head,
    Layout,
    RowLayout,
    Steps,
    text_of,
)

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_READ_ATTEMPTS = 27


@contextlib.contextmanager
def sentences(path: Path) -> Iterator[None]:
    """Turn whatever reading a file can raise into one AnalysisError that names the file."""
    try:
        yield
    except AnalysisError as error:
        raise AnalysisError(f"{path}: {error}") from None
    except Exception as error:
        # h5py passes on what HDF5 trips over in a damaged file as OSError, RuntimeError, KeyError,
        # ValueError, MemoryError and others, none of them documented
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise AnalysisError(f"{path}: cannot be read: {reason}") from error


def open_hdf5(path: Path) -> h5py.File:
    """Open for reading; in SWMR mode where the file is flagged as having a writer, live or killed.

    HDF5 opens a flagged file in SWMR mode only. Any other opens in both modes, but in SWMR mode a truncated
    file is not noticed and reads as zeros.
    """
    if not os.path.isfile(path):
        raise AnalysisError("there is no such file")
    return _open_swmr(path) if _has_swmr_flag(path) else h5py.File(path, "r", locking=False)


def _has_swmr_flag(path: Path) -> bool:
    """Bit 2 of the consistency flags, byte 11 of the superblock from its version 3 on (byte 8)."""
    with open(path, "rb") as file:
        start = file.read(12)
    return len(start) == 12 and start[:8] == _SIGNATURE and start[8] >= 3 and bool(start[11] & 4)


def _open_swmr(path: Path) -> h5py.File:
    """Open a flagged file, and give up on metadata whose checksum stays wrong.

    HDF5 rereads such metadata, as the writer may be in the middle of it, 100 times with a pause that starts
    at 1 ns and doubles: on a damaged file, such as the copy of a live one, that is for ever. 27 times are
    0.13 s. h5py does not expose the setting; where the C function is not found, HDF5's own number stays.
    """
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_file_locking(False, True)
    with contextlib.suppress(AttributeError, OSError), phil:
        set_attempts = ctypes.PyDLL(h5py.h5p.__file__).H5Pset_metadata_read_attempts
        set_attempts.argtypes = [ctypes.c_int64, ctypes.c_uint]
        set_attempts(access.id, _READ_ATTEMPTS)
    flags = h5py.h5f.ACC_RDONLY | h5py.h5f.ACC_SWMR_READ
    return h5py.File(h5py.h5f.open(os.fsencode(path), flags, fapl=access))


def layout_of(file: h5py.File) -> Layout:
    """The layout of an open file. Raises AnalysisError for an HDF5 file of neither kind."""
    if "steps" in file:
        return RowLayout(file)
    if "analysis" in file:
        return StepGroups(file)
    raise AnalysisError("an HDF5 file, but with neither /steps nor /analysis/step_N in it")


class AnalysisFile:
    """One analysis file as of the last `refresh()`: later rows are not shown, so all arrays fit `steps`.

    Raises AnalysisError, and nothing else, for a file that is missing, torn or foreign, for a metric,
    layer, head or row that is not there, and where the file was replaced by one with other steps since the
    last refresh.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._steps: Steps = np.empty(0, dtype=np.int64)
        self.refresh()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> AnalysisFile:
        """Read the steps of the file; no handle stays open."""
        return cls(path)

    def refresh(self) -> bool:
        """Take in rows that were added since. True where the steps have changed."""
        with sentences(self.path), self._opened() as layout:
            steps = layout.steps()
        changed = not np.array_equal(steps, self._steps)
        self._steps = steps
        return changed

    def __enter__(self) -> AnalysisFile:
        """Keep one handle for several reads. It holds no lock and shows the file that was there on entry."""
        with sentences(self.path):
            self._file = open_hdf5(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        file, self._file = self._file, None
        if file is not None:
            with sentences(self.path):
                file.close()

    @property
    def steps(self) -> Steps:
        """Training step of each row, [S], increasing."""
        return self._steps.copy()

    @property
    def attn_metrics(self) -> list[str]:
        """Metrics that have a value per layer and head."""
        with self._reading() as layout:
            return layout.attn_metrics()

    @property
    def weight_metrics(self) -> list[str]:
        """Metrics that have a value per layer."""
        with self._reading() as layout:
            return layout.weight_metrics()

    @property
    def attrs(self) -> dict[str, object]:
        """Attributes of the whole file: `schema_version`, `config` (JSON) and the probe's settings."""
        with self._reading():
            assert self._file is not None
            pairs = [(name, value) for name, value in self._file.attrs.items()]
            return {name: text_of(value) if isinstance(value, bytes) else value for name, value in pairs}

    @property
    def probe_tokens(self) -> npt.NDArray[np.int32] | None:
        """Token ids of the probe windows, [windows, T]; None where not stored."""
        with self._reading() as layout:
            return layout.probe_tokens()

    def attn(self, metric: str) -> Floats:
        """One attention metric, [S, layer, head], NaN where not measured."""
        with self._reading() as layout:
            return layout.attn(metric, len(self._steps))

    def weights(self, metric: str) -> Floats:
        """One weight metric, [S, layer]."""
        with self._reading() as layout:
            return layout.weights(metric, len(self._steps))

    def maps(self) -> list[Head]:
        """(layer, head) of each stored attention map."""
        with self._reading() as layout:
            return layout.maps()

    def map(self, layer: int, head: int, step: int | None = None) -> Floats:
        """Attention weights of probe window 0, [T, T], query by key, without the null column.

        `step` is an index into `steps` (-1 is the last), not a training step; None is the last.
        """
        with self._reading() as layout:
            return layout.map((layer, head), self._row(step))

    def map_rows(self, layer: int, head: int) -> list[int]:
        """The probes at which this head's map is stored, as indices into `steps`; a thinned file keeps few."""
        with self._reading() as layout:
            return layout.map_rows((layer, head), len(self._steps))

    def svd(self, layer: int, head: int) -> Floats:
        """Singular values of one head's maps, descending, mean over the probe windows, [S, T]."""
        with self._reading() as layout:
            return layout.svd((layer, head), len(self._steps))

    def svd_at(self, layer: int, head: int, steps: Sequence[int]) -> Floats:
        """As `svd`, of some probes only, [len(steps), T]; `steps` are indices as in `map`, at least one."""
        with self._reading() as layout:
            return layout.svd_at((layer, head), [self._row(step) for step in steps])

    def heads_with_svd(self) -> list[Head]:
        """(layer, head) of all stored singular values."""
        with self._reading() as layout:
            return layout.heads_with_svd()

    @property
    def score_parts(self) -> list[str]:
        """Which scaled logits are stored: "sem", "geo", or none."""
        with self._reading() as layout:
            return layout.score_parts()

    def scores(self, part: str, layer: int, head: int, step: int | None = None) -> Floats:
        """Scaled logits of one part ("sem" or "geo") of probe window 0, [T, T]; `step` as in `map`."""
        with self._reading() as layout:
            return layout.scores(part, (layer, head), self._row(step))

    def definition(self, metric: str) -> str:
        """What a metric of this file means, as the file says it."""
        with self._reading() as layout:
            return layout.definition(metric)

    def _row(self, index: int | None) -> int:
        count = len(self._steps)
        row = count - 1 if index is None else index + count if index < 0 else index
        if not 0 <= row < count:
            raise AnalysisError(f"row {-1 if index is None else index} was asked for, but it has {count}")
        return row

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Layout]:
        if self._file is not None:
            yield layout_of(self._file)
            return
        with open_hdf5(self.path) as self._file:
            try:
                yield layout_of(self._file)
            finally:
                self._file = None

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Layout]:
        with sentences(self.path), self._opened() as layout:
            if not np.array_equal(layout.steps()[: len(self._steps)], self._steps):
                raise AnalysisError("it was replaced by one with other steps; refresh() before reading on")
            yield layout
