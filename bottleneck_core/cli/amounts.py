"""Amounts as people write them: 128k tokens, 80GiB, 8.03e9."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bottleneck_core.errors import UserError

_TOKENS = {"": 1, "k": 10**3, "ki": 2**10, "m": 10**6, "mi": 2**20}
_BYTES = {"": 1, "b": 1} | {
    f"{prefix}{unit}".lower(): base**power
    for power, prefix in enumerate("kmgt", start=1)
    for unit, base in (("b", 1000), ("ib", 1024))
}


def tokens(text: str, flag: str = "--context") -> int:
    """A number of tokens: 131072, 131,072, 128k (thousands), 128Ki (of 1,024). Raises UserError."""
    return _scaled(text, _TOKENS, f"{flag} needs a number of tokens >= 1 as 131072, 128k or 128Ki", least=1)


def memory_size(text: str, flag: str = "--budget") -> int:
    """A number of bytes: 80GiB, 80GB, 512MiB, 1024. Raises UserError."""
    return _scaled(text, _BYTES, f"{flag} needs bytes as 80GiB, 80GB or 85899345920", least=0)


def whole_number(text: str, flag: str, least: int = 1) -> int:
    if not re.fullmatch(r"[0-9]+", text) or int(text) < least:
        raise UserError(f"{flag} must be a whole number >= {least}, got {text}")
    return int(text)


def _scaled(text: str, units: Mapping[str, int], need: str, least: int) -> int:
    match = re.fullmatch(r"([0-9][0-9,_]*(?:\.[0-9]+)?) ?([a-z]*)", text.strip().lower())
    if match is None or match[2] not in units:
        raise UserError(f"{need}, got {text}")
    whole, _, part = match[1].replace(",", "").replace("_", "").partition(".")
    value, rest = divmod(int(whole + part) * units[match[2]], 10 ** len(part))
    if rest or value < least:
        raise UserError(f"{need}, got {text}")
    return value


def decimal(text: str | None, flag: str) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{flag} must be a number, got {text}") from None
    if not 0 <= value < float("inf"):
        raise UserError(f"{flag} must be a number >= 0, got {text}")
    return value
