"""Alarms: which thresholds, since when, and what raises none."""

from __future__ import annotations

import numpy as np
import pytest

from bottleneck_core.figures.alarms import RULES, alarms_at
from bottleneck_core.store.metrics import METRICS

STEPS = np.array([0, 100, 200, 300])


def heads(*rows: float) -> np.ndarray:
    """A metric of one layer with two heads: head 1 is given, head 0 is 0.45."""
    return np.array([[[0.45, row]] for row in rows], dtype=np.float32)


def sentences(values, probe=3):
    return [alarm.sentence for alarm in alarms_at(STEPS, values, probe)]


@pytest.mark.parametrize(
    ("metric", "fine", "bad", "words"),
    [
        ("entropy", 0.1, 0.09, "entropy below 0.1 nats"),
        ("sink_mass", 0.5, 0.51, "sink mass above 0.5"),
        ("null_mass", 0.9, 0.91, "null mass above 0.9"),
    ],
)
def test_heads_that_pass_a_level_alarm_with_their_step(metric, fine, bad, words):
    assert sentences({metric: heads(fine, fine, bad, bad)}) == [f"layer 0 head 1: {words} since step 200"]
    assert sentences({metric: heads(fine, fine, fine, fine)}) == []


def test_rank_collapse_and_identical_heads():
    ranks = heads(9, 3, 1.9, 1.5)
    ranks[:, :, 0] = np.nan  # not measured
    assert sentences({"erank": ranks}) == ["layer 0 head 1: effective rank below 2 dimensions since step 200"]
    layers = np.array([[0.99, 0.5], [0.99, 0.5], [0.96, 0.5], [0.96, 0.95]])
    assert sentences({"redundancy": layers}) == ["layer 0: redundancy above 0.95 since step 100"]


def test_since_is_the_start_of_the_last_stretch():
    values = {"entropy": heads(2, 0.01, 2, 0.01)}
    assert sentences(values) == ["layer 0 head 1: entropy below 0.1 nats since step 300"]
    assert sentences(values, probe=2) == []
    assert sentences(values, probe=1) == ["layer 0 head 1: entropy below 0.1 nats since step 100"]


def test_what_was_not_measured_neither_alarms_nor_interrupts():
    assert sentences({"entropy": heads(2, 0.01, np.nan, 0.01)})[0].endswith("since step 100")
    assert sentences({"entropy": heads(2, np.nan, np.nan, 0.01)})[0].endswith("since step 300")
    assert sentences({"entropy": heads(2, 0.01, 0.01, np.nan)}) == []


def test_the_untrained_model_raises_none():
    values = {"entropy": heads(0.01, 0.01, 0.01, 0.01)}
    assert sentences(values, probe=0) == []
    assert sentences(values)[0].endswith("since step 100")


def test_alarms_are_by_rule_then_by_age():
    sink = heads(0.1, 0.9, 0.9, 0.9)
    sink[3, 0, 0] = 0.9
    found = alarms_at(STEPS, {"null_mass": heads(0, 0, 0, 0.95), "sink_mass": sink, "distance": sink}, 3)
    assert [(a.rule.metric, a.head, a.since) for a in found] == [
        ("sink_mass", 1, 100),
        ("sink_mass", 0, 300),
        ("null_mass", 1, 300),
    ]
    assert found[0].value == pytest.approx(0.9)


def test_every_rule_is_about_a_defined_metric():
    assert {rule.metric for rule in RULES} <= METRICS.keys()
    for rule in RULES:
        assert (rule.metric == "redundancy") == (METRICS[rule.metric].per == "layer")
