"""Figures of attention metrics, and what uniform attention would measure."""

# Figures get their attributes at run time.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
import pytest

from bottleneck_core.figures.attention import head_lines, head_map, layer_lines, uniform_value
from bottleneck_core.figures.view import View

STEPS = np.array([0, 100, 200])
VALUES = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 4)


def test_a_line_per_layer_is_the_mean_over_measured_heads():
    values = VALUES.copy()
    values[:, 0, 1:] = np.nan
    figure = layer_lines(STEPS, values, View(), title="Entropy")
    assert [trace.name for trace in figure.data] == ["layer 0", "layer 1"]
    np.testing.assert_allclose(figure.data[0].y, values[:, 0, 0])
    np.testing.assert_allclose(figure.data[1].y, VALUES[:, 1].mean(axis=1))


def test_an_unmeasured_layer_has_no_line():
    values = VALUES.copy()
    values[:, 1] = np.nan
    assert [t.name for t in layer_lines(STEPS, values, View(), title="Entropy").data] == ["layer 0"]


def test_heads_of_a_layer_and_the_baseline():
    figure = head_lines(STEPS, VALUES, 1, View(), title="Entropy", baseline=4.0)
    assert [t.name for t in figure.data] == ["head 0", "head 1", "head 2", "head 3", "uniform"]
    np.testing.assert_allclose(figure.data[3].y, VALUES[:, 1, 3])
    assert figure.data[4].line.dash == "dash" and set(figure.data[4].y) == {4.0}


def test_many_lines_have_a_colour_bar_and_only_the_baseline_is_labelled():
    values = np.random.default_rng(0).random((3, 12, 2)).astype(np.float32)
    figure = layer_lines(STEPS, values, View(), title="Entropy", baseline=4.0)
    bar = figure.data[-1].marker
    assert bar.showscale and (bar.cmin, bar.cmax) == (0, 11) and len(bar.colorscale) == 12
    assert [note.text for note in figure.layout.annotations] == ["uniform 4"]
    assert not figure.layout.showlegend


def test_no_probe_yet():
    figure = layer_lines(np.empty(0), np.empty((0, 2, 4)), View(), title="Entropy")
    assert figure.layout.annotations[0].text == "no values yet"


def test_map_puts_layer_zero_on_top():
    figure = head_map(VALUES[-1], title="Entropy", unit="nats", theme="dark")
    heatmap = figure.data[0]
    assert heatmap.z.shape == (2, 4) and figure.layout.yaxis.autorange == "reversed"
    np.testing.assert_array_equal(heatmap.z[1], VALUES[-1, 1])


def test_maps_seen_after_each_other_share_limits_and_frame_the_chosen_head():
    figure = head_map(VALUES[-1], title="Entropy", unit="nats", limits=(0.0, 30.0), chosen=(1, 2))
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, 30)
    frame = figure.layout.shapes[0]
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (1.5, 2.5, 0.5, 1.5)
    assert not head_map(VALUES[-1], title="Entropy", unit="nats").layout.shapes


def uniform_map(tokens, null):
    """Rows of uniform attention; the last column is the null key."""
    rows = np.zeros((tokens, tokens + 1))
    for q in range(tokens):
        visible = [*range(q + 1), *([tokens] if null else [])]
        rows[q, visible] = 1 / len(visible)
    return rows


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("tokens", [2, 5, 50])
def test_uniform_values_against_the_explicit_map(tokens, null):
    rows = uniform_map(tokens, null)
    keys, q = rows[:, :tokens], np.arange(tokens)
    offsets = q[:, None] - q[None, :]
    safe = np.where(rows > 0, rows, 1)
    explicit = {
        "entropy": -(rows * np.log(safe)).sum(1).mean(),
        "topk_mass": np.sort(rows, axis=1)[:, ::-1][:, :4].sum(1).mean(),
        "local_mass": np.where((offsets >= 0) & (offsets <= 3), keys, 0).sum(1).mean(),
        "null_mass": rows[:, tokens].mean(),
        "sink_mass": keys[:, 0].mean(),
        "prev_mass": np.diagonal(keys, -1).mean(),
        "distance": (keys * np.maximum(offsets, 0)).sum(1).mean(),
    }
    for metric, expected in explicit.items():
        assert uniform_value(metric, tokens, null=null, top_k=4, window=3) == pytest.approx(expected), metric


def test_metrics_without_a_uniform_value():
    assert uniform_value("erank", 128, null=True) is None
    assert uniform_value("entropy", 0, null=True) is None
