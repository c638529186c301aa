"""Runs that were put away: archived or deleted, in a hidden folder of their root until somebody restores them.

`ROOT/.archive/<time>/<id>` and `ROOT/.trash/<time>/<id>`. A run is moved by one rename, so it is in one place or in the
other, and no reader of runs looks into hidden folders. Nothing here erases anything.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from bottleneck_core.errors import UserError
from bottleneck_core.store.layout import find_runs, is_run, next_free_id, run_status
from bottleneck_core.store.lock import is_busy

Shelf = Literal["archive", "trash"]
SHELVES: tuple[Shelf, ...] = ("archive", "trash")
_TIME = "%Y%m%dT%H%M%S.%f"


@dataclass(frozen=True, kw_only=True)
class PutAway:
    """A run that was put away: its id below `root`, where it lies now, and when it came there (local time)."""

    id: str
    root: Path
    shelf: Shelf
    path: Path
    time: datetime


def put_away(folder: str | os.PathLike[str], root: str | os.PathLike[str], shelf: Shelf) -> PutAway:
    """Moves a run folder to the shelf of its root.

    Raises UserError for what is no run below the root, is trained or waits for that, or holds other runs, and where the
    folder cannot be moved.
    """
    root, folder = Path(root), Path(folder)
    inside = _inside(folder, root)
    if not is_run(folder):
        raise UserError(f"{folder} is no run folder any more: look at the table again")
    status = run_status(folder)
    if status in ("running", "queued"):
        raise UserError(f"{inside} is {status}: stop it first")
    if len(find_runs(folder)) > 1:
        raise UserError(f"{inside} holds other runs: put those away first")
    now = datetime.now()
    place = root / f".{shelf}" / now.strftime(_TIME)
    target = place / inside
    try:
        target.parent.mkdir(parents=True)
        os.rename(folder, target)
    except OSError as error:
        _remove_empty(target.parent, root)
        raise UserError(f"{inside} cannot be moved ({error.strerror}): check the rights of {root}") from None
    if is_busy(target):  # a trainer came between the look and the move
        os.rename(target, folder)
        _remove_empty(target.parent, root)
        raise UserError(f"{inside} is running: stop it first")
    return PutAway(id=inside.as_posix(), root=root, shelf=shelf, path=target, time=now)


def restore(run: PutAway) -> Path:
    """Moves a run back to where it was; under the next free id where that is taken. Returns its folder.

    Raises UserError where it is gone or cannot be moved.
    """
    if not is_run(run.path):
        raise UserError(f"{run.id} is not in the {run.shelf} any more: look at the list again")
    target = run.root / next_free_id(run.root, run.id)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(run.path, target)
    except OSError as error:
        raise UserError(f"{run.id} cannot be moved back ({error.strerror}): check the rights of {run.root}") from None
    _remove_empty(run.path.parent, run.root)
    return target


def put_away_runs(root: str | os.PathLike[str], most: int | None = None) -> list[PutAway]:
    """What lies on the shelves of a root, the newest first; of each shelf the newest `most` places."""
    root = Path(root)
    found = []
    for shelf in SHELVES:
        try:
            places = sorted(os.scandir(root / f".{shelf}"), key=lambda entry: entry.name, reverse=True)[:most]
        except OSError:  # nothing was put away yet
            continue
        for place in places:
            with suppress(ValueError):  # not of ours
                time = datetime.strptime(place.name, _TIME)
                found += [
                    PutAway(id=path.relative_to(place.path).as_posix(), root=root, shelf=shelf, path=path, time=time)
                    for path in find_runs(place.path)
                ]
    return sorted(found, key=lambda run: run.time, reverse=True)


def _inside(folder: Path, root: Path) -> Path:
    """The folder's path below the root, links and dots resolved but for the folder itself."""
    real_root = Path(os.path.realpath(root))
    real = Path(os.path.realpath(folder.parent)) / folder.name
    if folder.name in ("", "..") or not real.is_relative_to(real_root) or real == real_root:
        raise UserError(f"{folder} is no run below {root}: only runs inside of it can be put away")
    return real.relative_to(real_root)


def _remove_empty(folder: Path, root: Path) -> None:
    """The folders that a move left empty, up to the shelf's."""
    with suppress(OSError):
        while folder.parent != root and folder != root:
            folder.rmdir()
            folder = folder.parent
