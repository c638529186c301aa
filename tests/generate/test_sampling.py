"""Drawing tokens: what may be drawn, how often, and that requests do not disturb each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.generate import Engine, Plan, Sampler, Sampling
from tests.model.tiny_models import scrambled, tiny

LOGITS = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0]])


def drawn(sampling: Sampling, times: int = 400, logits: torch.Tensor = LOGITS) -> list[int]:
    sampler = Sampler(sampling, seed=0, batch=1)
    return [int(sampler.draw(logits)) for _ in range(times)]


def test_temperature_zero_takes_the_most_likely() -> None:
    assert set(drawn(Sampling(temperature=0), 5)) == {1}


def test_frequencies_are_the_softmax() -> None:
    tokens = torch.tensor(drawn(Sampling(temperature=1.5), 6000))
    share = torch.bincount(tokens, minlength=5) / 6000
    torch.testing.assert_close(share, (LOGITS[0] / 1.5).softmax(-1), rtol=0, atol=0.025)


@pytest.mark.parametrize(("top_k", "kept"), [(1, {1}), (2, {1, 3}), (4, {0, 1, 2, 3}), (99, {0, 1, 2, 3, 4})])
def test_top_k(top_k: int, kept: set[int]) -> None:
    assert set(drawn(Sampling(temperature=3, top_k=top_k))) == kept


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, {1}), (0.64, {1, 3}), (0.63, {1}), (0.96, {0, 1, 2, 3})])
def test_top_p_keeps_the_least_that_reach_the_share(top_p: float, kept: set[int]) -> None:
    """Probabilities in order: 0.636, 0.234, 0.086, 0.032, 0.012."""
    assert set(drawn(Sampling(top_p=top_p), 3000)) == kept


@settings(deadline=None)
@given(
    logits=st.lists(st.one_of(st.floats(-50, 50), st.just(float("-inf"))), min_size=2, max_size=8),
    top_k=st.one_of(st.none(), st.integers(1, 9)),
    top_p=st.floats(0.01, 1),
    seed=st.integers(0, 100),
)
def test_only_what_is_possible_is_drawn(logits: list[float], top_k: int | None, top_p: float, seed: int) -> None:
    if max(logits) == float("-inf"):
        return
    rows = torch.tensor([logits])
    token = int(Sampler(Sampling(top_k=top_k, top_p=top_p), seed, 1).draw(rows))
    order = sorted(logits, reverse=True)
    assert logits[token] > float("-inf") and logits[token] >= order[min(top_k or 99, len(order)) - 1]


def test_a_request_draws_the_same_alone_and_in_company() -> None:
    batch = Sampler(Sampling(), seed=5, batch=3)
    alone = Sampler(Sampling(), seed=5, batch=1)
    rows = torch.randn(20, 3, 50, generator=torch.Generator().manual_seed(0))
    for step in rows:
        assert int(batch.draw(step)[0]) == int(alone.draw(step[:1]))


def test_numbers_drawn_ahead_are_those_drawn_one_by_one() -> None:
    ahead, single = (Sampler(Sampling(), seed=4, batch=3) for _ in range(2))
    logits = torch.randn(9, 3, 50, generator=torch.Generator().manual_seed(0))
    shares = ahead.shares(7)
    assert torch.equal(ahead.shares(2), shares[:2]), "looking does not use them up"
    ahead.use(3)
    for step in range(3):
        single.draw(logits[step])
    for step in range(3, 9):
        assert torch.equal(ahead.draw(logits[step]), single.draw(logits[step]))


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": 0}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="temperature"):
        Sampling(**wrong)  # pyright: ignore[reportArgumentType]


def test_generation_follows_the_full_model() -> None:
    """Greedy, two prompts of different length: each step is the full model's most likely token."""
    model = scrambled(tiny("bottleneck", null_attn=True))
    prompts = [[1, 2, 3], [4]]
    made = list(Engine(model, plan=Plan(fused="none")).generate(prompts, 8, sampling=Sampling(temperature=0)))
    for row, prompt in enumerate(prompts):
        text = list(prompt)
        for step in made:
            assert step[row] == int(model(torch.tensor([text]))[0, -1].argmax())
            text.append(int(step[row] or 0))


def test_a_stop_token_ends_its_own_request() -> None:
    model = scrambled(tiny("standard"))
    greedy = Sampling(temperature=0)
    free = list(Engine(model, plan=Plan(fused="none")).generate([[1], [2]], 8, sampling=greedy))
    stop = free[2][0]
    assert stop is not None
    halted = list(Engine(model, plan=Plan(fused="none")).generate([[1], [2]], 8, sampling=greedy, stop=[stop]))
    for row in range(2):
        ids = [step[row] for step in free]
        end = ids.index(stop) + 1 if stop in ids else len(ids)
        assert [step[row] for step in halted][:end] == ids[:end]
        assert all(step[row] is None for step in halted[end:])
    assert max(len([s for s in halted if s[row] is not None]) for row in range(2)) == len(halted)
