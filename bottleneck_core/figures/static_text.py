"""Texts and colours of plotly figures in matplotlib's terms."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

# Comes with matplotlib, so that a picture looks the same on every machine.
FONT_FAMILY = "DejaVu Sans"
# Its letters are wider than those of the pages' font, whose width the figures reckon with.
_FONT_SCALE = 0.9
# Points a pixel: 72 to the inch of 100 pixels.
POINTS = 0.72
# Fine enough for a logarithmic scale, whose stops begin at a ten thousandth.
_SHADES = 1 << 16

_RGB = re.compile(r"rgba?\(([^)]*)\)")
_BREAK, _TAG = re.compile(r"<br ?/?>"), re.compile(r"</?[a-z]+>")


def plain_text(text: str) -> str:
    """A plotly text without its markup."""
    return html.unescape(_TAG.sub("", _BREAK.sub("\n", text)))


def drawable(text: str) -> str:
    """A box for each letter that the font lacks."""
    return "".join(c if c == "\n" or ord(c) in _letters() else "□" for c in text)


@cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT_FAMILY)).get_charmap())


def points(pixels: float) -> float:
    """A font size in points."""
    return pixels * POINTS * _FONT_SCALE


def width_of(figure: Figure, text: str, size: float) -> float:
    """Pixels that a text of `size` pixels takes."""
    canvas = figure.canvas
    text = drawable(text)
    assert isinstance(canvas, FigureCanvasAgg)
    font = FontProperties(family=FONT_FAMILY, size=points(size))
    return max(
        canvas.get_renderer().get_text_width_height_descent(line, font, ismath=False)[0] for line in text.split("\n")
    )


def draw_text(
    figure: Figure, at: tuple[float, float], text: str, *, size: float, color: str, va: str = "top", **style: Any
) -> None:
    """`text` with its left end at pixels from the sheet's top left."""
    width, height = figure.get_size_inches() * figure.dpi
    figure.text(
        at[0] / width,
        1 - at[1] / height,
        drawable(text),
        size=points(size),
        color=rgba(color),
        va=va,
        parse_math=False,
        **style,
    )


def rgba(color: Any) -> tuple[float, float, float, float]:
    """`#rrggbb`, a name, `rgb(r,g,b)` or `rgba(r,g,b,a)` as four shares."""
    match = _RGB.fullmatch(str(color).replace(" ", ""))
    if match is None:
        return to_rgba(color)
    red, green, blue, *alpha = (float(part) for part in match[1].split(","))
    return red / 255, green / 255, blue / 255, alpha[0] if alpha else 1.0


def color_map(scale: Any) -> LinearSegmentedColormap:
    """A plotly scale, pairs of place and colour."""
    return LinearSegmentedColormap.from_list("scale", [(float(at), rgba(color)) for at, color in scale], N=_SHADES)
