"""Where runs are and what their files' times say: one look into each folder, quick enough for ten thousand of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bottleneck_core.errors import UserError
from bottleneck_core.store.layout import MARKS, MAX_DEPTH, SKIPPED
from bottleneck_core.store.lock import JOB_LOCK_NAME, LOCK_NAME, is_locked

# What a row of the table depends on.
_SIGNED = ("train.jsonl", "config.json", "manifest.json", "summary.md", "job.json", "analysis.h5")
_NOTES = "notes.json"
_LOCKS = (LOCK_NAME, JOB_LOCK_NAME)
_MARKS = frozenset(MARKS)
_WANTED = {*_SIGNED, _NOTES, *_LOCKS, *MARKS}
_ABSENT = (-1, -1)

Signature = list[int]


class FoundRun(NamedTuple):
    """A run folder: `signature` and `notes` are sizes and times of its files, `real` its path without links."""

    path: str
    id: str
    real: str
    signature: Signature
    notes: Signature
    locks: tuple[str, ...]

    @property
    def event_bytes(self) -> int:
        """The size of its event file."""
        return max(self.signature[0], 0)

    @property
    def is_busy(self) -> bool:
        """Whether a trainer or the supervisor of its job is on the folder."""
        return any(is_locked(self.path, name) for name in self.locks)


def scan_runs(root: str | os.PathLike[str]) -> list[FoundRun]:
    """Runs at `root` and up to three levels below, as `find_runs` finds them. Raises UserError for no such folder."""
    root = os.fspath(Path(root))
    if not os.path.isdir(root):
        raise UserError(f"{root} is no folder: name the folder that holds your runs")
    return list(_scan(root, "", os.path.realpath(root), MAX_DEPTH))


def _scan(path: str, run_id: str, real: str, depth: int) -> Iterator[FoundRun]:
    files: dict[str, os.DirEntry[str]] = {}
    folders: list[os.DirEntry[str]] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name in _WANTED:
                    files[name] = entry
                elif depth and name[0] != "." and name.lower() not in SKIPPED and entry.is_dir():
                    folders.append(entry)
    except OSError:  # no permission, or gone in the meantime
        return
    if any(files[name].is_file() for name in _MARKS.intersection(files)):
        yield FoundRun(
            path=path,
            id=run_id or os.path.basename(real),
            real=real,
            signature=[number for name in _SIGNED for number in _stamp(files.get(name))],
            notes=list(_stamp(files.get(_NOTES))),
            locks=tuple(name for name in _LOCKS if name in files),
        )
    for entry in folders:
        inside = os.path.realpath(entry.path) if entry.is_symlink() else f"{real}/{entry.name}"
        yield from _scan(entry.path, f"{run_id}/{entry.name}" if run_id else entry.name, inside, depth - 1)


def _stamp(entry: os.DirEntry[str] | None) -> tuple[int, int]:
    """Size and time of the last change in ns; -1 for what is not there."""
    if entry is None:
        return _ABSENT
    try:
        status = entry.stat()
    except OSError:
        return _ABSENT
    return status.st_size, status.st_mtime_ns
