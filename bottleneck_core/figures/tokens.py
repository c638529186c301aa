"""What the tokens of a probe's window look like, one label a token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bottleneck_core.data.tokenizers import ByteTokenizer, get_tokenizer
from bottleneck_core.errors import UserError

# Signs for the white space that text is full of.
_SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}


def token_labels(tokenizer: Any, ids: Sequence[int]) -> list[str] | None:
    """A label for each id; None where the tokenizer's vocabulary is not at hand, as that of words."""
    try:
        found = get_tokenizer(str(tokenizer))
    except UserError:
        return None
    if isinstance(found, ByteTokenizer):
        return [_byte(token) for token in ids]
    return [visible(found.decode([token])) for token in ids]


def visible(text: str) -> str:
    """`text` with signs for white space, pictures of control characters, and code points of others without a shape."""
    return "".join(_SHOWN.get(c) or _shape(c) for c in text)


def _shape(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return character if character.isprintable() else f"\\u{{{code:x}}}"


def _byte(token: int) -> str:
    """ASCII as it is; a byte of a longer character has no meaning of its own."""
    return visible(chr(token)) if 0 <= token < 0x80 else f"\\x{token:02x}"
