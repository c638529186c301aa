"""Attention maps: cells, blocks, tokens, colours and the null key's bar."""

# Figures get their attributes at run time.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false

from __future__ import annotations

import numpy as np
import pytest
from plotly.colors import sample_colorscale

from bottleneck_core.figures.maps import Tokens, attention_map_figure, coarse, null_shares
from bottleneck_core.figures.palette import sequential


def weights(size: int, null: float = 0.0) -> np.ndarray:
    lower = np.tri(size)
    return (1 - null) * lower / lower.sum(axis=1, keepdims=True)


def tokens(size: int, start: int = 0, stop: int | None = None) -> Tokens:
    return Tokens(texts=[chr(97 + i % 26) for i in range(size)], start=start, stop=size if stop is None else stop)


def test_cells_hold_the_weights_and_nothing_above_the_diagonal():
    values = weights(4)
    heatmap = attention_map_figure(values, tokens(4), title="").data[0]
    np.testing.assert_allclose(heatmap.z[np.tri(4, dtype=bool)], values[np.tri(4, dtype=bool)], rtol=1e-6)
    assert np.isnan(heatmap.z[~np.tri(4, dtype=bool)]).all()
    assert list(heatmap.x) == list(heatmap.y) == ["0 a", "1 b", "2 c", "3 d"]
    assert heatmap.hovertemplate.startswith("%{y} → %{x}: %{z:.4f}")


def test_a_window_shows_its_part_with_its_positions():
    values = weights(8)
    figure = attention_map_figure(values, tokens(8, 3, 6), title="")
    np.testing.assert_allclose(figure.data[0].z[2], values[5, 3:6], rtol=1e-6)
    assert list(figure.data[0].y) == ["3 d", "4 e", "5 f"]
    assert list(figure.layout.xaxis.ticktext) == ["d", "e", "f"]


def test_token_texts_are_no_markup():
    shown = Tokens(texts=["<b>x</b>", "&lt;"], start=0, stop=2)
    figure = attention_map_figure(weights(2), shown, title="")
    assert list(figure.data[0].x) == ["0 &lt;b&gt;x&lt;/b&gt;", "1 &amp;lt;"]
    assert list(figure.layout.yaxis.ticktext) == ["&lt;b&gt;x&lt;/b&gt;", "&amp;lt;"]


def test_a_large_map_keeps_its_strongest_weights_in_blocks():
    values = np.zeros((10, 10))
    values[7, 2], values[8, 8] = 0.9, -2.0
    blocks, block = coarse(values, 4)
    assert block == 3 and blocks.shape == (4, 4)
    assert blocks[2, 0] == pytest.approx(0.9) and blocks[2, 2] == -2
    figure = attention_map_figure(weights(10), tokens(10), title="", cells=4, nulls=np.linspace(0, 0.9, 10))
    assert list(figure.data[0].y) == ["0–2 abc", "3–5 def", "6–8 ghi", "9 j"]
    assert "strongest of 3 × 3" in figure.data[0].hovertemplate
    np.testing.assert_allclose(figure.data[1].x, [0.2, 0.5, 0.8, 0.9], rtol=1e-6)


def test_labels_stay_few():
    figure = attention_map_figure(weights(100), tokens(100), title="", labels=20)
    assert len(figure.layout.xaxis.ticktext) == 20
    assert figure.layout.xaxis.ticktext[1] == "5 f"


def test_null_shares_are_what_rows_lack():
    half = weights(16, null=0.25).astype(np.float16)
    shares = null_shares(half)
    assert shares is not None
    np.testing.assert_allclose(shares, 0.25, atol=2e-3)
    assert null_shares(weights(1024).astype(np.float16)) is None
    bar = attention_map_figure(half, tokens(16), title="", nulls=shares).data[1]
    assert bar.orientation == "h" and list(bar.y)[3] == "3 d" and bar.x[3] == pytest.approx(0.25, abs=2e-3)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_log_colours_are_even_in_decades(theme):
    figure = attention_map_figure(weights(4), tokens(4), title="", log=True, theme=theme)
    heatmap = figure.data[0]
    assert (heatmap.zmin, heatmap.zmax) == (0, 1) and not heatmap.showscale
    at_one_percent = next(color for stop, color in heatmap.colorscale if abs(stop - 0.01) < 1e-9)
    assert at_one_percent == sample_colorscale(sequential(theme), [0.5])[0]
    assert list(figure.data[1].marker.colorbar.ticktext)[1:] == ["0.001", "0.01", "0.1", "1"]


def test_logits_are_coloured_around_zero_and_limits_are_shared():
    figure = attention_map_figure(np.array([[-3.0, 0], [1, 2]]), tokens(2), title="", signed=True)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-3, 3)
    assert attention_map_figure(weights(2), tokens(2), title="", limit=0.4).data[0].zmax == 0.4


def test_a_probe_that_failed_says_so():
    figure = attention_map_figure(np.full((3, 3), np.nan), tokens(3), title="", log=False)
    assert figure.layout.annotations[0].text == "no values yet"


def test_a_map_of_the_usual_size_is_light():
    figure = attention_map_figure(weights(2048), tokens(2048), title="", log=True)
    assert figure.data[0].z.shape == (256, 256) and len(figure.to_json()) < 500_000
