"""What a figure of curves shows: ranges, gaps, labels, marks, axes."""

# Figures get their attributes at run time.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bottleneck_core.figures.curves import Chart, Series, curve_figure, value_range
from bottleneck_core.figures.marks import Mark
from bottleneck_core.figures.smoothing import ema
from bottleneck_core.figures.training import (
    gradient_figure,
    gradient_groups,
    loss_figure,
    perplexity_figure,
    throughput_figure,
)
from bottleneck_core.figures.view import View, XScale


def train_frame(n=5000):
    step = np.arange(n)
    loss = 4 + 6 * np.exp(-step / 50) + np.random.default_rng(0).normal(0, 0.1, n)
    return pd.DataFrame(
        {"step": step, "loss": loss, "tokens": (step + 1) * 16384.0, "time_s": step * 1.5, "tok_s": 1e6}
    )


def eval_frame():
    step = np.arange(0, 5001, 200)
    return pd.DataFrame({"step": step, "val_loss": 4.1 + 6 * np.exp(-step / 300) + 0.001 * (step > 4000)})


def traces(figure):
    return {trace.name: trace for trace in figure.data}


def test_loss_has_raw_smoothed_validation_and_best():
    train, evaluations = train_frame(), eval_frame()
    figure = loss_figure(train, evaluations, View(smoothing=0.9), color="#0072B2")
    assert list(traces(figure)) == ["train, raw", "train", "val", "best val"]
    best = traces(figure)["best val"]
    assert best.x[0] == evaluations["step"][evaluations["val_loss"].idxmin()]
    assert best.y[0] == pytest.approx(evaluations["val_loss"].min())
    labels = [note.text for note in figure.layout.annotations]
    assert labels[1] == f"val {evaluations['val_loss'].iloc[-1]:.4f}"
    assert labels[0] == f"train {ema(train['loss'], 0.9)[-1]:.4f}"


def test_smoothing_sees_all_rows_not_the_drawn_ones():
    train = train_frame(50_000)
    figure = loss_figure(train, eval_frame(), View(smoothing=0.99, columns=50), color="#0072B2")
    line = traces(figure)["train"]
    expected = ema(train["loss"], 0.99)[line.x]
    np.testing.assert_allclose(line.y, expected, rtol=1e-5)
    assert len(line.x) < 500


def test_points_of_all_lines_stay_where_they_are_while_a_run_grows():
    train = train_frame(60_000)
    view = View(smoothing=0.9, columns=300)

    def points(rows):
        drawn = traces(loss_figure(train[:rows], eval_frame(), view, color="#0072B2"))
        old = {name: drawn[name].x < 50_000 - 256 for name in ("train, raw", "train")}
        return {name: list(zip(drawn[name].x[x], drawn[name].y[x], strict=True)) for name, x in old.items()}

    before = points(50_000)
    assert sum(map(len, before.values())) > 1000
    assert points(50_001) == before
    assert points(51_000) == before


def test_zoom_draws_single_rows():
    figure = loss_figure(train_frame(50_000), eval_frame(), View(x_range=(1000, 1200), columns=60), color="#0072B2")
    x = traces(figure)["train"].x
    assert set(range(1000, 1201)) <= set(x.tolist())


def test_y_range_ignores_the_fall_from_the_start_until_asked():
    train, evaluations = train_frame(), eval_frame()

    def range_of(**view):
        return loss_figure(train, evaluations, View(**view), color="#0072B2").layout.yaxis.range

    low, high = range_of()
    assert 3.5 < low < 4.0 and high < 9
    assert range_of(all_values=True)[1] > train["loss"].max() > high
    assert range_of(log_y=True)[1] == pytest.approx(np.log10(high), abs=0.1)


def test_y_range_holds_best_and_last_validation_values():
    evaluations = pd.DataFrame({"step": np.arange(1, 201), "val_loss": np.full(200, 5.0)})
    evaluations.loc[100, "val_loss"] = 3.0
    evaluations.loc[199, "val_loss"] = 8.0
    scale = XScale.of("step")
    series = Series.of(evaluations, "val_loss", scale, name="val", color="#000000", points=True)
    limits = value_range([series], View())
    assert limits is not None and limits[0] < 3.0 and limits[1] > 8.0


def test_y_axis_is_not_negative_for_what_never_is():
    figure = perplexity_figure(train_frame(), eval_frame(), View(), color="#0072B2")
    assert figure.layout.yaxis.range[0] >= 0
    assert throughput_figure(train_frame(), View(), color="#0072B2").layout.yaxis.range[0] == 0


@pytest.mark.parametrize(
    ("kind", "last", "title"),
    [("step", 4999, "step"), ("tokens", 5000 * 16384, "tokens"), ("time", 4999 * 1.5 / 3600, "time (hours)")],
)
def test_x_axes(kind, last, title):
    figure = loss_figure(train_frame(), pd.DataFrame({"step": []}), View(x_axis=kind), color="#0072B2")
    assert traces(figure)["train"].x[-1] == pytest.approx(last)
    assert figure.layout.xaxis.title.text == title
    assert figure.layout.xaxis.range[1] == pytest.approx(last)


@pytest.mark.parametrize(("seconds", "unit"), [(100, "seconds"), (600, "minutes"), (7200, "hours")])
def test_time_has_the_unit_that_suits(seconds, unit):
    assert XScale.of("time", pd.DataFrame({"time_s": [0.0, seconds, np.nan]})).title == f"time ({unit})"


def test_gaps_stay_gaps():
    train = train_frame(300)
    train.loc[100:150, "loss"] = np.nan
    for name, line in traces(loss_figure(train, eval_frame(), View(smoothing=0.5), color="#0072B2")).items():
        if name.startswith("train"):
            assert np.isnan(line.y[100:151]).all() and not line.connectgaps


def test_a_clock_set_back_does_not_fold_the_line():
    frame = pd.DataFrame({"step": [0, 1, 2, 3], "loss": [4.0, 3.0, 2.0, 1.0], "time_s": [0.0, 5.0, 3.0, 6.0]})
    series = Series.of(frame, "loss", XScale.of("time", frame), name="train", color="#000000")
    np.testing.assert_array_equal(series.x, [0, 3, 5, 6])
    np.testing.assert_array_equal(series.y, [4, 2, 3, 1])


def test_infinite_values_are_gaps():
    frame = pd.DataFrame({"step": [0, 1, 2], "loss": [4.0, np.inf, 2.0]})
    series = Series.of(frame, "loss", XScale.of("step"), name="train", color="#000000")
    assert np.isnan(series.y[1])
    assert value_range([series], View(all_values=True)) == pytest.approx((1.88, 4.12))


@pytest.mark.parametrize("rows", [0, 1])
def test_hardly_any_data(rows):
    train, evaluations = train_frame().head(rows), eval_frame().head(rows)
    figure = loss_figure(train, evaluations, View(smoothing=0.9), color="#0072B2")
    if rows == 0:
        assert [note.text for note in figure.layout.annotations] == ["no values yet"]
    else:
        assert "markers" in traces(figure)["train"].mode


def test_a_run_without_any_loss_column():
    assert len(loss_figure(pd.DataFrame(), pd.DataFrame(), View(), color="#0072B2").data) == 0


def test_marks_are_drawn_on_the_axis_and_told_on_hover():
    marks = [Mark(x=100, text="resumed at step 100"), Mark(x=200, text="non-finite loss", alarming=True)]
    event = traces(loss_figure(train_frame(), eval_frame(), View(), color="#0072B2", marks=marks))["event"]
    assert event.x == (100, 200) and set(event.y) == {0.0} and event.yaxis == "y2"
    assert list(event.customdata) == ["resumed at step 100", "non-finite loss"]
    assert event.marker.color[0] != event.marker.color[1]


def test_more_than_six_lines_get_a_legend():
    x = np.arange(10.0)
    series = [Series(name=f"layer {i}", x=x, y=x + i, color="#000000") for i in range(7)]
    figure = curve_figure(series, XScale.of("step"), View(), Chart(title="entropy"))
    assert figure.layout.showlegend and not figure.layout.annotations
    few = curve_figure(series[:6], XScale.of("step"), View(), Chart(title="entropy"))
    assert len(few.layout.annotations) == 6 and not few.layout.showlegend


def test_gradient_groups_that_the_model_lacks_are_left_out():
    train = pd.DataFrame(
        {
            "step": [0, 1],
            "grad_norm_attn": [1.0, 2.0],
            "grad_norm_attn_sem": [0.0, 0.0],
            "grad_clip_total_norm": [3.0, np.nan],
        }
    )
    assert gradient_groups(train) == ["grad_norm_attn"]
    assert list(traces(gradient_figure(train, View()))) == ["attn", "total"]


def test_perplexity_of_a_huge_loss_is_a_gap_without_a_warning():
    train = pd.DataFrame({"step": [0, 1], "loss": [1000.0, 2.0]})
    line = traces(perplexity_figure(train, pd.DataFrame(), View(), color="#0072B2"))["train"]
    assert np.isnan(line.y[0]) and line.y[1] == pytest.approx(np.exp(2.0))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_uirevision_is_constant(theme):
    one = loss_figure(train_frame(10), eval_frame(), View(theme=theme), color="#0072B2")
    other = loss_figure(train_frame(20), eval_frame(), View(theme=theme), color="#0072B2")
    assert one.layout.uirevision == other.layout.uirevision is not None
