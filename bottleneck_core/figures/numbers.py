"""Numbers as people read them: one format for each quantity, on every page and in every table."""

from __future__ import annotations

import math
from typing import TypeGuard

MISSING = "–"

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_COUNT_UNITS = ("", "k", "M", "B", "T")


def loss(value: float | None) -> str:
    """Nats per token, 4 decimals."""
    return f"{value:.4f}" if _known(value) else MISSING


def perplexity(value: float | None) -> str:
    """2 decimals; above 100,000 (an untrained model) in powers of ten."""
    if not _known(value):
        return MISSING
    return f"{value:,.2f}" if value < 1e5 else f"{value:.2e}"


def size(value: float | None) -> str:
    """Bytes with 3 significant digits and a binary unit; below 1 KiB exactly."""
    if not _known(value):
        return MISSING
    if abs(value) < 1000:
        return f"{value:.0f} B"
    power = 1
    # 1,000 of a unit already takes the next one: four digits never fit into three.
    while abs(value) / 1024**power >= 999.5 and power < len(_BYTE_UNITS) - 1:
        power += 1
    return f"{_three_digits(value / 1024**power)} {_BYTE_UNITS[power]}"


def exact_size(value: float | None) -> str:
    """All the digits, for hovering: `294,912,000 B`."""
    return f"{value:,.0f} B" if _known(value) else MISSING


def count(value: float | None) -> str:
    """Parameters or tokens with 3 significant digits: 45.8M; below 1,000 exactly."""
    if not _known(value):
        return MISSING
    power = 0
    while abs(value) / 1000**power >= 999.5 and power < len(_COUNT_UNITS) - 1:
        power += 1
    return f"{value:.0f}" if power == 0 else f"{_three_digits(value / 1000**power)}{_COUNT_UNITS[power]}"


def rate(value: float | None) -> str:
    """Tokens per second: 1.15M, 17.3k, 850."""
    return count(value)


def steps(value: float | None) -> str:
    """Whole numbers with thousands separators: 5,800."""
    return f"{value:,.0f}" if _known(value) else MISSING


def ratio(value: float | None) -> str:
    """How many times less or more: 5.33×."""
    return f"{_three_digits(value)}×" if _known(value) else MISSING


def duration(seconds: float | None) -> str:
    """The two largest units: 1 h 42 m, 3 d 4 h, 42 s; below ten seconds with one decimal."""
    if not _known(seconds) or seconds < 0:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    total = round(seconds)
    for unit, name, below, below_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if total >= unit:
            rest = total % unit // below
            return f"{total // unit} {name} {rest} {below_name}" if rest else f"{total // unit} {name}"
    return f"{total} s"


def scalar(value: float | None) -> str:
    """Any other quantity: 4 significant digits, powers of ten where it is very small or large."""
    if not _known(value):
        return MISSING
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    mantissa, _, power = f"{value:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 99.95:
        return f"{value:.0f}"
    if magnitude >= 9.995:
        return f"{value:.1f}"
    return f"{value:.2f}" if magnitude >= 0.9995 else f"{value:.3f}"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
