"""The rules of the choice: within hysteresis nothing better is left lying."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.tune.decide import Candidate, Rules, decide, dominates, pareto

numbers = st.tuples(st.integers(1, 40), st.integers(1, 200), st.integers(0, 5))
tables = st.lists(numbers, min_size=1, max_size=12)
shares = st.sampled_from([0.0, 0.02, 0.1, 0.5])


def candidates(table: list[tuple[int, int, int]]) -> list[Candidate]:
    return [
        Candidate(value=None, name=f"c{at}", bytes=size, seconds=time / 100, loss=float(loss))
        for at, (size, time, loss) in enumerate(table)
    ]


def one(name: str, size: int, seconds: float) -> Candidate:
    return Candidate(value=None, name=name, bytes=size, seconds=seconds)


@given(tables, shares, shares, st.booleans())
def test_nothing_as_small_is_faster_beyond_the_hysteresis(
    table: list[tuple[int, int, int]], hysteresis: float, as_fast: float, has_base: bool
) -> None:
    every = candidates(table)
    base = every[0] if has_base else None
    chosen, why = decide(every, base, Rules(hysteresis=hysteresis, as_fast=as_fast))
    assert chosen in every and why
    share = hysteresis if base is not None else 0.0
    for each in every:
        assert not (each.bytes <= chosen.bytes and each.seconds < chosen.seconds * (1 - share) - 1e-12)
    if chosen == base:
        assert not any(each.bytes < chosen.bytes and each.seconds <= chosen.seconds * (1 + as_fast) for each in every)
    elif base is not None:
        faster = chosen.seconds < base.seconds * (1 - hysteresis)
        assert faster or (chosen.bytes < base.bytes and chosen.seconds <= base.seconds * (1 + as_fast))


@given(tables)
def test_the_pareto_set_is_what_nothing_dominates(table: list[tuple[int, int, int]]) -> None:
    every = candidates(table)
    front = pareto(every)
    assert front
    for each in every:
        assert (each in front) == (not any(dominates(other, each) for other in every))
        assert each in front or any(dominates(other, each) for other in front)


def test_the_base_stays_within_the_hysteresis() -> None:
    base, faster = one("base", 10, 1.0), one("faster", 20, 0.985)
    assert decide([base, faster], base, Rules(hysteresis=0.02))[0] is base
    assert decide([base, faster], base, Rules(hysteresis=0.01))[0] is faster
    assert decide([base, faster], None, Rules(hysteresis=0.02))[0] is faster


def test_less_memory_wins_within_its_share_of_time() -> None:
    base, small, slow = one("base", 20, 1.0), one("small", 10, 1.015), one("slow", 5, 1.2)
    assert decide([base, small, slow], base, Rules(hysteresis=0.02, as_fast=0.02))[0] is small
    assert decide([base, small, slow], base, Rules(hysteresis=0.02, as_fast=0.01))[0] is base


def test_a_smaller_one_is_not_hidden_by_a_faster_one_that_is_not_fast_enough() -> None:
    base, fastest, small = one("base", 20, 1.0), one("fastest", 30, 0.99), one("small", 10, 0.995)
    assert decide([base, fastest, small], base, Rules(hysteresis=0.02))[0] is small


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError):
        decide([], None, Rules(hysteresis=0.0))
