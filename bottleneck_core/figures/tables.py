"""Tables as text that goes into a paper or an issue, and names of runs as text that means nothing else.

A run's name is whatever somebody called a folder: each format has characters that would make it markup or code.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence

from bottleneck_core.figures.numbers import MISSING

Rows = Sequence[Sequence[str]]

# In a cell a sign that means something only at a line's start is harmless. The last two make links of plain text.
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#!|~$&]|(?<=:)/(?=/)|(?<=\bwww)\.)", re.IGNORECASE)
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    # After a line's end `[` and `*` would be read as arguments of it.
    **{c: f"{{{c}}}" for c in "[]*"},
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "–": "--",
}
_IN_TEXT_FONTS = frozenset("…·")
_ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0308\u0327")
# What a spreadsheet takes for the start of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def plain(text: str, most: int | None = None) -> str:
    """`text` on one line without control characters; cut in the middle above `most` characters."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if most is None or len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def html_text(text: str, most: int | None = None) -> str:
    """For plotly, whose texts are a small HTML."""
    return plain(text, most).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_text(text: str) -> str:
    """For a cell of a Markdown table."""
    return _MARKDOWN.sub(r"\\\1", plain(text))


def latex_text(text: str) -> str:
    """For LaTeX in text mode, as it reads; letters that the class article's font lacks, as code points.

    Signs that text fonts may lack are set in mathematics; two hyphens are kept from becoming a dash.
    """
    safe = "".join(c if _in_font(c) else f"(U+{ord(c):04X})" for c in plain(text))
    written = "".join(_LATEX.get(c, c) for c in safe)
    return written if safe == MISSING else re.sub("-(?=-)", "-{}", written)


def _in_font(c: str) -> bool:
    """Whether pdflatex can set it, composed of a letter and an accent if need be."""
    if c.isascii() or c in _LATEX or c in _IN_TEXT_FONTS:
        return True
    parts = unicodedata.normalize("NFD", c)
    return ord(c) < 0x180 and len(parts) == 2 and parts[0].isascii() and parts[1] in _ACCENTS


def markdown_table(header: Sequence[str], rows: Rows, right: Sequence[bool]) -> str:
    """A Markdown table; `right` says which columns are numbers."""
    lines = [header, ["--:" if number else ":--" for number in right]]
    cells = [[markdown_text(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [[*map(markdown_text, header)], lines[1], *cells])


def latex_table(header: Sequence[str], rows: Rows, right: Sequence[bool]) -> str:
    """A LaTeX table for the package booktabs."""
    columns = "".join("r" if number else "l" for number in right)
    written = [" & ".join(map(latex_text, row)) + r" \\" for row in [header, *rows]]
    body = [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", written[0], r"\midrule", *written[1:], r"\bottomrule"]
    return "\n".join([*body, r"\end{tabular}"])


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """CSV with a header; texts that a spreadsheet would run as a formula get an apostrophe in front."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([[_inert(cell) for cell in row] for row in [header, *rows]])
    return out.getvalue()


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
