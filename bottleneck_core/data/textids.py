"""Token files in text form: whitespace-separated decimal ids, parsed once, then mapped from a cached copy.

A hundred million ids are 500 MB of text. One core parses up to 35 million ids a second, so the first start takes some
seconds, and the later ones nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import filelock
import numpy as np

from bottleneck_core.data.cache import cache_folder
from bottleneck_core.errors import UserError
from bottleneck_core.store.atomic import atomic_path

_CHUNK_BYTES = 1 << 24
_LONGEST_TOKEN = 1 << 16  # bytes without white space before giving up: binary files have no end of them
_LARGEST_ID = (1 << 32) - 1
_ID_DTYPE = np.dtype(np.uint32)
_WHITE_SPACE = (b" ", b"\n", b"\t", b"\r", b"\v", b"\f")
_PLAIN = b"0123456789" + b"".join(_WHITE_SPACE)
_TOKEN = re.compile(rb"[^ \t\n\r\v\f]+")


def map_text_ids(path: Path) -> np.ndarray:
    """The ids of a text file as a mapped uint32 array. Raises UserError for the first token that is no id.

    The parsed copy lies in the user's cache under the file's path, size and modification time; an older copy
    of the same file is dropped.
    """
    stat = path.stat()
    of_path = hashlib.sha1(str(path.resolve()).encode("utf-8", errors="surrogateescape")).hexdigest()
    folder = cache_folder("tokens")
    cached = folder / f"{of_path}.{stat.st_size}.{stat.st_mtime_ns}.bin"
    if not cached.is_file():
        with filelock.FileLock(folder / f"{of_path}.lock"):  # of eight ranks one parses, the others wait
            if not cached.is_file():
                for outdated in folder.glob(f"{of_path}.*.bin"):
                    outdated.unlink(missing_ok=True)
                with atomic_path(cached) as temporary, open(temporary, "wb") as file:
                    for ids in _parse(path):
                        file.write(ids.tobytes())
    if cached.stat().st_size == 0:
        raise UserError(f"{path} holds no token ids: prepare a token file from text with 'prepare files'")
    return np.memmap(cached, dtype=_ID_DTYPE, mode="r")


def _parse(path: Path) -> Iterator[np.ndarray]:
    position, line, rest = 0, 1, b""
    with open(path, "rb") as file:
        while True:
            block = file.read(_CHUNK_BYTES)
            chunk = rest + block
            # A token may go on in the next block: cut behind the last white space, keep the rest.
            cut = max(map(chunk.rfind, _WHITE_SPACE)) + 1 if block else len(chunk)
            chunk, rest = chunk[:cut], chunk[cut:]
            ids = _parse_chunk(chunk)
            if ids is None:
                _refuse(path, chunk, position, line)
            yield ids
            if not block:
                return
            position += len(ids)
            line += chunk.count(b"\n")
            if len(rest) > _LONGEST_TOKEN:
                _refuse(path, rest, position, line)


def _parse_chunk(chunk: bytes) -> np.ndarray | None:
    """The ids of a chunk, None where something in it is no id."""
    if chunk.translate(None, _PLAIN):
        return None
    chunk = chunk.strip()
    if not chunk:  # np.fromstring makes a 0 of white space
        return np.empty(0, _ID_DTYPE)
    ids = np.fromstring(chunk, dtype=np.int64, sep=" ")  # what overflows is clipped to the largest int64
    return None if ids.max() > _LARGEST_ID else ids.astype(_ID_DTYPE)


def _refuse(path: Path, chunk: bytes, position: int, line: int) -> NoReturn:
    """Name the first token of `chunk` that is no id; `position` and `line` are those of the chunk's start."""
    for index, match in enumerate(_TOKEN.finditer(chunk)):
        token = match.group()
        if token.isdigit() and len(token) <= 20 and int(token) <= _LARGEST_ID:
            continue
        line += chunk.count(b"\n", 0, match.start())
        where = f"{path}: token {_shown(token)} at position {position + index} (line {line})"
        if re.fullmatch(rb"-\d+", token):
            raise UserError(f"{where} is negative: token ids count from 0")
        raise UserError(
            f"{where} is no token id: a text token file holds whitespace-separated ids, "
            f"text itself is first made into one with 'prepare files {path}'"
        )
    raise AssertionError("a chunk that does not parse has a token that is no id")


def _shown(token: bytes) -> str:
    text = token[:40].decode("utf-8", errors="replace")
    return repr(text + "…" if len(token) > 40 else text)
