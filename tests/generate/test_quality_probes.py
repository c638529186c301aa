"""Needle and induction: what is planted, the numbers against full passes, and a model that is known to copy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bottleneck_core.errors import UserError
from bottleneck_core.generate.probes import (
    KEY_TOKENS,
    induction,
    induction_sequences,
    needle_prompts,
    needle_retrieval,
)
from bottleneck_core.memory import CachePolicy
from bottleneck_core.memory.policy_text import parse_policy
from bottleneck_core.model import GPT, build_model
from tests.generate.test_cached_decoding import rounded_pass
from tests.model.tiny_models import MODES, scrambled, tiny

TEXT = np.random.default_rng(5).integers(2, 23, 300).astype(np.uint16)
LAG = 12


@pytest.fixture(scope="module")
def copier() -> GPT:
    """A small model trained for a moment to say again what stood `LAG` tokens before."""
    model = build_model(tiny("standard", d_model=32, embed_dim=32, n_head=2, block_size=2 * LAG), seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    generator = torch.Generator().manual_seed(3)
    for _ in range(400):
        half = torch.randint(2, 23, (32, LAG), generator=generator)
        x = torch.cat((half, half), 1)
        loss = F.cross_entropy(model(x[:, :-1])[:, LAG:].flatten(0, 1), x[:, LAG + 1 :].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def test_a_model_that_copies_scores_below_zero(copier: GPT) -> None:
    row = induction(copier, TEXT, [], context=2 * LAG, trials=16)[0]
    assert row.score < -1.5 and row.top1 > 0.3
    assert row.score == row.nll_second - row.nll_first
    random = induction(build_model(copier.config, seed=1), TEXT, [], context=2 * LAG, trials=16)[0]
    assert abs(random.score) < 0.1 and random.top1 < 0.2


def test_a_needle_is_found_where_the_model_looks_for_it(copier: GPT) -> None:
    """This one looks 12 tokens back. Of the depths asked only the middle one puts the value there."""
    rows = needle_retrieval(copier, TEXT, [], context=2 * LAG, depths=(0, 0.5, 1), trials=32)
    probabilities = [row.prob for row in rows]
    assert probabilities[1] > 0.3 > 3 * max(probabilities[0], probabilities[2])
    assert rows[1].top1 > 0.4 and rows[1].rank < 4 < rows[0].rank
    assert rows[1].log_prob > rows[1].control_log_prob + 2
    assert abs(rows[0].log_prob - rows[0].control_log_prob) < 1.5


def test_a_worse_cache_copies_less(copier: GPT) -> None:
    worst = parse_policy("k=q4_0,v=q4_0,residual=0,qblock=64")
    best, worse = induction(copier, TEXT, [worst], context=2 * LAG, trials=64)
    assert (best.policy, worse.policy) == ("fp16", "k=q4_0,v=q4_0,residual=0,qblock=64")
    assert worse.nll_second > best.nll_second


def test_needle_prompts_hold_the_needle_once_and_the_text_around_it() -> None:
    context, depths = 40, (0.0, 0.25, 1.0)
    prompts, values = needle_prompts(TEXT, context, depths, trials=5, seed=7)
    assert prompts.shape == (4, 5, context) and values.shape == (5,)
    text = context - 2 * KEY_TOKENS - 1
    starts = np.arange(5) * (300 - (context - KEY_TOKENS)) // 4
    for trial, (start, value) in enumerate(zip(starts, values, strict=True)):
        hay = TEXT[start : start + context - KEY_TOKENS].tolist()
        key = prompts[0, trial, -KEY_TOKENS:].tolist()
        assert value not in key
        for row, at in enumerate((0, 8, text)):
            expected = [*hay[:at], *key, value, *hay[at:text], *key]
            assert prompts[row, trial].tolist() == expected
        assert prompts[3, trial].tolist() == [*hay, *key]


def test_random_tokens_come_from_the_text_and_the_seed() -> None:
    sequences = induction_sequences(TEXT, 41, trials=30, seed=1)
    assert sequences.shape == (30, 40)
    assert (sequences[:, :20] == sequences[:, 20:]).all()
    assert set(sequences.flat) == set(TEXT.tolist()), "all of them, and no others"
    assert (sequences == induction_sequences(TEXT, 41, trials=30, seed=1)).all()
    assert (sequences != induction_sequences(TEXT, 41, trials=30, seed=2)).any()
    one, two = (needle_prompts(TEXT, 40, (0.5,), 3, seed)[0] for seed in (1, 2))
    assert (one == needle_prompts(TEXT, 40, (0.5,), 3, 1)[0]).all() and (one != two).any()


@pytest.mark.parametrize("mode", MODES)
def test_numbers_equal_those_of_full_passes(mode: str) -> None:
    model = scrambled(tiny(mode, null_attn=True, block_size=32))
    policies = [CachePolicy(), parse_policy("q8_0,residual=5")]
    prompts, values = needle_prompts(TEXT, 30, (0.2, 0.8), 3, seed=4)
    sequences = torch.from_numpy(induction_sequences(TEXT, 30, 3, seed=4))
    needles = needle_retrieval(model, TEXT, policies[1:], context=30, depths=(0.2, 0.8), trials=3, seed=4)
    repeats = induction(model, TEXT, policies[1:], context=30, trials=3, seed=4)
    assert [row.policy for row in repeats] == ["fp16", "q8_0,residual=5"]
    control: list[float] = []
    for policy, repeat in zip(policies, repeats, strict=True):
        for row, batch in zip([r for r in needles if r.policy == repeat.policy], prompts, strict=False):
            log_p = last_log_probs(model, policy, batch)
            value = [log_p[i, values[i]].item() for i in range(3)]
            rank = [1 + sum(x > value[i] for x in log_p[i].tolist()) for i in range(3)]
            assert row.log_prob == pytest.approx(sum(value) / 3, abs=1e-7)
            assert row.prob == pytest.approx(sum(np.exp(value)) / 3, abs=1e-7)
            assert (row.rank, row.top1) == (sum(rank) / 3, sum(r == 1 for r in rank) / 3)
            control.append(row.control_log_prob)
        with torch.no_grad():
            log_p = rounded_pass(model, sequences[:, :-1], policy).log_softmax(-1)
        nll = [[-log_p[b, t, sequences[b, t + 1]].item() for t in range(29)] for b in range(3)]
        best = [[bool(log_p[b, t].argmax() == sequences[b, t + 1]) for t in range(29)] for b in range(3)]
        assert repeat.nll_first == pytest.approx(np.mean([row[:14] for row in nll]), abs=1e-7)
        assert repeat.nll_second == pytest.approx(np.mean([row[15:] for row in nll]), abs=1e-7)
        assert repeat.top1 == pytest.approx(np.mean([row[15:] for row in best]))
    expected = last_log_probs(model, policies[0], prompts[2])
    assert control[0] == pytest.approx(np.mean([expected[i, values[i]].item() for i in range(3)]), abs=1e-7)
    assert all(one == other for one, other in pairwise(control)), "one control for all: the baseline's"


def last_log_probs(model: GPT, policy: CachePolicy, prompts: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return rounded_pass(model, torch.from_numpy(prompts), policy)[:, -1].log_softmax(-1)


def test_mistakes_are_sentences() -> None:
    model = scrambled(tiny("standard"))
    with pytest.raises(UserError, match="at least 10 tokens, got 9"):
        needle_retrieval(model, TEXT, [], context=9)
    with pytest.raises(UserError, match=r"0 to 1, got 0\.5, 1\.5"):
        needle_retrieval(model, TEXT, [], context=16, depths=(0.5, 1.5))
    with pytest.raises(UserError, match="needs 301"):
        needle_retrieval(model, TEXT, [], context=305)
    with pytest.raises(UserError, match="at least 4 tokens, got 3"):
        induction(model, TEXT, [], context=3)
    with pytest.raises(UserError, match="4 different tokens"):
        induction(model, np.arange(100) % 4, [], context=16)
    with pytest.raises(UserError, match="token id 99"):
        induction(model, TEXT + 77, [], context=16)
    with pytest.raises(UserError, match="names k_sem"):
        induction(model, TEXT, [parse_policy("k_sem=q8_0")], context=16)
