"""Files that are either the old one or the new one, also when the machine loses power in between.

A file is written under a temporary name in the same folder, synced, and renamed over the target; then the
folder is synced, because the rename itself is only durable once the directory entry is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what the block wrote there replaces `path` when the block ends.

    The temporary name keeps the suffix, which some writers (np.save, savefig) go by. If the block raises, the
    target stays as it was and the temporary file is removed. The folder must exist.
    """
    target = Path(os.path.realpath(path))  # a link stays a link: its target is what gets replaced
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(6)}.tmp{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace the content of `path` with `data`, or leave it untouched when anything fails."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace the content of `path` with `text` as UTF-8, line ends as they are."""
    atomic_write_bytes(path, text.encode("utf-8"))


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and its rename needs no second sync
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
