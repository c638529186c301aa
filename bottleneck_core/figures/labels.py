"""Where to put text so that no two labels overlap. Everything is in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Advance of a character of the 12 px interface font; measured over digits and lower-case letters, rounded up.
CHARACTER_WIDTH = 6.8
LINE_HEIGHT = 15.0


def text_width(text: str) -> float:
    """Rough width of a label at 12 px."""
    return CHARACTER_WIDTH * len(text)


def spread(positions: Sequence[float], length: float, gap: float = LINE_HEIGHT) -> list[float]:
    """Positions in [0, length] at least `gap` apart, in the same order, each as near to where it was as it can be.

    Labels that collide form a block, which is centred on the mean of what its labels wanted (pool adjacent
    violators). Where there is no room for all they keep their distance and leave [0, length] at its end.
    """

    def span(wanted: float, n: int) -> tuple[float, float]:
        """First and last slot of a block of n labels that want `wanted` in sum."""
        size = (n - 1) * gap
        first = max(min(wanted / n - size / 2, length - size), 0.0)
        return first, first + size

    order = sorted(range(len(positions)), key=lambda i: positions[i])
    blocks: list[tuple[float, int]] = []  # (sum of wanted positions, number of labels)
    for i in order:
        wanted, n = positions[i], 1
        while blocks and span(wanted, n)[0] - span(*blocks[-1])[1] < gap:
            other, m = blocks.pop()
            wanted, n = wanted + other, n + m
        blocks.append((wanted, n))
    slots = [span(wanted, n)[0] + k * gap for wanted, n in blocks for k in range(n)]
    result = [0.0] * len(positions)
    for i, slot in zip(order, slots, strict=True):
        result[i] = slot
    return result


@dataclass(frozen=True, kw_only=True)
class Box:
    """An axis-parallel rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def inside(self, other: Box) -> bool:
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


def place(points: Sequence[tuple[float, float]], texts: Sequence[str], area: Box) -> list[str | None]:
    """A side of each point for its label as plotly names it (`top center`, `middle right`, ...).

    Greedy in the order given: the first side where the label stays inside `area` and touches no point and no
    earlier label; None where there is no text or no such side, and the label is left to hovering.
    """
    radius, pad = 7.0, 4.0
    taken = [Box(left=x - radius, top=y - radius, right=x + radius, bottom=y + radius) for x, y in points]
    sides: list[str | None] = []
    for (x, y), text in zip(points, texts, strict=True):
        if not text:
            sides.append(None)
            continue
        width, reach = text_width(text), radius + pad
        candidates = {
            "middle right": (x + reach, y - LINE_HEIGHT / 2),
            "middle left": (x - reach - width, y - LINE_HEIGHT / 2),
            "top center": (x - width / 2, y - radius - LINE_HEIGHT - 1),
            "bottom center": (x - width / 2, y + radius + 1),
        }
        side = None
        for name, (left, top) in candidates.items():
            box = Box(left=left, top=top, right=left + width, bottom=top + LINE_HEIGHT)
            if box.inside(area) and not any(box.overlaps(other) for other in taken):
                side, _ = name, taken.append(box)
                break
        sides.append(side)
    return sides
