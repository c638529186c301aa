"""Sheets of figures as PNG and SVG, drawn with matplotlib from the very figures that pages show.

No browser and no network: what plotly holds (places, colours, texts, limits) is drawn again, so that a picture on
paper and the one on a page cannot say different things. Lengths are pixels as in the figures; a PNG has twice as many.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import plotly.graph_objects as go
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .labels import Box
from .layout import layout_of
from .palette import ink
from .static_plot import draw_plot, right_margin
from .static_text import FONT_FAMILY, draw_text

# Matplotlib's inches: a pixel is a hundredth, and a PNG has two dots for it.
PIXELS = 100
_DOTS = 200
_HEAD, _GAP = 34, 10


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """Figures in a grid: `rows` of cells, None for an empty one, in columns of `widths` pixels.

    `name` is a file's; `title` stands over more than one figure.
    """

    name: str
    title: str
    rows: Sequence[Sequence[go.Figure | None]]
    widths: Sequence[int]

    @property
    def figures(self) -> list[go.Figure]:
        """All of them, row by row."""
        return [figure for row in self.rows for figure in row if figure is not None]


def drawn(sheet: Sheet) -> Figure:
    """The sheet as a matplotlib figure. A sheet of one figure has no heading of its own: the figure has its title."""
    heights = [max((int(layout_of(cell).height) for cell in row if cell is not None), default=0) for row in sheet.rows]
    head = _HEAD if len(sheet.figures) > 1 else 0
    width = sum(sheet.widths) + _GAP * (len(sheet.widths) + 1)
    height = head + sum(heights) + _GAP * (len(heights) + 1)
    with matplotlib.rc_context({"font.family": FONT_FAMILY}):
        figure = Figure(figsize=(width / PIXELS, height / PIXELS), dpi=PIXELS, facecolor=ink("surface"))
        FigureCanvasAgg(figure)
        if head:
            draw_text(figure, (_GAP + 6, 10), sheet.title, size=16, color=ink("text"), weight="bold")
        # Plots below each other end at the same place.
        columns = [[row[i] for row in sheet.rows if i < len(row)] for i in range(len(sheet.widths))]
        rights = [max((right_margin(figure, c) for c in column if c is not None), default=0.0) for column in columns]
        top = head + _GAP
        for row, tall in zip(sheet.rows, heights, strict=True):
            left = _GAP
            for cell, wide, right in zip(row, sheet.widths, rights, strict=False):
                if cell is not None:
                    box = Box(left=left, top=top, right=left + wide, bottom=top + int(layout_of(cell).height))
                    draw_plot(figure, cell, box, right)
                left += wide + _GAP
            top += tall + _GAP
    return figure


def png_bytes(figure: Figure) -> bytes:
    """Two dots a pixel; nothing in the file says when or with what it was drawn."""
    return _saved(figure, "png", dpi=_DOTS, metadata={"Software": None})


def svg_bytes(figure: Figure, salt: str) -> bytes:
    """Letters as outlines, so that it looks the same without the font. `salt` makes the names inside reproducible."""
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "path"}):
        return _saved(figure, "svg", metadata={"Date": None, "Creator": None})


def _saved(figure: Figure, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    with matplotlib.rc_context({"font.family": FONT_FAMILY}):
        figure.savefig(out, format=kind, **options)  # pyright: ignore[reportArgumentType]
    return out.getvalue()
