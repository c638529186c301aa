"""The tables of a report for LaTeX: a file each for a paper, and one document that shows them all.

Nothing is needed but the class article and the package booktabs. pdflatex stops at a letter that its fonts lack, so
letters beyond western European ones are written as their code points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bottleneck_core.figures.tables import latex_text

from .document import Document, Table
from .files import TABLES

# A line of the class article is 345 pt, a digit of its \footnotesize 4.25 pt, the gap between two columns 6 pt.
_LINE = 81
_GAP = 1.5
_MOST_ROWS = 48


def latex_document(document: Document) -> str:
    """All tables in one compilable document that takes them from their files."""
    tables = [f"\\input{{{TABLES}/{table.name}}}" for table in document.tables]
    head = [r"\documentclass{article}", r"\usepackage{booktabs}", rf"\title{{{latex_text(document.title)}}}"]
    return "\n".join([*head, r"\date{}", r"\begin{document}", r"\maketitle", *tables, r"\end{document}", ""])


def latex_tables(table: Table) -> str:
    """A table as one or more floats: one that is wider than a line, or longer than a page, goes on in the next."""
    parts = folded(table)
    floats = []
    for i, part in enumerate(parts):
        caption = latex_text(table.caption) + (" (continued)" if i else "")
        columns = "".join("r" if number else "l" for number in part.right)
        rows = [" & ".join(map(latex_text, row)) + r" \\" for row in [part.header, *part.rows]]
        label = f"tab:{table.name}" + (f"-{i + 1}" if i else "")
        floats.append(
            "\n".join(
                [
                    r"\begin{table}[htbp]",
                    r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
                    rf"\caption{{{caption}}}\label{{{label}}}",
                    rf"\begin{{tabular}}{{{columns}}}",
                    r"\toprule",
                    rows[0],
                    r"\midrule",
                    *rows[1:],
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(floats) + "\n"


def folded(table: Table) -> list[Table]:
    """The table in parts that fit into a line and on a page; the first `keys` columns stand in each of them."""
    widths = [_GAP + max(len(row[i]) for row in [table.header, *table.rows]) for i in range(len(table.header))]
    first = list(range(table.keys))
    room = _LINE - sum(widths[i] for i in first)
    parts: list[list[int]] = [[]]
    for i in range(table.keys, len(widths)):
        if parts[-1] and sum(widths[j] for j in parts[-1]) + widths[i] > room:
            parts.append([])
        parts[-1].append(i)
    return [
        replace(part, rows=part.rows[i : i + _MOST_ROWS])
        for part in (_columns(table, [*first, *part]) for part in parts)
        for i in range(0, max(len(part.rows), 1), _MOST_ROWS)
    ]


def _columns(table: Table, shown: Sequence[int]) -> Table:
    return replace(
        table,
        header=[table.header[i] for i in shown],
        rows=[[row[i] for i in shown] for row in table.rows],
        right=[table.right[i] for i in shown],
    )
