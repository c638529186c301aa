"""`prepare`: make a token file from a corpus."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from bottleneck_core.cli.words import read_words
from bottleneck_core.data.prepare import Progress, prepare

HELP = "Make a token file from a corpus."
_SECONDS_BETWEEN_LINES = 2.0


@dataclass(frozen=True)
class Words:
    """Make a token file and its sidecar from a corpus.

    Sources: python-stdlib, the standard library's own source files (no network); files GLOB..., text, markdown, code,
    also gzipped; fineweb-edu --tokens 100M, streamed (needs the extra `data`; a broken download goes on where it was).
    """

    source: Annotated[
        tyro.conf.Positional[Literal["python-stdlib", "files", "fineweb-edu"]],
        tyro.conf.arg(help="the corpus"),
    ] = "python-stdlib"
    globs: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(help="files: patterns", metavar="GLOB")] = ()
    tokenizer: Annotated[Literal["byte", "word", "gpt2", "tiktoken"], tyro.conf.arg(help="tiktoken is gpt2")] = "byte"
    tokens: Annotated[str | None, tyro.conf.arg(help="stop at this many tokens, such as 100M", metavar="COUNT")] = None
    out: Annotated[str | None, tyro.conf.arg(help="the token file; unset: data/SOURCE.TOKENIZER.bin")] = None
    format: Annotated[Literal["auto", "bin", "npy", "text", "pt"], tyro.conf.arg(help="auto: by suffix, else bin")] = (
        "auto"
    )


def main(argv: list[str]) -> int:
    words = read_words(Words, argv, prog="python -m bottleneck_core prepare")
    path = prepare(
        words.source,
        tokenizer=words.tokenizer,
        out=words.out,
        tokens=words.tokens,
        globs=words.globs,
        format=words.format,
        progress=_Lines(),
    )
    print(path)
    return 0


class _Lines:
    """Progress on stderr, a line every other second; stdout holds the path alone."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            print(f"{progress.documents:,} documents, {progress.tokens:,} tokens", file=sys.stderr, flush=True)
