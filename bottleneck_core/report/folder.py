"""A report's folder, which is the old one or the new one and never half of either."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bottleneck_core.errors import UserError

from .files import MARK

KIND = "bottleneck_core report"


def check_folder(out: Path) -> None:
    """Raises UserError where `out` holds anything but a report that may be replaced."""
    if not os.path.lexists(out):
        return
    if not out.is_dir():
        raise UserError(f"--out {out} is a file: name a folder for the report")
    present = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_symlink() or not path.is_dir()}
    if not present:
        return
    known = _files_of(out)
    if known is None:
        raise UserError(f"--out {out} holds something else than a report: name a new folder, or empty this one")
    others = sorted(present - known)
    if others:
        raise UserError(f"--out {out} holds {others[0]}, which no report wrote: move it away, or name another folder")


def write_folder(out: Path, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
    """`files` by path below `out`, and `about` as the mark of a report. Replaces an earlier report as a whole.

    Raises UserError where `out` holds something else or cannot be written.
    """
    check_folder(out)
    target = Path(os.path.realpath(out))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    old = temporary.with_suffix(".old")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mark = {"kind": KIND, **about, "files": sorted([*files, MARK])}
        whole = {**files, MARK: (json.dumps(mark, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()}
        for name, content in whole.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if target.exists():
            os.rename(target, old)
        os.rename(temporary, target)
    except OSError as error:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise UserError(f"--out {out} cannot be written: {error.strerror or error}") from None
    finally:
        for rest in (temporary, old):
            with contextlib.suppress(OSError):
                shutil.rmtree(rest)


def _files_of(folder: Path) -> set[str] | None:
    """The files that the report in a folder wrote; None where there is none."""
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        names = mark["files"] if mark["kind"] == KIND else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {str(name) for name in names} if isinstance(names, list) else None
