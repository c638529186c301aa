"""Names of a report's files: a run may be called anything, a file may not."""

from __future__ import annotations

import re
from collections.abc import Sequence

FORMATS = ("md", "tex", "png", "svg", "html")
MARK = "report.json"
MARKDOWN, LATEX, HTML = "report.md", "report.tex", "report.html"
FIGURES, TABLES = "figures", "tables"

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 80


def stems(names: Sequence[str]) -> list[str]:
    """A file name without suffix for each name, no two equal where case does not count."""
    taken: set[str] = set()
    found = []
    for name in names:
        safe = _UNSAFE.sub("_", name)[:_LONGEST].strip("._") or "figure"
        number, stem = 1, safe
        while stem.lower() in taken:
            number += 1
            stem = f"{safe}-{number}"
        taken.add(stem.lower())
        found.append(stem)
    return found
