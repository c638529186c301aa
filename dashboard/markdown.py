"""Text from elsewhere as data: run names, model names and messages that quote them."""

from __future__ import annotations

import unicodedata

_MEANING = r"\`*_{}[]()<>#+!|~$:&"
# These turn the direction of what follows: one name would look like another.
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def escaped(text: str) -> str:
    """`text` without Markdown, HTML, directives and control characters; line ends become spaces."""
    seen = (c for c in " ".join(text.split()) if unicodedata.category(c) not in ("Cc", "Cs") and c not in _REORDERING)
    return "".join(f"\\{c}" if c in _MEANING else c for c in seen)
