"""What a downsampled curve must still show: extremes, ends, gaps, and single rows when zoomed in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.figures.downsample import visible_rows


def curve(n=200_000, seed=0):
    rng = np.random.default_rng(seed)
    return np.arange(n, dtype=float), rng.normal(size=n)


def test_keeps_ends_and_extremes_and_few_rows():
    x, y = curve()
    y[123_456], y[77_777] = 50, -50
    rows = visible_rows(x, y, columns=300)
    assert {0, len(x) - 1, 123_456, 77_777} <= set(rows.tolist())
    assert len(rows) <= 4 * 300
    assert (np.diff(rows) > 0).all()


def test_keeps_the_range_of_every_column():
    x, y = curve(20_000)
    rows = visible_rows(x, y, columns=100)
    for column in np.split(np.arange(len(x)), range(256, len(x), 256)):  # the power of two next above 20,000 / 100
        kept = np.intersect1d(rows, column)
        assert {column[0], column[-1], y[column].argmin() + column[0], y[column].argmax() + column[0]} == set(kept)


@pytest.mark.parametrize("missing", [0, 0.3], ids=["whole", "with gaps"])
@pytest.mark.parametrize("x_range", [None, (30_000.0, 1e9)], ids=["all", "zoomed"])
def test_points_stay_where_they_are_while_a_curve_grows(missing, x_range):
    x, y = curve(150_000)
    x = 7 + 3 * x
    y[np.random.default_rng(1).random(len(y)) < missing] = np.nan
    n, columns = 100_000, 300
    before = visible_rows(x[:n], y[:n], columns, x_range)
    for more in (1, 10, 1000):  # the columns stay as wide as they were: all points but the last column's stay
        after = visible_rows(x[: n + more], y[: n + more], columns, x_range)
        last_column = 2048 // 3 + 1
        assert set(before[before < n - last_column]) == set(after[after < n - last_column])
        assert after[-1] == n + more - 1
    for more in range(3_000, 50_001, 3_000):  # and when they double, none of the old ones is new
        after = visible_rows(x[: n + more], y[: n + more], columns, x_range)
        ends = set(range(n - 2 * last_column, n))
        assert set(after[after < n]) - ends <= set(before)


def test_spikes_and_the_last_point_survive_a_curve_of_800_000_rows_that_grows():
    x, y = curve(800_000)
    y[[5, 123_456, 799_990]] = 50, -50, 60
    for n in (799_999, 800_000):
        rows = set(visible_rows(x[:n], y[:n], columns=600).tolist())
        assert {0, 5, 123_456, 799_990, n - 1} <= rows


@given(
    st.lists(st.one_of(st.floats(-10, 10), st.just(float("nan"))), min_size=1, max_size=400),
    st.integers(1, 20),
)
def test_every_curve_keeps_its_extremes_and_ends(values, columns):
    y = np.array(values)
    x = np.arange(len(y), dtype=float)
    kept = y[visible_rows(x, y, columns)]
    assert len(kept) <= 5 * columns
    finite = y[np.isfinite(y)]
    if len(finite):
        shown = kept[np.isfinite(kept)]
        assert (shown.min(), shown.max()) == (finite.min(), finite.max())
        assert (shown[0], shown[-1]) == (finite[0], finite[-1])


def test_a_gap_stays_a_gap_between_its_neighbours():
    x, y = curve()
    y[50_000:60_000] = np.nan
    rows = visible_rows(x, y, columns=200)
    assert {49_999, 60_000} <= set(rows.tolist())
    inside = rows[(rows > 49_999) & (rows < 60_000)]
    assert len(inside) and np.isnan(y[inside]).all()


def test_a_single_missing_value_in_a_full_column_breaks_the_line():
    x, y = curve()
    y[100_123] = np.nan
    assert 100_123 in visible_rows(x, y, columns=100)


def test_zoom_gives_finer_points_down_to_rows():
    x, y = curve()
    coarse = visible_rows(x, y, columns=300)

    def inside(rows, low, high):
        return int(((x[rows] >= low) & (x[rows] <= high)).sum())

    half = visible_rows(x, y, columns=300, x_range=(50_000, 60_000))
    assert inside(half, 50_000, 60_000) > 5 * inside(coarse, 50_000, 60_000)
    fine = visible_rows(x, y, columns=300, x_range=(50_000.5, 50_999.5))
    assert set(range(50_001, 51_000)) <= set(fine.tolist())
    # One neighbour on each side, so that the line reaches the border, and the rest coarsely.
    assert {50_000, 51_000} <= set(fine.tolist())
    assert {0, len(x) - 1} <= set(fine.tolist())
    assert len(fine) < 3000


@pytest.mark.parametrize("x_range", [(-10.0, -5.0), (1e9, 2e9), (7.2, 7.4)])
def test_zoom_into_nothing_still_draws_the_rest(x_range):
    x, y = curve(50_000)
    rows = visible_rows(x, y, columns=50, x_range=x_range)
    assert {0, len(x) - 1} <= set(rows.tolist())


def test_columns_are_equal_in_x_and_not_in_rows():
    # 100,000 rows in the first hundredth of the axis, 100 in the rest: each of the 100 has its own pixel.
    x = np.concatenate([np.linspace(0, 1, 100_000), np.arange(2, 102)])
    y = np.random.default_rng(1).normal(size=len(x))
    assert set(range(100_000, 100_100)) <= set(visible_rows(x, y, columns=200).tolist())


def test_one_place_on_the_axis_and_no_rows():
    assert len(visible_rows(np.zeros(1000), np.arange(1000.0), columns=10)) <= 5
    assert len(visible_rows(np.empty(0), np.empty(0))) == 0


def test_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="x has 2 values and y has 3"):
        visible_rows(np.zeros(2), np.zeros(3))
