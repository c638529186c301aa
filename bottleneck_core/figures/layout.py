"""What all figures share: fonts, margins, axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .palette import Theme, ink

if TYPE_CHECKING:
    import plotly.graph_objects as go

FONT = '"Source Sans", "Source Sans Pro", system-ui, sans-serif'


def base_layout(theme: Theme, *, title: str, height: int, right: float = 16, top: int = 34) -> dict[str, Any]:
    """Layout of a figure with its title at the top left; the background is the page's."""
    return {
        "height": height,
        "margin": {"l": 56, "r": right, "t": top, "b": 40, "autoexpand": False},
        "title": {
            "text": title,
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 6},
            "font": {"size": 14, "color": ink("text", theme)},
        },
        "font": {"family": FONT, "size": 12, "color": ink("text", theme)},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "x unified",
        "hoverlabel": {
            "bgcolor": ink("surface", theme),
            "bordercolor": ink("axis", theme),
            "font": {"family": FONT, "size": 12, "color": ink("text", theme)},
        },
        # One constant: a new one would drop zoom and hidden traces with each update.
        "uirevision": "keep",
        "dragmode": "zoom",
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": ink("muted", theme),
            "activecolor": ink("text", theme),
        },
    }


def axis(theme: Theme, **settings: Any) -> dict[str, Any]:
    """A quiet axis: thin grid, no zero line, muted labels."""
    return {
        "gridcolor": ink("grid", theme),
        "linecolor": ink("axis", theme),
        "tickcolor": ink("axis", theme),
        "tickfont": {"color": ink("muted", theme), "size": 11},
        "title": {"font": {"color": ink("muted", theme), "size": 12}, "standoff": 8},
        "zeroline": False,
        "automargin": False,
        **settings,
    }


def axis_title(theme: Theme, text: str) -> dict[str, Any]:
    """The title of an axis in the axis' own quiet style."""
    return {"text": text, "font": {"color": ink("muted", theme), "size": 12}, "standoff": 8}


def note(theme: Theme, text: str) -> dict[str, Any]:
    """A sentence in the middle of a figure that has nothing to draw."""
    return {
        "text": text,
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
        "showarrow": False,
        "font": {"color": ink("muted", theme), "size": 13},
    }


def layout_of(figure: go.Figure) -> Any:
    """The figure's layout. Plotly makes its attributes at run time, which type checkers do not see."""
    return figure.layout
