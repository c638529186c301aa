"""Plotly charts that keep their zoom while their data grows.

`st.plotly_chart` takes its identity from the figure: each new point would mount a new chart. Here two
components share the work. The loader has constant content, so that the browser gets plotly.js (4.8 MB) once a
page; the chart is a few kB and calls `Plotly.react`. Zoom is linked within a group of charts and reported to
Python, which answers with finer points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import streamlit as st
from streamlit.components.v2 import component

from bottleneck_core.figures.layout import layout_of
from dashboard.theme import theme

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from streamlit.components.v2.types import ComponentRenderer

_HERE = Path(__file__).parent
_READY = """
window.bottleneckPlotlyAt = import.meta.url;
if (typeof window.Plotly !== "undefined") window.dispatchEvent(new Event("bottleneck:plotly"));
export default function () {}
"""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure as the browser gets it, made once for many reruns: `text` is its JSON, `height` in pixels."""

    text: str
    height: int

    @classmethod
    def of(cls, figure: go.Figure) -> Drawn:
        return cls(text=str(figure.to_json()), height=int(layout_of(figure).height or 240))


def load_plotly() -> None:
    """Gives the browser plotly.js. Once a page, outside of fragments, before or after the charts.

    To be called after what may rerun the page at once: each of the two runs would send it.
    """
    _loader()(key="plotly_js", height="content")


def live_chart(
    figure: go.Figure | Drawn, *, name: str, group: str, on_click: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Shows `figure` as the chart `name`, stable over reruns with other data.

    Charts of one `group` zoom in x together; `zoomed_range(group)` is where. A click on a point calls
    `on_click` with {x, y, trace, customdata}.
    """
    key = f"chart/{group}/{name}"

    def zoomed() -> None:
        zoom = (st.session_state.get(key) or {}).get("zoom")
        if zoom:
            st.session_state[_zoom_key(zoom["group"])] = zoom["range"]

    def clicked() -> None:
        point = (st.session_state.get(key) or {}).get("click")
        if point and on_click:
            on_click(point)

    drawn = figure if isinstance(figure, Drawn) else Drawn.of(figure)
    frame = {"name": name, "group": group, "theme": theme(), "figure": orjson.Fragment(drawn.text)}
    _chart()(
        key=key,
        data=orjson.dumps(frame),
        height=drawn.height,
        on_zoom_change=zoomed,
        on_click_change=clicked,
        on_theme_change=_rerun,
    )


def _rerun() -> None:
    """The figures are made anew by the rerun that the chart asked for; there is nothing to do before it."""


def zoomed_range(group: str) -> tuple[float, float] | None:
    """Where the group's charts are zoomed to, in the units of their x-axis; None where they show all."""
    value = st.session_state.get(_zoom_key(group))
    return (float(value[0]), float(value[1])) if value else None


def _zoom_key(group: str) -> str:
    return f"zoom/{group}"


@cache
def _loader() -> ComponentRenderer:
    library = files("plotly") / "package_data" / "plotly.min.js"
    return component("bottleneck_plotly", js=library.read_text(encoding="utf-8") + _READY, isolate_styles=False)


@cache
def _chart() -> ComponentRenderer:
    # Without style isolation: plotly.js puts its styles where a shadow root does not see them.
    source = "".join((_HERE / name).read_text(encoding="utf-8") for name in ("downloads.js", "chart.js"))
    return component("bottleneck_chart", js=source, isolate_styles=False)
