"""Small commands' words, read by tyro into a dataclass; what tyro would print as a box becomes one sentence."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import tyro

from bottleneck_core.errors import UserError

T = TypeVar("T")
_BORDER = re.compile(r"[╭╮╰╯│─┌┐└┘|+]+|-{3,}")  # a box, in Unicode or in ASCII


def read_words(form: type[T], argv: Sequence[str], *, prog: str) -> T:
    """`argv` as an instance of `form` (a dataclass; its docstring is the command's description).

    Raises UserError for words that do not fit; `--help` prints the help and exits with 0.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _columns(100 if _asks_help(argv) else 1000):
            return tyro.cli(form, args=list(argv), prog=prog)
    except SystemExit as exit:
        if not exit.code:
            raise
    lines = [_BORDER.sub("", line).strip() for line in said.getvalue().splitlines()]
    sentences = [line for line in lines[1:] if line and not line.startswith("For full helptext")]
    raise UserError(f"{(sentences or ['the words do not fit'])[0].rstrip('.')}: see {prog} --help")


@contextlib.contextmanager
def _columns(width: int) -> Iterator[None]:
    """tyro folds its boxes to the terminal's width, which it takes from COLUMNS; wide ones keep a message whole."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def _asks_help(argv: Sequence[str]) -> bool:
    return any(word in ("-h", "--help") for word in argv)
