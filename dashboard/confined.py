"""Nothing outside of the configured folders is shown: links and `..` are followed before it is decided.

A folder of runs may come from elsewhere, unpacked from an archive or written by a colleague, with a `summary.md` that
is a link to somebody's private file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from bottleneck_core.store.layout import RunPaths

_NAMES = frozenset(path.name for path in RunPaths("").all) | {"last.dcp"}
_KEPT = 20_000


def real_roots(roots: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Where the roots really are: what `inside` compares with."""
    return tuple(os.path.realpath(root) for root in roots)


def inside(path: str | os.PathLike[str], real: tuple[str, ...]) -> bool:
    """Whether `path`, its links followed, lies at or below one of the real roots."""
    found = Path(os.path.realpath(path))
    return any(found.is_relative_to(root) for root in real)


def run_inside(folder: str | os.PathLike[str], real: tuple[str, ...]) -> bool:
    """Whether a run's folder and all its files of known names lie below one of the real roots."""
    try:
        changed = os.stat(folder).st_mtime_ns  # of the folder: new, renamed and replaced entries change it
    except OSError:  # gone since it was listed
        return False
    return _run_inside(os.fspath(folder), changed, real)


@lru_cache(maxsize=_KEPT)
def _run_inside(folder: str, changed: int, real: tuple[str, ...]) -> bool:
    del changed  # part of the key alone
    try:
        with os.scandir(folder) as entries:
            links = [entry.path for entry in entries if entry.name in _NAMES and entry.is_symlink()]
    except OSError:
        return False
    return all(inside(path, real) for path in (folder, *links))
