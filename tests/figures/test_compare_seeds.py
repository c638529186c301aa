"""What seeds allow to say, against tables and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.figures.moving_average import moving_average
from bottleneck_core.figures.seeds import (
    estimate,
    incomplete_beta,
    seed_band,
    t_quantile,
    t_tails,
    welch,
)

# Two-sided 5 % points of Student's t as statistical tables print them.
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 8: 2.306, 10: 2.228, 20: 2.086, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize(("freedom", "t"), TABLE.items())
def test_quantiles_are_those_of_the_tables(freedom, t):
    assert t_quantile(freedom) == pytest.approx(t, abs=5e-4)


def test_quantile_of_the_normal_limit():
    assert t_quantile(1e7) == pytest.approx(1.959964, abs=1e-5)


@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 3.0, 50.0, 1e6])
def test_tails_in_closed_form(t):
    # One degree of freedom is Cauchy's distribution, two have an algebraic tail.
    assert t_tails(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-12)
    assert t_tails(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)
    assert t_tails(-t, 2) == t_tails(t, 2)


@given(a=st.floats(0.05, 500), b=st.floats(0.05, 500), x=st.floats(0.001, 0.999))
def test_incomplete_beta_is_symmetric_and_obeys_its_recurrence(a, b, x):
    value = incomplete_beta(a, b, x)
    assert value == pytest.approx(1 - incomplete_beta(b, a, 1 - x), abs=1e-9)
    # DLMF 8.17.20: I_x(a, b) - I_x(a + 1, b) = x^a (1 - x)^b / (a B(a, b)).
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    step = math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / a
    assert value - incomplete_beta(a + 1, b, x) == pytest.approx(step, abs=1e-9)


def test_incomplete_beta_in_closed_form():
    for x in (0.0, 0.2, 0.7, 1.0):
        assert incomplete_beta(1, 3, x) == pytest.approx(1 - (1 - x) ** 3)
        assert incomplete_beta(4, 1, x) == pytest.approx(x**4)
    with pytest.raises(ValueError, match="incomplete beta"):
        incomplete_beta(1, 1, 1.5)


def test_welch_worked_out_by_hand():
    # Means 3 and 6, variances 1 and 4 of n = 3: error^2 = 1/3 + 4/3 = 5/3, t = 3 / sqrt(5/3),
    # freedom = (5/3)^2 / ((1/3)^2 / 2 + (4/3)^2 / 2) = 50/17.
    found = welch([2, 3, 4], [4, 6, 8])
    assert found.delta == 3 and found.n == (3, 3)
    assert found.p == pytest.approx(t_tails(3 / math.sqrt(5 / 3), 50 / 17), rel=1e-12)
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * t_quantile(50 / 17) * math.sqrt(5 / 3))
    assert (found.high + found.low) / 2 == pytest.approx(3)


def test_welch_against_a_published_example():
    # R: t.test(extra ~ group, data = sleep), in ?t.test: t = -1.8608, df = 17.776, p-value = 0.07939,
    # 95 percent confidence interval -3.3654832 to 0.2054832 of the first less the second.
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = welch(first, second)
    assert found.p == pytest.approx(0.07939, abs=5e-6)
    assert (found.low, found.high) == pytest.approx((-0.2054832, 3.3654832), abs=5e-7)
    assert found.statement == "no difference shown (p = 0.079)"


def test_statements():
    assert welch([1.0], [2.0]).statement == "one seed each: no statement"
    assert welch([1.0], [2.0, 2.1]).statement == "one seed on one side: no statement"
    assert welch([1.0, 1.0], [2.0, 2.0]).statement == "no spread between seeds: no statement"
    assert welch([4.0, 4.01, 4.02], [3.0, 3.01, 3.02]).statement == "lower (p < 0.001)"
    assert welch([3.0, 3.01, 3.02], [3.1, 3.12, 3.11]).statement.startswith("higher (p")
    assert welch([1.0], [2.0]).low is None and welch([1.0, 1.0], [2.0, 2.0]).p is None


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.lists(st.floats(-100, 100), min_size=2, max_size=8))
def test_the_interval_leaves_out_zero_where_p_is_below_five_percent(first, second):
    found = welch(first, second)
    if found.p is not None and found.low is not None and found.high is not None and abs(found.p - 0.05) > 1e-6:
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_estimate_of_three_seeds():
    found = estimate([4.0, 5.0, 6.0])
    assert (found.n, found.mean) == (3, 5.0)
    assert found.half_width == pytest.approx(4.303 / math.sqrt(3), abs=1e-3)
    assert estimate([4.0]).half_width is None


def test_band_is_mean_with_min_and_max():
    x = np.arange(4.0)
    band = seed_band([(x, np.array([4.0, 3, 2, 1])), (x, np.array([6.0, 5, 2, 3]))], "min to max")
    np.testing.assert_array_equal(band.x, x)
    np.testing.assert_array_equal(band.mean, [5, 4, 2, 2])
    np.testing.assert_array_equal(band.low, [4, 3, 2, 1])
    np.testing.assert_array_equal(band.high, [6, 5, 2, 3])


def test_band_of_three_is_the_t_interval():
    x = np.array([0.0, 1.0])
    band = seed_band([(x, np.array([v, v])) for v in (4.0, 5.0, 6.0)], "95 % interval")
    half = 4.302652729749464 / math.sqrt(3)  # t of two degrees of freedom
    np.testing.assert_allclose(band.low, 5 - half, rtol=1e-9)
    np.testing.assert_allclose(band.high, 5 + half, rtol=1e-9)


def test_band_covers_what_all_have_and_keeps_gaps():
    long = (np.arange(6.0), np.array([6.0, 5, np.nan, 3, 2, 1]))
    short = (np.array([1.0, 3.0, 4.0]), np.array([5.0, 3.0, 2.0]))
    band = seed_band([long, short], "min to max")
    np.testing.assert_array_equal(band.x, [1, 2, 3, 4])
    np.testing.assert_array_equal(band.mean, [5, np.nan, 3, 2])  # at 2 the second is interpolated, the first a gap
    assert len(seed_band([long, (np.array([9.0]), np.array([1.0]))], "min to max").x) == 0
    assert len(seed_band([], "min to max").x) == 0


def test_moving_average_looks_back_and_keeps_gaps():
    smoothed = moving_average([2.0, 4.0, np.nan, 6.0, np.inf, 8.0], 3)
    np.testing.assert_array_equal(smoothed, [2, 3, np.nan, 5, np.nan, 7])
    np.testing.assert_array_equal(moving_average([1.0, np.inf], 1), [1, np.nan])
    with pytest.raises(ValueError, match="window"):
        moving_average([1.0], 0)


@given(st.lists(st.floats(-10, 10), max_size=30), st.integers(1, 12))
def test_moving_average_equals_the_means_written_out(values, window):
    plain = [np.mean(values[max(0, i + 1 - window) : i + 1]) for i in range(len(values))]
    np.testing.assert_allclose(moving_average(values, window), plain, atol=1e-9)
