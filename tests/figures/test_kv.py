"""Sizes over the context, and what a cache is made of."""

# Figures get their attributes at run time.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
import pytest

from bottleneck_core.figures.kv import SizeLine, size_figure
from bottleneck_core.figures.kv_parts import Bar, Segment, breakdown_figure

GIB = 2**30
TOKENS = (1, 1000, 128_000, 10_000_000)
LINE = SizeLine(name="A tiny", color="#0072B2", tokens=TOKENS, bytes=[2304 * n for n in TOKENS])
DEVICES = {"T4": 15 * GIB, "H100": 80 * GIB, "A100": 80 * GIB, "B200": 179 * GIB}
BAR = Bar(
    name="A tiny",
    color="#0072B2",
    segments=[
        Segment(name="k fp16", detail="full", bytes=300),
        Segment(name="v q4_0", detail="full", bytes=100, shade=1),
    ],
)


def labels(figure):
    return [annotation.text for annotation in figure.layout.annotations]


def traces(figure, name):
    return [trace for trace in figure.data if trace.name == name]


def test_both_axes_are_logarithmic_and_hold_lines_and_devices():
    figure = size_figure([LINE], context=128_000, devices=DEVICES)
    x, y = figure.layout.xaxis, figure.layout.yaxis
    assert (x.type, y.type) == ("log", "log")
    assert x.range == (0, 7)
    assert 10 ** y.range[0] < 2304 and 10 ** y.range[1] > 179 * GIB
    assert "10M" in x.ticktext and "128,000" in labels(figure)
    assert x.title.text == "context (tokens of each request)" and "bytes" in figure.layout.title.text


def test_a_line_says_its_sizes_and_is_labelled_at_its_end():
    figure = size_figure([LINE], context=128_000, devices={})
    line = traces(figure, "A tiny")[0]
    assert line.y == tuple(LINE.bytes)
    assert list(line.customdata[2]) == ["281 MiB", "294,912,000 B"]
    end = next(a for a in figure.layout.annotations if a.text == "A tiny 21.5 GiB")
    assert end.x == 7 and end.y == pytest.approx(np.log10(LINE.bytes[-1]))
    point = traces(figure, "A tiny here")[0]
    assert (point.x, point.y) == ((128_000,), (294_912_000,))


def test_the_chosen_device_is_named_before_its_twins():
    for chosen in ("H100", "A100"):
        named = labels(size_figure([LINE], context=1000, devices=DEVICES, chosen=chosen))
        assert f"{chosen} · 80.0 GiB" in named
        assert sum("80.0 GiB" in text for text in named) == 1


def test_device_names_keep_their_distance():
    crowd = {f"card {n}": n * GIB for n in range(10, 200, 3)}
    figure = size_figure([LINE], context=1000, devices=crowd, chosen="card 100", height=420)
    places = sorted(a.y for a in figure.layout.annotations if a.text.startswith("card"))
    low, high = figure.layout.yaxis.range
    assert len(places) > 2 and np.diff(places).min() / (high - low) * (420 - 80) >= 16.9


def test_ends_of_equal_lines_do_not_overlap():
    twins = [SizeLine(name=name, color="#0072B2", tokens=TOKENS, bytes=LINE.bytes) for name in "ABCD"]
    figure = size_figure(twins, context=1000, devices={})
    ends = [a for a in figure.layout.annotations if a.xshift == 8]
    low, high = figure.layout.yaxis.range
    pixels = sorted((high - a.y) / (high - low) * 340 - a.yshift for a in ends)
    assert np.diff(pixels).min() >= 15


def test_names_are_data():
    hostile = "<i>x</i> %{y}"
    line = SizeLine(name=hostile, color="#0072B2", tokens=TOKENS, bytes=LINE.bytes)
    bar = Bar(name=hostile, color="#0072B2", segments=[Segment(name=hostile, detail=hostile, bytes=1)])
    for figure in (size_figure([line], context=1, devices={hostile: GIB}), breakdown_figure([bar], title="")):
        text = str(figure.to_json())
        assert "&lt;i&gt;x" in text or "\\u0026lt;i" in text
        assert "<i>" not in text and "\\u003ci" not in text and "%{y}" not in text


def test_bars_add_up_and_shares_are_of_each():
    small = Bar(name="B", color="#D55E00", segments=[Segment(name="k", detail="", bytes=40)])
    figure = breakdown_figure([BAR, small], title="tensors")
    assert figure.layout.barmode == "stack"
    assert [(t.y[0], t.x[0]) for t in figure.data] == [(0, 300), (0, 100), (1, 40)]
    assert list(figure.data[0].customdata[0][1:]) == ["300 B", "300 B", "75.0"]
    assert {"A tiny · 400 B", "B · 40 B"} <= set(labels(figure))
    shares = breakdown_figure([BAR, small], title="tensors", shares=True)
    assert [t.x[0] for t in shares.data] == [75, 25, 100]
    assert tuple(shares.layout.xaxis.range) == (0, 100) and shares.layout.xaxis.ticksuffix == " %"


def test_only_parts_with_room_are_named_inside():
    figure = breakdown_figure([BAR], title="", width=200)
    assert [t.text[0] for t in figure.data] == ["k fp16", ""]
    assert figure.data[0].marker.color != figure.data[1].marker.color


@pytest.mark.parametrize("size", [1, 999, 1000, 5 * 2**20, 2**60])
def test_ticks_of_bars_are_round_and_within(size):
    bar = Bar(name="A", color="#0072B2", segments=[Segment(name="k", detail="", bytes=size)])
    axis = breakdown_figure([bar], title="").layout.xaxis
    assert 2 <= len(axis.tickvals) <= 7 and max(axis.tickvals) <= size


def test_nothing_to_draw_is_said():
    assert labels(size_figure([], context=1, devices=DEVICES)) == ["no scenario has a size yet"]
    assert labels(breakdown_figure([], title="")) == ["nothing is cached"]


def test_themes_differ_in_ink():
    light = size_figure([LINE], context=1, devices=DEVICES, theme="light")
    dark = size_figure([LINE], context=1, devices=DEVICES, theme="dark")
    assert light.layout.font.color != dark.layout.font.color
