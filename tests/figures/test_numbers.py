"""One format for each quantity, as the pages promise."""

from __future__ import annotations

import math

import pytest

from bottleneck_core.figures import numbers


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (numbers.loss(4.334908), "4.3349"),
        (numbers.perplexity(76.3176), "76.32"),
        (numbers.perplexity(50257.0), "50,257.00"),
        (numbers.perplexity(4.2e9), "4.20e+09"),
        (numbers.size(294_912_000), "281 MiB"),
        (numbers.size(512), "512 B"),
        (numbers.size(1000), "0.977 KiB"),
        (numbers.size(1536), "1.50 KiB"),
        (numbers.size(10.04 * 2**20), "10.0 MiB"),
        (numbers.size(9.996 * 2**20), "10.0 MiB"),
        (numbers.size(1023.7 * 2**20), "1.00 GiB"),
        (numbers.size(3 * 2**60), "3072 PiB"),
        (numbers.exact_size(294_912_000), "294,912,000 B"),
        (numbers.count(45_800_000), "45.8M"),
        (numbers.count(999), "999"),
        (numbers.count(999_700), "1.00M"),
        (numbers.rate(1_148_000), "1.15M"),
        (numbers.rate(17_040), "17.0k"),
        (numbers.steps(5800), "5,800"),
        (numbers.ratio(5.3333), "5.33×"),
        (numbers.ratio(0.5), "0.500×"),
        (numbers.duration(6120), "1 h 42 m"),
        (numbers.duration(3599.7), "1 h"),
        (numbers.duration(59.4), "59 s"),
        (numbers.duration(60), "1 m"),
        (numbers.duration(61), "1 m 1 s"),
        (numbers.duration(3.21), "3.2 s"),
        (numbers.duration(9.96), "10 s"),
        (numbers.duration(26 * 3600), "1 d 2 h"),
        (numbers.scalar(0.0003), "3e-4"),
        (numbers.scalar(-123_456.0), "-1.23e5"),
        (numbers.scalar(0.0), "0"),
        (numbers.scalar(1.23456), "1.235"),
    ],
)
def test_formats(written, expected):
    assert written == expected


@pytest.mark.parametrize(
    "form",
    [
        numbers.loss,
        numbers.perplexity,
        numbers.size,
        numbers.exact_size,
        numbers.count,
        numbers.steps,
        numbers.ratio,
        numbers.duration,
        numbers.scalar,
    ],
)
@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_unknown_is_a_dash(form, unknown):
    assert form(unknown) == numbers.MISSING
