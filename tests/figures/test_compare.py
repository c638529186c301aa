"""Runs over each other: what survives thinning, what bands and labels show, how big a figure gets."""

# Figures get their attributes at run time.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
import pytest

from bottleneck_core.figures.compare import DASHES, Line, Overlay, columns_for, dashes_of, overlay_figure
from bottleneck_core.figures.frontier import frontier
from bottleneck_core.figures.palette import categorical
from bottleneck_core.figures.parallel import MOST_AXES, parallel_figure
from bottleneck_core.figures.quantities import Quantity, RunPoint, log_ticks, varying
from bottleneck_core.figures.scatter import CACHE, LOSS, pareto, scatter_figure
from bottleneck_core.figures.view import View

CHART = Overlay(title="loss", x_title="step")
HOSTILE = "<b>a</b>&%{y}"


def line(name="a", n=2000, color="#0072B2", **parts):
    x = np.arange(float(n))
    y = 3 + 4 * np.exp(-x / 100) + np.random.default_rng(0).normal(0, 0.01, n)
    return Line(**{"name": name, "color": color, "x": x, "y": y, **parts})


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_spikes_and_last_points_survive_in_fifty_lines():
    lines = [line(f"run {i}", n=30_000) for i in range(50)]
    for i, one in enumerate(lines):
        one.y[1000 + 7 * i] = 50.0 + i
        one.y[-1] = 2.0 + i
    figure = overlay_figure(lines, View(), CHART)
    assert len(figure.data) == 50
    for i, one in enumerate(figure.data):
        assert one.y.max() == 50.0 + i and one.y[-1] == 2.0 + i and one.x[-1] == 29_999
    assert len(figure.to_json()) < 1_000_000
    assert figure.layout.hovermode == "closest" and not figure.layout.annotations


def test_more_lines_have_fewer_columns():
    assert [columns_for(n) for n in (0, 1, 10, 50, 10_000)] == [600, 600, 600, 187, 40]


def test_raw_values_lie_behind_up_to_twelve_lines():
    def names(n):
        lines = [line(f"run {i}") for i in range(n)]
        lines = [line(f"run {i}", raw=one.y + 1) for i, one in enumerate(lines)]
        return [trace.name for trace in overlay_figure(lines, View(), CHART).data]

    assert names(2) == ["run 0, raw", "run 1, raw", "run 0", "run 1"]
    assert len(names(12)) == 24 and len(names(13)) == 13


def test_zoom_brings_single_rows():
    figure = overlay_figure([line(n=50_000)], View(x_range=(1000, 1100), columns=60), CHART)
    assert set(range(1000, 1101)) <= set(figure.data[0].x.tolist())


def test_log_x_leaves_out_what_has_no_logarithm_and_zooms_in_logarithms():
    figure = overlay_figure(
        [line(n=50_000)], View(x_range=(3.0, 3.01), columns=60), Overlay(**{**vars(CHART), "log_x": True})
    )
    x = figure.data[0].x
    assert figure.layout.xaxis.type == "log" and x[0] == 1
    np.testing.assert_allclose(figure.layout.xaxis.range, [0, np.log10(49_999)], rtol=1e-6)
    assert set(range(1000, 1024)) <= set(np.round(x).astype(int).tolist())
    # The clipping of the y-axis goes by the share of x, not of its logarithm.
    linear = overlay_figure([line(n=50_000)], View(), CHART)
    assert figure.layout.yaxis.range == linear.layout.yaxis.range


def test_y_range_clips_outliers_until_asked():
    one = line()
    one.y[1500] = 500.0
    assert overlay_figure([one], View(), CHART).layout.yaxis.range[1] < 7
    assert overlay_figure([one], View(all_values=True), CHART).layout.yaxis.range[1] > 500
    low, high = overlay_figure([one], View(log_y=True), CHART).layout.yaxis.range
    assert low < np.log10(3) < high < 1


def test_a_band_is_filled_between_its_edges_and_broken_at_gaps():
    one = line(n=20)
    low, high = one.y - 1, one.y + 1
    low[8:10] = np.nan
    figure = overlay_figure([line(n=20, low=low, high=high)], View(), CHART)
    edges = [trace for trace in figure.data if trace.name == "a, band"]
    assert [trace.fill for trace in edges] == [None, "tonexty", None, "tonexty"]
    np.testing.assert_array_equal(edges[0].x, np.arange(8))
    np.testing.assert_array_equal(edges[3].x, np.arange(10, 20))
    np.testing.assert_allclose(edges[1].y, high[:8], rtol=1e-6)
    assert figure.data[-1].name == "a"


def test_up_to_six_lines_are_labelled_at_their_ends():
    few = overlay_figure([line(f"run {i}") for i in range(6)], View(), CHART)
    assert [note.text.rpartition(" ")[0] for note in few.layout.annotations] == [f"run {i}" for i in range(6)]
    heights = sorted(note.y for note in few.layout.annotations)
    assert min(np.diff(heights)) * (CHART.height - 74) >= 14.9  # none covers another
    assert not overlay_figure([line(f"run {i}") for i in range(7)], View(), CHART).layout.annotations


def test_names_are_text():
    figure = overlay_figure([line(HOSTILE)], View(), CHART)
    escaped = "&lt;b&gt;a&lt;/b&gt;&amp;%{y}"
    assert figure.data[0].name == escaped and figure.layout.annotations[0].text.startswith(escaped)
    points = [RunPoint(name=HOSTILE, color="#000000", values={"a": float(i), "b": float(i)}) for i in (1, 2)]
    quantities = [Quantity(key="a", label="a"), Quantity(key="b", label="b")]
    drawn = scatter_figure(points, *quantities)
    assert drawn.data[0].customdata[0][1] == escaped and "<b>a" not in str(drawn.data[0].text)
    assert parallel_figure(points, quantities).data[0].name == escaped


def test_nothing_to_draw_is_said():
    figure = overlay_figure([line(y=np.full(2000, np.nan))], View(), CHART)
    assert figure.layout.annotations[0].text == CHART.empty and not figure.data


def test_uirevision_is_constant():
    one, other = (overlay_figure([line(n=n)], View(), CHART).layout.uirevision for n in (10, 20))
    assert one == other is not None


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_lines_of_one_colour_differ_in_their_dashes(theme):
    blue, green, navy = "#0072B2", "#009E73", "#00507D"
    assert dashes_of([blue, green, blue, navy]) == ["solid", "solid", "dash", "dot"]
    assert dashes_of([blue] * 6) == [*DASHES, "solid"]
    colors = categorical(10, theme) * 3
    looks = list(zip(colors, dashes_of(colors), strict=True))
    assert len(set(looks)) == 30


# Points

LOSS_Q = Quantity(key=LOSS, label="best validation loss", unit="nats per token")
CACHE_Q = Quantity(key=CACHE, label="KV cache per token", unit="bytes", log=True, binary=True)


def point(name, loss, cache, **more):
    return RunPoint(name=name, color="#0072B2", values={LOSS: loss, CACHE: cache}, **more)


POINTS = [point("a", 4.2, 12288.0), point("none", None, 100.0), point("b", 4.3, 2304.0), point("worse", 4.4, 3072.0)]


def test_the_frontier_is_that_of_the_runs_page():
    assert [p.name for p in pareto(POINTS)] == ["b", "a"]
    rows = [{"best_val_loss": p.values[LOSS], "kv_bytes_128k": p.values[CACHE], "id": p.name} for p in POINTS]
    assert [row["id"] for row in frontier(rows)] == [p.name for p in pareto(POINTS)]


def test_scatter_knows_its_runs_and_draws_the_frontier_either_way_round():
    figure = scatter_figure(POINTS, CACHE_Q, LOSS_Q)
    line_, points = traces(figure)["frontier"], traces(figure)["runs"]
    assert list(line_.x) == [2304, 12288] and line_.line.shape == "hv"
    assert [data[0] for data in points.customdata] == [0, 2, 3]
    assert figure.layout.xaxis.type == "log" and figure.layout.xaxis.title.text == "KV cache per token (bytes)"
    turned = scatter_figure(POINTS, LOSS_Q, CACHE_Q)
    assert traces(turned)["frontier"].line.shape == "vh" and turned.layout.yaxis.type == "log"
    other = Quantity(key="params", label="parameters")
    assert not scatter_figure(POINTS, other, LOSS_Q).data


def test_groups_have_bars_from_their_least_to_their_greatest():
    group = point("g", 4.0, 2304.0, spread={LOSS: (3.9, 4.2)})
    error = traces(scatter_figure([group, POINTS[0]], CACHE_Q, LOSS_Q))["runs"].error_y
    np.testing.assert_allclose(error.array, [0.2, 0])
    np.testing.assert_allclose(error.arrayminus, [0.1, 0], atol=1e-12)
    assert error.visible and not traces(scatter_figure(POINTS, CACHE_Q, LOSS_Q))["runs"].error_y.visible


def test_log_ticks_are_round_and_few():
    assert log_ticks(500, 5000, binary=True) == [512, 1024, 2048, 4096]
    assert log_ticks(0.9, 60, binary=False) == [1, 2, 5, 10, 20, 50]
    for top in (1e3, 1e6, 1e12, 1e30):
        ticks = log_ticks(1, top, binary=False)
        assert 2 <= len(ticks) <= 7 and all(1 <= tick <= top for tick in ticks)


def test_parallel_axes_are_those_that_differ():
    quantities = [Quantity(key=key, label=key) for key in ("lr", "same", "loss")]
    points = [
        RunPoint(name="a", color="#0072B2", values={"lr": 1e-4, "same": 1.0, "loss": 4.0}),
        RunPoint(name="b", color="#D55E00", values={"lr": 1e-2, "same": 1.0, "loss": 3.0}, dash="dot"),
        RunPoint(name="c", color="#009E73", values={"lr": 1e-3, "same": 1.0, "loss": None}),
    ]
    assert [q.key for q in varying(quantities, points)] == ["lr", "loss"]
    figure = parallel_figure(points, quantities)
    assert list(figure.data[0].y) == [0, 1] and list(figure.data[1].y) == [1, 0]
    assert list(figure.data[2].y) == [pytest.approx(0.5), None]  # two decades: by the logarithm
    assert figure.data[1].line.dash == "dot"
    texts = [note.text for note in figure.layout.annotations]
    assert texts == ["0.01", "1e-4", "lr (log)", "4", "3", "loss"]


def test_parallel_needs_two_numbers_and_has_room_for_eight():
    many = [Quantity(key=f"k{i}", label=f"k{i}") for i in range(12)]
    points = [RunPoint(name=n, color="#000000", values={q.key: v for q in many}) for n, v in (("a", 1.0), ("b", 2.0))]
    assert len(parallel_figure(points, many).data[0].y) == MOST_AXES
    assert "fewer than two numbers" in parallel_figure(points, many[:1]).layout.annotations[0].text
