"""The guard: what it compares, what it refuses to judge by, and that it reads what is packed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bottleneck_core.errors import UserError
from bottleneck_core.memory import CachePolicy
from bottleneck_core.memory.policy_text import parse_policy
from bottleneck_core.tune.guard import LEAST_WINDOWS, MARGIN, MOST_WINDOWS, Guard, compare, expected_worst
from tests.model.tiny_models import scrambled, tiny, tokens
from tests.tune.synthetic import quality

MODEL = scrambled(tiny("decoupled"), dtype=torch.float32)
TEXT = tokens(1, 600)[0].numpy()


def test_one_scored_token_is_an_error() -> None:
    with pytest.raises(UserError, match="at least two scored tokens, got 1"):
        Guard(MODEL, TEXT, prefix=8, scored=1)


def test_a_short_text_is_an_error() -> None:
    assert len(Guard(MODEL, TEXT[: 12 * LEAST_WINDOWS], prefix=8, scored=4).windows) == LEAST_WINDOWS
    with pytest.raises(UserError, match="needs 6 windows of 12 tokens"):
        Guard(MODEL, TEXT[: 12 * LEAST_WINDOWS - 1], prefix=8, scored=4)
    with pytest.raises(UserError, match="6 windows"):
        Guard(MODEL, [3], prefix=8, scored=4)


def test_ids_outside_the_vocabulary_are_an_error() -> None:
    with pytest.raises(UserError, match="23"):
        Guard(MODEL, np.full(600, 23), prefix=8, scored=4)


def test_windows_share_no_token_and_cover_the_text() -> None:
    windows = Guard(MODEL, np.arange(601) % 23, prefix=8, scored=4).windows
    assert windows.shape == (MOST_WINDOWS, 12)
    guard = Guard(MODEL, np.arange(23), prefix=1, scored=2)
    flat = guard.windows.flatten().tolist()
    assert len(set(flat)) == len(flat) and {0, 22} <= set(flat)


def test_scored_tokens_are_compared_as_the_full_pass_has_them() -> None:
    guard = Guard(MODEL, TEXT, prefix=8, scored=4)
    logits = guard._reference  # (W, D, N)
    with torch.inference_mode():
        full = MODEL(guard.windows)[:, 7:11]
    assert logits.shape == full.shape
    assert (logits - full).abs().max() < 0.2 * full.abs().max()  # fp16 keys and values in between
    assert torch.equal(logits.argmax(-1), full.argmax(-1))


def test_fp16_changes_nothing_and_fewer_bits_change_more() -> None:
    guard = Guard(MODEL, TEXT, prefix=16, scored=4)
    found = [guard.measure(parse_policy(text)) for text in ("fp16", "q8_0,residual=0", "q4_0,residual=0")]
    assert found[0].largest < 1e-3 and found[0].mean_kl < 1e-8 and found[0].same_top1 == 1
    assert found[0].largest < found[1].largest < found[2].largest
    assert found[1].mean_kl < found[2].mean_kl
    assert found[0].meets(0.01) and not found[2].meets(0.01)


def test_a_prefix_within_the_window_would_let_everything_pass() -> None:
    # Why a tuning's guard reads further than the longest window: here nothing packed is read.
    policy = CachePolicy(kind="q4_0", residual=64)
    assert Guard(MODEL, TEXT, prefix=16, scored=4).measure(policy).largest < 1e-2
    assert Guard(MODEL, TEXT, prefix=80, scored=4).measure(policy).largest > 1e-2


def test_all_windows_hold_those_of_the_search() -> None:
    guard = Guard(MODEL, TEXT, prefix=16, scored=4)
    policy = parse_policy("q4_0,residual=0")
    part, every = guard.measure(policy), guard.measure(policy, "all")
    assert every.windows == MOST_WINDOWS == 3 * part.windows
    assert every.scored == 4 * MOST_WINDOWS
    assert every.largest >= part.largest * 0.999


def test_the_numbers_of_a_comparison() -> None:
    reference = torch.log(torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[0.5, 0.5], [0.5, 0.5]]]))
    logits = torch.log(torch.tensor([[[0.25, 0.75], [0.25, 0.75]], [[0.5, 0.5], [0.5, 0.5]]]))
    found = compare(reference, logits, torch.tensor([[0, 1], [0, 0]]))
    assert found.largest == pytest.approx(math.log(2))
    assert found.mean_kl == pytest.approx(0.5 * (math.log(2) + math.log(0.5 / 0.75)) / 4)
    assert found.delta_nll == pytest.approx(math.log(2) / 4)
    assert (found.windows, found.scored) == (2, 4)
    broken = compare(reference, logits * torch.nan, torch.tensor([[0, 1], [0, 0]]))
    assert broken.largest == math.inf and not broken.meets(1e9)


def test_the_expected_worst_is_a_quantile_of_gumbel_maxima() -> None:
    assert expected_worst([0.5, 0.5, 0.5]) == pytest.approx(MARGIN * 0.5)
    assert expected_worst([0.5, math.inf]) == math.inf
    drawn = np.random.default_rng(0).gumbel(2.0, 0.3, size=(64, 4000))
    bound = expected_worst(drawn.flatten().tolist()) / MARGIN
    assert np.mean(drawn.max(0) <= bound) == pytest.approx(0.95, abs=0.02)


def test_both_the_largest_and_the_expected_difference_have_to_meet_the_tolerance() -> None:
    seen = quality(0.4)
    assert seen.meets(0.4) and not seen.meets(0.39)
    assert not replace(seen, expected_worst=0.41).meets(0.4)
    assert not replace(seen, largest=0.41).meets(0.4)
