"""Preparation: a source's documents through a tokenizer into a token file and its sidecar.

Ids go to disk document by document. A stream that is the same on another day (fineweb-edu) is resumed after a
kill and gives the bytes that an uninterrupted preparation gives; local sources begin again, since files
change.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np

from bottleneck_core.data import formats, sources
from bottleneck_core.data.partial import PartialTokens
from bottleneck_core.data.sidecar import file_sha256, read_sidecar, sidecar_path, write_sidecar
from bottleneck_core.data.sources import Source
from bottleneck_core.data.tokenizers import (
    Tokenizer,
    WordTokenizer,
    canonical_name,
    get_tokenizer,
    load_tokenizer,
)
from bottleneck_core.errors import UserError
from bottleneck_core.store.atomic import atomic_path

SAVE_EVERY_TOKENS = 1 << 20  # a resumable state this often: a kill costs seconds of a stream
FIT_DOCUMENTS = 20_000  # documents of an endless stream that the word tokenizer is fitted on

_MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_COUNT = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?)([kmbt]?)", re.IGNORECASE | re.ASCII)


class Progress(NamedTuple):
    """How far a preparation is; totals are None where only the end of the source tells."""

    documents: int
    n_documents: int | None
    tokens: int
    n_tokens: int | None


def parse_count(text: str | int) -> int:
    """A positive whole number: 100M, 1.5B, 20k, 2T, 100_000. Raises UserError for anything else."""
    match = _COUNT.fullmatch(str(text).strip())
    count = Decimal(match[1]) * _MULTIPLES[match[2].lower()] if match else Decimal(0)
    if count < 1 or count != int(count):
        raise UserError(f"a number of tokens is a positive whole number such as 20000, 20k, 100M or 1.5B, got {text!r}")
    return int(count)


def prepare(
    source: str,
    *,
    tokenizer: str,
    out: str | Path | None = None,
    tokens: int | str | None = None,
    globs: Sequence[str] = (),
    format: str = "auto",
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Write a token file and its sidecar, and return the token file's path.

    `source`: python-stdlib, files (which needs `globs`) or fineweb-edu (which needs `tokens`). `tokenizer`:
    byte, word (fitted on the source first) or gpt2. `tokens`: stop at exactly this number, in the middle of a
    document if need be; a source with less gives less. `out`: default data/<source>.<tokenizer>.<suffix>,
    below the current folder. `format`: bin, npy, text, pt; auto goes by the suffix of `out`, bin where that
    is not given. `progress`: called after each document.

    Documents are closed off as `Tokenizer.text_of_document_end` says. An existing file is replaced when the
    new one is complete; a finished fineweb-edu file of the same request is kept as it is. Raises UserError
    for a mistake in the arguments, a source without text, a broken stream, and while another process writes
    the same file.
    """
    corpus = _source(source, globs, tokens)
    path = _output(source, canonical_name(tokenizer), out, format)
    limit = None if tokens is None else parse_count(tokens)
    try:
        with _lock(path, timeout=0):
            return _write(corpus, canonical_name(tokenizer), path, _file_format(path, format), limit, progress)
    except filelock.Timeout:
        raise UserError(f"{path} is being prepared by another process: wait for it, or give another --out") from None
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): give another --out") from error


def default_corpus(
    tokenizer: str, root: Path = Path("data"), progress: Callable[[Progress], None] | None = None
) -> Path:
    """The token file of the Python standard library below `root`, prepared first where it is not there yet.

    Of two processes that ask at the same time one prepares and the other waits for it.
    """
    name = canonical_name(tokenizer)
    path = Path(root) / f"python-stdlib.{name}.bin"
    if _is_complete(path):
        return path
    try:
        with _lock(path, timeout=-1):
            if _is_complete(path):  # the other process was first
                return path
            return _write(sources.python_stdlib(), name, path, "bin", None, progress)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): "
            "prepare a token file elsewhere and give it as --data"
        ) from error


def _source(kind: str, globs: Sequence[str], tokens: int | str | None) -> Source:
    if kind != "files" and globs:
        raise UserError(f"prepare {kind} takes no file patterns, got {globs[0]!r}: use 'prepare files' for your own")
    if kind == "python-stdlib":
        return sources.python_stdlib()
    if kind == "files":
        return sources.files(globs)
    if kind != "fineweb-edu":
        raise UserError(f"the source must be one of {', '.join(sources.SOURCE_KINDS)}, got {kind!r}")
    if tokens is None:
        raise UserError("prepare fineweb-edu needs the number of tokens to take: --tokens 100M")
    return sources.fineweb_edu()


def _output(source: str, tokenizer: str, out: str | Path | None, format: str) -> Path:
    formats.check_format(format)
    suffix = formats.SUFFIXES["bin" if format == "auto" else format]
    path = Path("data", f"{source}.{tokenizer}{suffix}") if out is None else Path(out)
    if path.is_dir():
        raise UserError(f"{path} is a folder: give --out a file name, such as {path / f'{source}.{tokenizer}{suffix}'}")
    by_suffix = formats.format_by_suffix(path)
    if format not in ("auto", by_suffix):
        # Readers go by the suffix: a file that lies about its format is a trap for the next start.
        raise UserError(f"--out {path} reads as {by_suffix}, not as {format}: name it {path.with_suffix(suffix)}")
    return path


def _file_format(path: Path, format: str) -> str:
    return formats.format_by_suffix(path) if format == "auto" else format


def _lock(path: Path, timeout: float) -> filelock.FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=timeout)


def _is_complete(path: Path) -> bool:
    # The sidecar is put in place before the token file: both are there, or the file is not ready.
    return path.is_file() and sidecar_path(path).is_file()


def _write(
    source: Source,
    tokenizer_name: str,
    path: Path,
    format: str,
    limit: int | None,
    progress: Callable[[Progress], None] | None,
) -> Path:
    request = {"source": {"kind": source.kind, **source.details()}, "tokenizer": tokenizer_name}
    if source.resumable and _is_finished(path, request, limit):
        return path
    partial = PartialTokens(path, request, limit)
    resumed = source.resumable and partial.restore()
    tokenizer = load_tokenizer(partial.vocabulary or {}) if resumed else _fit(source, tokenizer_name)
    try:
        with partial.start(_vocabulary(tokenizer), formats.token_dtype(tokenizer.vocab_size)):
            _append_documents(source, tokenizer, partial, progress)
            _finish(source, tokenizer, partial, path, format)
    except BaseException:
        if not source.resumable:
            partial.remove()
        raise
    return path


def _is_finished(path: Path, request: dict[str, Any], limit: int | None) -> bool:
    try:
        sidecar = read_sidecar(path) if _is_complete(path) else None
    except UserError:  # a kill between putting the sidecar and the tokens in place, or a damaged pair
        return False
    if sidecar is None:
        return False
    asked = {**request["source"], "tokens_asked": limit}
    return sidecar.get("source") == asked and sidecar["tokenizer"] == request["tokenizer"]


def _fit(source: Source, name: str) -> Tokenizer:
    if name != "word":
        return get_tokenizer(name)
    # A stream without end is fitted on its beginning.
    texts = (document.text for document in source.documents())
    return WordTokenizer.fit(texts if source.n_documents() is not None else islice(texts, FIT_DOCUMENTS))


def _vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    entries = {
        "tokenizer": tokenizer.name,
        "vocab_size": tokenizer.vocab_size,
        "end_token": tokenizer.end_token,
    }
    return {**entries, "words": tokenizer.words} if isinstance(tokenizer, WordTokenizer) else entries


def _append_documents(
    source: Source,
    tokenizer: Tokenizer,
    partial: PartialTokens,
    progress: Callable[[Progress], None] | None,
) -> None:
    end = None if tokenizer.end_token is None else np.array([tokenizer.end_token])
    separator = tokenizer.encode_array(tokenizer.text_of_document_end)
    for document in source.documents(partial.documents, partial.position) if not partial.full else ():
        if end is None and partial.documents:
            partial.append(separator)
        partial.append(tokenizer.encode_array(document.text))
        if end is not None:
            partial.append(end)
        partial.documents += 1
        if source.resumable and partial.unsaved_tokens >= SAVE_EVERY_TOKENS:
            partial.save(source.position())
        if progress is not None:
            progress(Progress(partial.documents, source.n_documents(), partial.tokens, partial.limit))
        if partial.full:
            break


def _finish(source: Source, tokenizer: Tokenizer, partial: PartialTokens, path: Path, format: str) -> None:
    if partial.tokens == 0:
        raise UserError(f"{source.kind} gave no text at all ({source.details()}): there is nothing to train on")
    partial.sync()
    sidecar = {
        "tokens": partial.tokens,
        "documents": partial.documents,
        **_vocabulary(tokenizer),
        "format": format,
        "dtype": formats.token_dtype(tokenizer.vocab_size).name,
        "source": {"kind": source.kind, **source.details(), "tokens_asked": partial.limit},
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    # The sidecar first: a token file without one would be taken for foreign ids. A kill between the two
    # leaves a sidecar that its neighbour's size contradicts, or that has no neighbour.
    if format == "bin":
        _describe(path, partial.path, sidecar)
        os.replace(partial.path, path)
    else:
        with atomic_path(path) as temporary:
            formats.export(partial.mapped(), temporary, format)
            _describe(path, temporary, sidecar)
    partial.remove()


def _describe(path: Path, content: Path, sidecar: dict[str, Any]) -> None:
    write_sidecar(path, {**sidecar, "bytes": content.stat().st_size, "sha256": file_sha256(content)})
