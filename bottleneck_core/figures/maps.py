"""One head's attention map, query by key, with the share of the null key beside it.

Maps are (T, T), lower triangular: row q holds the weights of query q on the keys 0 to q. The null key's column is not
stored; what a row lacks to 1 is its share.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from .layout import axis, axis_title, base_layout, note
from .palette import Theme, ink, sequential

# Cells a side. 256 x 256 float32 are 350 kB on their way to the browser, and two pixels a cell.
MOST_CELLS = 256
# Smallest weight that the logarithmic colours tell from zero: below it half precision has a few bits left.
_LOG_FLOOR = -4.0
# Rounding to half precision moves a row's sum by at most 6e-4 at 1,024 keys.
_ROUNDING = 2e-3
# Labels a side at the full width of a map: the whole of their height at 11 px.
MOST_LABELS = 48


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokens of a map's window, one text a position, [start, stop) of which is shown."""

    texts: Sequence[str]
    start: int
    stop: int


def null_shares(weights: NDArray) -> NDArray[np.float64] | None:
    """The null key's weight by query (T,), 1 - row sum; None where all rows sum to 1 up to rounding."""
    shares = 1 - np.asarray(weights, dtype=np.float64).sum(axis=1)
    return np.clip(shares, 0, 1) if (shares > _ROUNDING).any() else None


def coarse(values: NDArray, cells: int = MOST_CELLS) -> tuple[NDArray[np.float32], int]:
    """`values` (Q, K) in blocks of n x n, so that no side has more than `cells`: (blocks, n).

    A block is its value of the greatest magnitude, so that a single strong weight is not averaged away; NaN where all
    of it is.
    """
    block = max(1, -(-max(values.shape) // cells))
    if block == 1:
        return values.astype(np.float32), 1
    q, k = (-(-n // block) for n in values.shape)
    padded = np.full((q * block, k * block), np.nan, dtype=np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    blocks = padded.reshape(q, block, k, block).transpose(0, 2, 1, 3).reshape(q, k, block * block)
    strongest = np.where(np.isnan(blocks), -1, np.abs(blocks)).argmax(axis=2)
    return np.take_along_axis(blocks, strongest[..., None], axis=2)[..., 0], block


def attention_map_figure(
    values: NDArray,
    tokens: Tokens,
    *,
    title: str,
    nulls: NDArray | None = None,
    signed: bool = False,
    log: bool = False,
    limit: float | None = None,
    cells: int = MOST_CELLS,
    labels: int = MOST_LABELS,
    theme: Theme = "light",
    height: int = 620,
) -> go.Figure:
    """`values` (T, T), weights or with `signed` logits, of the tokens shown; `nulls` (T,) as a bar at the right.

    `log` colours weights by their logarithm; else `limit` ends the colours' range, for maps seen beside each other.
    Hovering says "query token → key token: p".
    """
    window = slice(tokens.start, tokens.stop)
    causal = np.where(np.tri(len(values), dtype=bool), values.astype(np.float32), np.nan)
    shown, block = coarse(causal[window, window], cells)
    names = _names(tokens, block)
    layout = base_layout(theme, title=title, height=height, right=76)
    layout["margin"] |= {"l": 88, "b": 92}
    layout["hovermode"] = "closest"
    ticks = _ticks(tokens, names, block, labels)
    right = 1.0 if nulls is None else 0.88
    layout["xaxis"] = axis(
        theme,
        title=axis_title(theme, "key"),
        type="category",
        showgrid=False,
        domain=[0, right],
        tickangle=-90,
        **ticks,
    )
    layout["yaxis"] = axis(
        theme, title=axis_title(theme, "query"), type="category", showgrid=False, autorange="reversed", **ticks
    )
    layout["xaxis"]["title"]["standoff"] = layout["yaxis"]["title"]["standoff"] = 6
    if not np.isfinite(shown).any():
        layout["annotations"] = [note(theme, "no values yet")]
    number, what = ("%{z:.3f}", "logit") if signed else ("%{z:.4f}", "p")
    strongest = f", strongest of {block} × {block}" if block > 1 else ""
    heatmap: dict[str, Any] = {
        "type": "heatmap",
        "name": "map",
        "x": names,
        "y": names,
        "z": shown,
        "hoverongaps": False,
        "hovertemplate": f"%{{y}} → %{{x}}: {number}{strongest}<extra></extra>",
        **_colors(limit or magnitude(shown), signed=signed, log=log, what=what, theme=theme),
    }
    traces = [heatmap]
    if log and not signed:
        heatmap["showscale"] = False
        traces.append(_log_bar(theme))
    if nulls is not None:
        layout["xaxis2"] = axis(
            theme,
            title=axis_title(theme, "null share"),
            domain=[0.9, 1],
            range=[0, 1],
            tickvals=[0, 1],
            fixedrange=True,
        )
        of_blocks = np.maximum.reduceat(np.asarray(nulls)[window], np.arange(0, tokens.stop - tokens.start, block))
        traces.append(
            {
                "type": "bar",
                "name": "null share",
                "orientation": "h",
                "xaxis": "x2",
                "y": names,
                "x": of_blocks.astype(np.float32),
                "width": 1,
                "marker": {"color": ink("muted", theme), "line": {"width": 0}},
                "hovertemplate": "%{y} → null key: %{x:.4f}<extra></extra>",
            }
        )
    return go.Figure(traces, layout)


def magnitude(values: NDArray) -> float:
    """The greatest finite magnitude; 1 where there is none."""
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0)) or 1.0


def _colors(limit: float, *, signed: bool, log: bool, what: str, theme: Theme) -> dict[str, Any]:
    """Colours and their bar: weights from 0, logits around 0."""
    bar = {"title": {"text": what, "side": "right"}, "thickness": 10, "outlinewidth": 0, "len": 1}
    if signed:
        return {"colorscale": "RdBu_r", "zmin": -limit, "zmax": limit, "colorbar": bar}
    if log:
        return {"colorscale": _log_scale(theme), "zmin": 0.0, "zmax": 1.0}
    return {"colorscale": sequential(theme), "zmin": 0.0, "zmax": limit, "colorbar": bar}


def _log_scale(theme: Theme) -> list[list[Any]]:
    """The sequential scale with its stops spread by log10 p over [0, 1], so that cells still hold p for hovering."""
    from plotly.colors import sample_colorscale

    shares = np.linspace(0, 1, 41)
    stops = 10 ** (_LOG_FLOOR * (1 - shares))
    colors = sample_colorscale(sequential(theme), shares.tolist())
    return [[0.0, colors[0]], *([float(stop), color] for stop, color in zip(stops, colors, strict=True))]


def _log_bar(theme: Theme) -> dict[str, Any]:
    """A trace without points that carries the colour bar of `_log_scale`, with even decades."""
    decades = np.arange(_LOG_FLOOR, 1)
    bar = {
        "title": {"text": "p", "side": "right"},
        "thickness": 10,
        "outlinewidth": 0,
        "len": 1,
        "tickvals": decades.tolist(),
        "ticktext": ["≤ 0.0001", *(f"{10**d:g}" for d in decades[1:])],
    }
    marker = {
        "color": [0],
        "cmin": _LOG_FLOOR,
        "cmax": 0,
        "colorscale": sequential(theme),
        "showscale": True,
        "colorbar": bar,
    }
    return {
        "type": "scatter",
        "name": "p",
        "x": [None],
        "y": [None],
        "mode": "markers",
        "marker": marker,
        "hoverinfo": "skip",
    }


def _names(tokens: Tokens, block: int) -> list[str]:
    """A name for each row: its position, which makes it unlike all others, and its token."""
    names = []
    for first in range(tokens.start, tokens.stop, block):
        last = min(first + block, tokens.stop) - 1
        text = "".join(tokens.texts[first : last + 1])
        place = f"{first}" if first == last else f"{first}–{last}"
        names.append(f"{place} {html.escape(text, quote=False)}".rstrip())
    return names


def _ticks(tokens: Tokens, names: Sequence[str], block: int, labels: int) -> dict[str, Any]:
    """A label for each token where there is room, else for every n-th, with its position."""
    every = max(1, -(-len(names) // labels))
    texts = []
    for i in range(0, len(names), every):
        position = tokens.start + i * block
        token = html.escape(_short(tokens.texts[position]), quote=False)
        texts.append(token if every == 1 and block == 1 and token else f"{position} {token}".rstrip())
    return {"tickmode": "array", "tickvals": list(range(0, len(names), every)), "ticktext": texts}


def _short(text: str, most: int = 9) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
