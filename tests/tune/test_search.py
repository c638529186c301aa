"""The search for a policy, with made-up measurements: budget, tolerance, fallbacks, and how much is measured."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError
from bottleneck_core.memory import CachePolicy
from bottleneck_core.tune.decide import Rules
from bottleneck_core.tune.predict import Guess, Probes
from bottleneck_core.tune.race import LAST, Unrunnable, race
from bottleneck_core.tune.search import EXHAUSTIVE, Found, PolicySearch
from tests.tune.synthetic import FakeMeasure, loss, space

DECOUPLED = RunConfig.resolve(size="tiny", exp="paper_decoupled", vocab_size=64)
TENSORS = ["k_sem", "k_geo", "v"]
RULES = Rules(hysteresis=0.02, as_fast=0.02)


def search(
    measure: FakeMeasure, *, share: float = 1.1, tolerance: float | None = 0.5, config: RunConfig = DECOUPLED
) -> Found:
    sized, base = space(config, share)
    return PolicySearch(sized, base, measure, tensors=TENSORS, tolerance=tolerance, rules=RULES).run()


@settings(deadline=None, max_examples=15)
@given(st.floats(0.3, 1.2), st.floats(0.02, 2.0))
def test_the_choice_is_within_budget_and_tolerance(share: float, tolerance: float) -> None:
    sized, _ = space(DECOUPLED, share)
    limit = max((each.bytes for each in sized), default=0)
    possible = [each for each in sized if loss(each.policy, TENSORS) <= tolerance]
    try:
        found = search(FakeMeasure(TENSORS), share=share, tolerance=tolerance)
    except UserError:
        assert not possible
        return
    assert found.chosen.bytes <= limit
    assert loss(found.chosen.value.policy, TENSORS) <= tolerance
    for each in found.measured:
        assert loss(each.value.policy, TENSORS) <= tolerance
        smaller, faster = each.bytes <= found.chosen.bytes, each.seconds < found.chosen.seconds * 0.98
        assert not (smaller and faster)
    names = [each.name for each in found.measured] + [each.what for each in found.rejected]
    assert len(names) == len(set(names)) == len(sized)  # every candidate has its place, once


def test_a_large_space_is_not_measured_exhaustively() -> None:
    measure = FakeMeasure(TENSORS)
    sized, _ = space(DECOUPLED)
    found = search(measure)
    assert len(sized) > 200
    assert len(set(measure.timed)) < 60
    assert found.probes > 10
    assert {each.reason for each in found.rejected} >= {"predicted loss", "not measured"}


def test_a_small_space_is() -> None:
    config = DECOUPLED.model_copy(update={"self_opt_residuals": "32", "self_opt_qblocks": "32"})
    config = config.model_copy(update={"self_opt_k_sem_kinds": "q8_0,q4_0", "self_opt_k_geo_kinds": "q8_0"})
    sized, _ = space(config)
    found = search(measure := FakeMeasure(TENSORS), config=config, tolerance=5.0)
    assert len(sized) <= EXHAUSTIVE
    assert len(set(measure.timed)) == len(found.measured) == len(sized)
    assert found.probes == 0


def test_what_fails_on_held_out_windows_gives_way_to_the_next() -> None:
    first = search(FakeMeasure(TENSORS), share=0.6).chosen.name
    measure = FakeMeasure(TENSORS, worse=lambda name: 100.0 if name == first else 1.0)
    found = search(measure, share=0.6)
    assert found.chosen.name != first
    assert (first, "held-out quality") in {(each.what, each.reason) for each in found.rejected}
    assert measure.looked[-1] == (found.chosen.name, "all")


def test_fp16_is_what_remains_where_nothing_else_holds() -> None:
    found = search(FakeMeasure(TENSORS, worse=lambda _: 1e6), tolerance=0.0)
    assert found.chosen.name == "fp16" and "base" in found.why


def test_nothing_within_budget_meets_the_tolerance() -> None:
    with pytest.raises(UserError, match=r"meets the tolerance 0\.001 .*give a larger"):
        search(FakeMeasure(TENSORS), share=0.5, tolerance=0.001)
    with pytest.raises(UserError, match="no cache policy fits"):
        search(FakeMeasure(TENSORS), share=0.01)


def test_what_cannot_run_is_left_out() -> None:
    measure = FakeMeasure(TENSORS, broken=lambda name: "v=q4_0" in name)
    found = search(measure, share=0.6)
    assert "v=q4_0" not in found.chosen.name
    with pytest.raises(UserError, match="closest is"):
        search(FakeMeasure(TENSORS, broken=lambda _: True))


def test_unguarded_nobody_looks_at_quality() -> None:
    measure = FakeMeasure(TENSORS)
    found = search(measure, tolerance=None, share=0.6)
    assert not measure.looked
    assert found.chosen.quality is None


def test_a_race_times_the_fast_ones_most() -> None:
    counts = dict.fromkeys("abcdefghij", 0)

    def entrant(name: str) -> list[float]:
        if name == "j":
            raise Unrunnable("no kernel")
        counts[name] += 1
        return [float(ord(name))]

    times, failed = race({name: lambda name=name: entrant(name) for name in counts}, base="i")
    assert failed == {"j": "no kernel"}
    assert min(times, key=lambda name: times[name]) == "a" and len(times) == 9
    assert counts["a"] == counts["b"] == counts["i"] > counts["e"] >= counts["h"] == 1
    assert sum(count == counts["a"] for count in counts.values()) == LAST + 1


def test_a_predicted_time_is_never_below_zero() -> None:
    """Noise: every quantised tensor seems faster than fp16 by more than fp16 takes."""
    policies = [CachePolicy(kinds={"k": "q8_0", "v": "q8_0"}, residual=0), CachePolicy(residual=0)]
    probes = Probes(["k", "v"], policies)
    measured = {name: Guess(seconds=0.1, loss=0.0) for name in probes.policies}
    measured[probes.name(probes.plain)] = Guess(seconds=1.0, loss=0.0)
    assert probes.guess(policies[0], measured).seconds == 0.0
