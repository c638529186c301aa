"""A run to take along: its folder as a zip file without checkpoints, and its events as one table."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from bottleneck_core import Run

_CHECKPOINTS = (".pt", ".dcp")
_CURVES = ("train", "eval", "analysis")


def run_zip(folder: Path) -> bytes:
    """The files at and below `folder` that lie there themselves, without checkpoints and locks, under its name."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in exported_files(folder):
            try:
                archive.write(path, Path(folder.resolve().name, path.relative_to(folder)))
            except (OSError, ValueError):  # gone since it was listed, or older than zip files know
                continue
    return out.getvalue()


def exported_files(folder: Path) -> list[Path]:
    """What `run_zip` holds. Links are left out: they may lead anywhere."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.endswith(_CHECKPOINTS) and not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.endswith((*_CHECKPOINTS, ".lock")) and not name.startswith(".") and not path.is_symlink():
                found.append(path)
    return [path for path in found if path.is_file()]


def events_csv(run: Run) -> str:
    """Train, eval and analysis events in one table: `type`, `step`, then every column that any of them has."""
    frames = {kind: getattr(run, kind) for kind in _CURVES}
    parts = [frame.assign(type=kind) for kind, frame in frames.items() if len(frame)]
    if not parts:
        return "type,step\n"
    table = pd.concat([part.dropna(axis=1, how="all") for part in parts], ignore_index=True)
    table = table.sort_values("step", kind="stable")
    first = ["type", "step", *(name for name in ("wall_time", "time_s", "tokens") if name in table)]
    return table[[*first, *(name for name in table if name not in first)]].to_csv(index=False)
