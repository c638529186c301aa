"""Sources of text: where a corpus comes from, as documents one after the other.

Files come in an order given by a hash of their path, not by name: the validation split is the tail of the
token file, and under alphabetical order it would be another kind of text than the head.
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import os
import platform
import sysconfig
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bottleneck_core.errors import UserError

SOURCE_KINDS = ("python-stdlib", "files", "fineweb-edu")

FINEWEB_DATASET = "HuggingFaceFW/fineweb-edu"
FINEWEB_SAMPLE = "sample-10BT"

# Not the library: installed packages, its tests (broken files on purpose among them), the bundled editor,
# caches.
_NOT_LIBRARY = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "__pycache__",
    "_bundled",
}


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a corpus and the name it has there (a relative path, a dataset's id)."""

    text: str
    name: str


class Source(Protocol):
    """A corpus. Iterating twice gives the same documents twice."""

    kind: str
    resumable: bool  # whether its documents are the same on another day, so that a broken preparation can go on

    def documents(self, start: int = 0, position: dict[str, Any] | None = None) -> Iterator[Document]:
        """Documents from number `start` on, read as they are asked for.

        `position`: what `position()` gave after `start` documents, a shortcut where skipping would read them
        all.
        """
        ...

    def position(self) -> dict[str, Any] | None:
        """Where the running iteration stands, as JSON; None where there is nothing quicker than counting."""
        ...

    def n_documents(self) -> int | None:
        """Number of documents, None where only the end of the stream tells. Files that get skipped count."""
        ...

    def details(self) -> dict[str, Any]:
        """What identifies the corpus, for the sidecar; after an iteration also what was skipped in it."""
        ...


@dataclass
class FileSource:
    """Text files on disk, each a document, gzipped ones unpacked. `names`: path -> name, in reading order.

    Files that are not UTF-8 text are skipped and listed in `skipped`; empty ones are passed over.
    """

    kind: str
    names: dict[Path, str]
    identity: dict[str, Any]
    resumable: bool = False
    skipped: list[str] = field(default_factory=list)

    def documents(self, start: int = 0, position: dict[str, Any] | None = None) -> Iterator[Document]:
        self.skipped = []
        for path, name in list(self.names.items())[start:]:
            text = _read_text(path)
            if text is None:
                self.skipped.append(name)
            elif text:
                yield Document(text, name)

    def position(self) -> dict[str, Any] | None:
        return None

    def n_documents(self) -> int | None:
        return len(self.names)

    def details(self) -> dict[str, Any]:
        # A list of a million names helps nobody: the first ones show what kind of file it was.
        return {
            **self.identity,
            "files": len(self.names),
            "n_skipped": len(self.skipped),
            "skipped": self.skipped[:20],
        }


def python_stdlib() -> FileSource:
    """The source files of the running Python's standard library: on every machine, without network."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in _NOT_LIBRARY]
        paths += [Path(folder, name) for name in files if name.endswith(".py")]
    if not paths:
        raise UserError(
            f"this Python's standard library has no source files in {root}: prepare 'files' of your own instead"
        )
    identity = {"python": platform.python_version(), "implementation": platform.python_implementation()}
    return FileSource("python-stdlib", _in_hash_order(paths, root), identity)


def files(globs: Sequence[str]) -> FileSource:
    """Files that match shell patterns (`**` crosses folders): text, markdown, code, and such files gzipped.

    The names are relative to the files' common folder, so that the order does not depend on where that lies.
    Raises UserError for a pattern that matches no file.
    """
    if not globs:
        raise UserError("prepare files needs at least one file or pattern, such as 'notes/**/*.md'")
    paths = sorted({path.absolute() for pattern in globs for path in _matches(pattern)})
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return FileSource("files", _in_hash_order(paths, root), {"globs": list(globs)})


def _matches(pattern: str) -> list[Path]:
    expanded = os.path.expanduser(pattern)
    # A name that exists is that file, also where it contains [ or *.
    found = [expanded] if os.path.exists(expanded) else glob.glob(expanded, recursive=True)
    matches = [Path(path) for path in found if os.path.isfile(path)]
    if not matches:
        hint = "a folder's files are written FOLDER/**/*" if found else "check the spelling and the quotes around it"
        raise UserError(f"{pattern!r} matches no file: {hint}")
    return matches


def _in_hash_order(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    names = {path: path.relative_to(root).as_posix() for path in paths}
    return dict(sorted(names.items(), key=lambda item: (hashlib.sha256(_name_bytes(item[1])).digest(), item[1])))


def _name_bytes(name: str) -> bytes:
    return name.encode("utf-8", errors="surrogateescape")  # file names need not be UTF-8


def _read_text(path: Path) -> str | None:
    """The file's text, None where it is not UTF-8 text or cannot be read."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        text = content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None
    return None if "\0" in text else text


@dataclass
class FineWebEdu:
    """FineWeb-Edu's ten-billion-token sample in the dataset's order, streamed by the package `datasets`."""

    kind: str = "fineweb-edu"
    resumable: bool = True
    _stream: Any = None

    def documents(self, start: int = 0, position: dict[str, Any] | None = None) -> Iterator[Document]:
        datasets = _import_datasets()
        number = start
        try:
            stream = datasets.load_dataset(FINEWEB_DATASET, name=FINEWEB_SAMPLE, split="train", streaming=True)
            if position is not None and hasattr(stream, "load_state_dict"):
                stream.load_state_dict(position)
            elif start:
                stream = stream.skip(start)  # reads and drops them all: right, but slow far into the sample
            self._stream = stream
            for row in stream:
                number += 1
                yield Document(row["text"], str(row.get("id", number)))
        except Exception as error:  # the network under datasets fails with the exceptions of four libraries
            raise UserError(
                f"the stream of {FINEWEB_DATASET} broke after {number:,} documents "
                f"({type(error).__name__}: {error}): give the same command again, it goes on where it stopped"
            ) from error

    def position(self) -> dict[str, Any] | None:
        return self._stream.state_dict() if hasattr(self._stream, "state_dict") else None

    def n_documents(self) -> int | None:
        return None

    def details(self) -> dict[str, Any]:
        return {"dataset": FINEWEB_DATASET, "name": FINEWEB_SAMPLE, "split": "train"}


def fineweb_edu() -> FineWebEdu:
    """FineWeb-Edu; needs network. Its first read raises UserError when the package `datasets` is missing."""
    return FineWebEdu()


def _import_datasets() -> Any:
    try:
        import datasets  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise UserError(
            "streaming fineweb-edu needs the package datasets: pip install 'bottleneck-core[data]'"
        ) from None
    return datasets
