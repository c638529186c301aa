"""The moving average against the recurrence written out."""

from __future__ import annotations

import numpy as np
import pytest

from bottleneck_core.figures.smoothing import ema


def plain_ema(values, weight):
    state, mass, result = 0.0, 0.0, []
    for value in values:
        state, mass = weight * state, weight * mass
        if np.isfinite(value):
            state += (1 - weight) * value
            mass += 1 - weight
        result.append(state / mass if np.isfinite(value) else np.nan)
    return np.array(result)


@pytest.mark.parametrize("weight", [0.1, 0.9, 0.999])
def test_equals_the_plain_recurrence(weight):
    values = np.random.default_rng(0).normal(4, 1, 500)
    np.testing.assert_allclose(ema(values, weight), plain_ema(values, weight), rtol=1e-12)


def test_the_first_value_is_itself():
    assert ema([11.0, 5.0], 0.99)[0] == pytest.approx(11.0)


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
def test_gaps_stay_and_age_the_past(missing):
    values = np.array([1.0, 2.0, missing, missing, 3.0, missing, 5.0])
    smoothed = ema(values, 0.8)
    np.testing.assert_allclose(smoothed, plain_ema(values, 0.8), rtol=1e-12)
    assert np.isnan(smoothed[[2, 3, 5]]).all()
    # Without the gap the past would weigh more: the value after it would be lower.
    assert smoothed[4] > ema([1.0, 2.0, 3.0], 0.8)[2]


def test_zero_weight_returns_the_values():
    np.testing.assert_array_equal(ema([1.0, np.inf, 3.0], 0), [1.0, np.nan, 3.0])


@pytest.mark.parametrize("weight", [-0.1, 1.0])
def test_refuses_other_weights(weight):
    with pytest.raises(ValueError, match="smoothing weight"):
        ema([1.0], weight)


def test_no_values():
    assert ema([], 0.5).shape == (0,)
