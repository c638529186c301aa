"""Columns of several policies: the text of each is `Engine.generate`'s, and the statistics are a plain softmax's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bottleneck_core.errors import UserError
from bottleneck_core.generate import Engine, Plan, Sampling
from bottleneck_core.generate.side_by_side import ColumnEnd, DrawnToken, side_by_side
from bottleneck_core.memory.policy_text import parse_policy
from bottleneck_core.model import GPT
from tests.model.tiny_models import scrambled, tiny

FP16, Q8, Q4 = (parse_policy(text) for text in ("fp16", "q8_0,residual=0", "q4_0,residual=0"))
PROMPT = [3, 1, 4, 1, 5]
SAMPLING = Sampling(temperature=1.3, top_k=9)
EAGER = Plan(fused="none")


@pytest.fixture(scope="module")
def model() -> GPT:
    return scrambled(tiny("bottleneck", block_size=64)).float()


def columns(model: GPT, policies: list[Any], count: int = 30, **how: Any) -> dict[int, list[DrawnToken]]:
    how = {"sampling": SAMPLING, "seed": 5, "plan": EAGER, "page": 4} | how
    found: dict[int, list[DrawnToken]] = {number: [] for number in range(len(policies))}
    for step in side_by_side(model, PROMPT, policies, max_new_tokens=count, **how):
        if isinstance(step, DrawnToken):
            found[step.column].append(step)
    return found


def ends(model: GPT, policies: list[Any], count: int, **how: Any) -> list[ColumnEnd]:
    steps = side_by_side(model, PROMPT, policies, max_new_tokens=count, sampling=SAMPLING, plan=EAGER, page=4, **how)
    return [step for step in steps if isinstance(step, ColumnEnd)]


def log_probs(model: GPT, policy: Any, tokens: list[int]) -> Tensor:
    """ln of the probabilities of each of `tokens` after the prompt, (T, N), read through a cache of its own."""
    engine = Engine(model, policy, plan=EAGER, page=4)
    logits = [engine.prefill([PROMPT])]
    logits += [engine.feed(torch.tensor([[token]]))[:, -1] for token in tokens[:-1]]
    return torch.cat(logits).double().log_softmax(-1)


def test_each_column_is_what_its_engine_would_generate(model: GPT) -> None:
    found = columns(model, [FP16, Q8, Q4])
    for number, policy in enumerate((FP16, Q8, Q4)):
        alone = Engine(model, policy, plan=EAGER, page=4).generate([PROMPT], 30, sampling=SAMPLING, seed=5)
        assert [step.token for step in found[number]] == [ids[0] for ids in alone]
        assert [step.index for step in found[number]] == list(range(30))


def test_the_columns_take_turns(model: GPT) -> None:
    steps = side_by_side(model, PROMPT, [FP16, Q4], max_new_tokens=3, sampling=SAMPLING, plan=EAGER)
    order = [(step.index, step.column) for step in steps if isinstance(step, DrawnToken)]
    assert order == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


@pytest.mark.parametrize("policy", [FP16, Q4], ids=["fp16", "q4_0"])
def test_statistics_are_of_the_softmax_before_temperature_and_cuts(model: GPT, policy: Any) -> None:
    found = columns(model, [policy])[0]
    expected = log_probs(model, policy, [step.token for step in found]).exp()
    assert len({step.rank for step in found}) > 3
    for step, row in zip(found, expected, strict=True):
        assert step.probability == pytest.approx(float(row[step.token]), rel=1e-9)
        order = row.argsort(descending=True).tolist()
        assert step.rank == order.index(step.token) + 1
        assert [token for token, _ in step.top] == order[:5]
        assert [share for _, share in step.top] == pytest.approx([float(row[token]) for token in order[:5]], rel=1e-9)


def test_distances_to_fp16_while_the_texts_agree(model: GPT) -> None:
    found = columns(model, [FP16, Q4])
    tokens = [step.token for step in found[1]]
    p, q = log_probs(model, FP16, tokens), log_probs(model, Q4, tokens)
    differs = next(i for i, step in enumerate(found[0]) if step.token != tokens[i])
    assert 0 < differs < 29, "a seed whose texts part on the way"
    for index, step in enumerate(found[1]):
        if index > differs:
            assert step.kl is None and step.delta_log_prob is None and step.agrees is False
            continue
        assert step.agrees is (index < differs)
        kl = float((p[index].exp() * (p[index] - q[index])).sum())
        assert step.kl == pytest.approx(kl, rel=1e-6) and kl > 0
        assert step.delta_log_prob == pytest.approx(float(q[index, step.token] - p[index, step.token]), rel=1e-6)
    assert all(step.agrees is None and step.kl == 0 and step.delta_log_prob == 0 for step in found[0])


def test_an_unseen_fp16_cache_gives_the_same_distances(model: GPT) -> None:
    seen, unseen = columns(model, [FP16, Q8])[1], columns(model, [Q8])[0]
    assert [(step.token, step.kl, step.delta_log_prob) for step in seen] == [
        (step.token, step.kl, step.delta_log_prob) for step in unseen
    ]
    assert any(step.kl for step in unseen)


def test_ends(model: GPT) -> None:
    tokens = [step.token for step in columns(model, [FP16])[0]]
    stop = tokens[6]
    cut = tokens.index(stop) + 1
    (end,) = ends(model, [FP16], 30, seed=5, stop=[stop])
    assert (end.reason, end.tokens, end.cache_tokens) == ("stop", cut, len(PROMPT) + cut - 1)
    both = ends(model, [FP16, Q4], 4)
    assert [(end.column, end.reason, end.tokens) for end in both] == [(0, "length", 4), (1, "length", 4)]
    assert both[0].cache_bytes > both[1].cache_bytes > 0
    assert all(end.tok_s == pytest.approx(3 / end.seconds) for end in both)
    assert ends(model, [FP16], 1)[0].tok_s is None


def test_the_others_go_on_when_one_has_stopped(model: GPT) -> None:
    count = 12

    def only_the_first_draws(seed: int) -> set[int]:
        first, second = columns(model, [FP16, Q4], count, seed=seed).values()
        return {step.token for step in first} - {step.token for step in second}

    seed, stop = next((seed, min(found)) for seed in range(20) if (found := only_the_first_draws(seed)))
    first, second = ends(model, [FP16, Q4], count, seed=seed, stop=[stop])
    assert (first.reason, first.column) == ("stop", 0) and (second.reason, second.tokens) == ("length", count)


def test_mistakes(model: GPT) -> None:
    with pytest.raises(UserError, match="k_sem"):
        columns(model, [parse_policy("k_sem=q8_0")])
    with pytest.raises(UserError, match="not stored"):
        columns(model, [parse_policy("mxfp4")])
