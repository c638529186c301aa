"""Plotly figures drawn with matplotlib: the same data, limits, colours and texts, and the same bytes each time."""

from __future__ import annotations

import warnings
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bottleneck_core.figures import numbers
from bottleneck_core.figures.attention import head_map, layer_lines
from bottleneck_core.figures.compare import Line, Overlay, overlay_figure
from bottleneck_core.figures.layout import layout_of
from bottleneck_core.figures.maps import Tokens, attention_map_figure, null_shares
from bottleneck_core.figures.palette import categorical
from bottleneck_core.figures.quantities import Quantity, RunPoint
from bottleneck_core.figures.scatter import CACHE, LOSS, scatter_figure
from bottleneck_core.figures.static_sheet import Sheet, drawn, png_bytes, svg_bytes
from bottleneck_core.figures.static_text import color_map, rgba
from bottleneck_core.figures.training import loss_figure
from bottleneck_core.figures.view import View

X = np.arange(0, 1001, 20.0)
CHART = Overlay(title="loss", x_title="step", format=numbers.loss)


def sheet(*figures: go.Figure) -> Figure:
    return drawn(Sheet(name="s", title="a sheet", rows=[list(figures)], widths=[600] * len(figures)))


def line(name: str = "a", color: str = "#0072B2", **changes: Any) -> Line:
    settings: dict[str, Any] = {"name": name, "color": color, "x": X, "y": 2 + 3 * np.exp(-X / 200)}
    return Line(**(settings | changes))


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [t.get_text() for t in figure.texts]


def test_lines_have_the_values_the_limits_and_the_colour_of_the_figure() -> None:
    plot = overlay_figure([line()], View(), CHART)
    axes = sheet(plot).axes[0]
    drawn_line = next(found for found in axes.lines if len(np.asarray(found.get_xdata())) == len(X))
    np.testing.assert_allclose(np.asarray(drawn_line.get_ydata()), plot.data[0].y, rtol=1e-6)  # pyright: ignore
    assert to_hex(drawn_line.get_color()) == "#0072b2"
    assert axes.get_xlim() == (0, 1000) and axes.get_ylim() == tuple(layout_of(plot).yaxis.range)
    assert axes.get_xlabel() == "step"


def test_labels_at_the_ends_have_room() -> None:
    name = "a_run_with_a_rather_long_name"
    figure = sheet(overlay_figure([line(name), line("b", "#D55E00", y=X / 1000)], View(), CHART))
    assert {f"{name} 2.0202", "b 1.0000"} <= set(texts(figure))
    figure.canvas.draw()
    width = figure.get_size_inches()[0] * figure.dpi
    assert max(text.get_window_extent().x1 for text in figure.axes[0].texts) <= width


def test_points_beyond_the_limits_are_not_drawn() -> None:
    plot = overlay_figure([line(points=True)], View(), CHART)
    low, high = layout_of(plot).yaxis.range
    marks = [found for found in sheet(plot).axes[0].lines if found.get_marker() == "o"]
    heights = np.concatenate([np.asarray(found.get_ydata()) for found in marks])
    assert len(heights) and heights.min() >= low and heights.max() <= high < 5


def test_bands_gaps_dashes_and_log_axes() -> None:
    y = np.where(X == 500, np.nan, 1 + X)
    shown = line(y=y, low=y * 0.9, high=y * 1.1, dash="dot")
    axes = sheet(overlay_figure([shown], View(log_y=True), CHART)).axes[0]
    assert axes.get_yscale() == "log" and axes.get_ylim()[0] > 0
    assert len(axes.patches) == 2  # a band on either side of the gap
    assert axes.lines[0].get_linestyle() == "--"  # what matplotlib calls any pattern of its own


def test_labels_on_a_log_axis_stand_at_their_lines() -> None:
    steps = np.arange(0, 1000, 10)
    train = pd.DataFrame({"step": steps, "loss": 1 + 9 * np.exp(-steps / 300)})
    axes = sheet(loss_figure(train, pd.DataFrame(), View(log_y=True), color="#0072B2")).axes[0]
    assert axes.texts[0].xy[1] == pytest.approx(float(train["loss"].iloc[-1]))  # pyright: ignore


def test_more_lines_than_labels_have_a_legend() -> None:
    lines = [line(f"run {i}", color) for i, color in enumerate(categorical(8))]
    plot = overlay_figure(lines, View(), CHART)
    plot.update_layout(showlegend=True, legend_font_size=12)
    figure = sheet(plot)
    assert [f"run {i}" in texts(figure) for i in range(8)] == [True] * 8
    samples = [to_hex(axes.lines[0].get_color()) for axes in figure.axes[1:]]
    assert samples == [color.lower() for color in categorical(8)]


def test_a_scatter_names_its_points_and_draws_the_frontier() -> None:
    size = Quantity(key=CACHE, label="KV", unit="bytes", log=True, binary=True)
    loss = Quantity(key=LOSS, label="loss")
    spread = {LOSS: (2.9, 3.2)}
    points = [
        RunPoint(name="small <b>", color="#0072B2", values={CACHE: 1024.0, LOSS: 3.0}, spread=spread),
        RunPoint(name="large", color="#D55E00", values={CACHE: 8192.0, LOSS: 2.0}),
    ]
    figure = sheet(scatter_figure(points, size, loss))
    axes = figure.axes[0]
    assert {"small <b>", "large"} <= set(texts(figure)) and axes.get_xscale() == "log"
    assert len(axes.containers) == 1  # bars from the least to the greatest
    frontier = next(found for found in axes.lines if found.get_drawstyle() == "steps-post")
    assert np.asarray(frontier.get_xdata()).tolist() == [1024, 8192]


def test_maps_keep_values_colours_and_direction() -> None:
    values = np.array([[0.0, 1.0], [2.0, np.nan]])
    figure = sheet(head_map(values, title="m", unit="nats"))
    axes = figure.axes[0]
    mesh: Any = axes.collections[0]
    assert mesh.get_array().tolist() == [[0, 1], [2, None]] and mesh.get_clim() == (0, 2)
    assert axes.get_ylim() == (1.5, -0.5)  # layer 0 at the top
    assert figure.axes[1].get_ylabel() == "nats"


def test_an_attention_map_has_its_null_shares_beside_it() -> None:
    weights = np.tril(np.full((8, 8), 0.1))
    tokens = Tokens(texts=[""] * 8, start=0, stop=8)
    plot = attention_map_figure(weights, tokens, title="m", nulls=null_shares(weights), log=True)
    figure = sheet(plot)
    places, bars = figure.axes[:2]
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], 1 - weights.sum(axis=1), rtol=1e-6)  # pyright: ignore
    assert bars.get_ylim() == places.get_ylim() == (7.5, -0.5)
    assert any("≤ 0.0001" in label.get_text() for label in figure.axes[-1].get_yticklabels())


def test_lines_of_layers_have_a_bar_that_tells_their_colours() -> None:
    values = np.random.default_rng(0).random((5, 8, 2))
    figure = sheet(layer_lines(np.arange(5) * 100, values, View(), title="t", baseline=0.5))
    assert figure.axes[-1].get_ylabel() == "layer" and len(figure.axes) == 2
    assert any(text.startswith("uniform") for text in texts(figure))


def test_the_same_figure_gives_the_same_bytes_and_nothing_global_changes() -> None:
    before = dict(matplotlib.rcParams)
    one, two = (sheet(overlay_figure([line()], View(), CHART)) for _ in range(2))
    assert png_bytes(one) == png_bytes(two) and svg_bytes(one, "s") == svg_bytes(two, "s")
    assert b"<dc:date" not in svg_bytes(one, "s")
    assert dict(matplotlib.rcParams) == before


def test_a_png_has_two_dots_a_pixel() -> None:
    header = png_bytes(sheet(overlay_figure([line()], View(), CHART)))[16:24]
    assert int.from_bytes(header[:4], "big") == 2 * (600 + 20)


def test_letters_without_a_shape_are_boxes_and_no_mathematics_is_read() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = sheet(overlay_figure([line("试 $x_1$ &lt;")], View(), CHART))
        png_bytes(figure)
    assert "□ $x_1$ &lt; 2.0202" in texts(figure)


def test_an_empty_figure_says_so_and_an_unknown_trace_is_refused() -> None:
    assert "nothing" in texts(sheet(overlay_figure([], View(), Overlay(title="t", x_title="x", empty="nothing"))))
    plot = overlay_figure([line()], View(), CHART)
    plot.add_trace(go.Pie(values=[1]))
    with pytest.raises(ValueError, match="pie"):
        sheet(plot)


def test_colours_and_scales() -> None:
    assert rgba("rgba(255, 0, 51, 0.5)") == (1.0, 0.0, 0.2, 0.5) and rgba("#ff0033") == rgba("rgb(255,0,51)")
    scale = color_map([(0, "#000000"), (1e-4, "#ffffff"), (1, "#ff0000")])
    assert scale(0.0)[:3] == (0, 0, 0) and min(scale(1e-4)[:3]) > 0.8
