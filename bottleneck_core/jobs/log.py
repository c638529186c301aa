"""The end of what a job printed, as text that can be shown: a log line is data, and may hold anything."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from bottleneck_core.store.layout import RunPaths

_TAIL_BYTES = 256 << 10
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|[\]PX^_].*?(?:\x07|\x1b\\|$)"  # titles, links
    r"|[ -/]*[0-~])?"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def job_log(run_dir: Path, lines: int = 40) -> str:
    """The last `lines` of `run_dir/console.log`, of its last 256 KiB; empty where there is none.

    A line that was written over (a progress bar) is as it was written last. Escape sequences, control characters
    but the tab, and marks that change the direction of text are taken out.
    """
    try:
        with open(RunPaths(run_dir).console, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
    written = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    if size > _TAIL_BYTES and len(written) > 1:
        del written[0]  # the end of a line
    return "\n".join(_shown(line) for line in written[-lines:]) if lines > 0 else ""


def _shown(line: str) -> str:
    last = _ESCAPES.sub("", line).rstrip("\r").rpartition("\r")[2]
    return "".join(
        char for char in last if char == "\t" or (unicodedata.category(char) != "Cc" and char not in _REORDERING)
    )
