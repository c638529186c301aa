"""Alarms of the step shown, in words; a click shows the head and the metric that it is about."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import streamlit as st

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.figures.alarms import RULES, Alarm, alarms_at
from dashboard.attention.data import watched_values
from dashboard.attention.view import Side, choose_head
from dashboard.markdown import escaped

METRIC = "metric"
# Alarms of one rule that are listed at once; a collapsed model has hundreds.
_LISTED = 4


def alarms(sides: Sequence[Side]) -> None:
    """The alarms of each run; a sentence where there are none."""
    st.markdown("**Alarms**", help=_rules())
    for number, side in enumerate(sides):
        values = watched_values(side.run)
        found = alarms_at(side.run.steps, values, side.probe)
        name = f"{escaped(side.run.id)}: " if len(sides) > 1 else ""
        if not found:
            st.markdown(f":green[:material/check_circle:] {name}{_all_clear(side, values)}")
            continue
        if name:
            st.markdown(f"{name}{len(found)} at step {side.step:,}")
        with st.container(gap=None):
            for rule in RULES:
                of_rule = [alarm for alarm in found if alarm.rule is rule]
                for alarm in of_rule[:_LISTED]:
                    _button(alarm, number)
                if rest := of_rule[_LISTED:]:
                    with st.expander(f"{len(rest)} more: {rule.name}", key=f"more/{number}/{rule.metric}"):
                        for alarm in rest:
                            _button(alarm, number)


def _all_clear(side: Side, watched: Collection[str]) -> str:
    if not watched:
        return "this run recorded none of the metrics that alarms look at."
    if side.step == 0:
        return "step 0 is the untrained model, which raises no alarm."
    words = ", ".join(rule.words for rule in RULES if rule.metric in watched)
    return f"nothing alarms at step {side.step:,} (watched: {words})."


def _button(alarm: Alarm, side: int) -> None:
    st.button(
        alarm.sentence,
        key=f"alarm/{side}/{alarm.rule.metric}/{alarm.layer}/{alarm.head}",
        type="tertiary",
        icon=":material/warning:",
        help=f"{alarm.rule.name.capitalize()}, now {numbers.scalar(alarm.value)} {alarm.rule.unit}. "
        f"{alarm.rule.meaning} Click to look at it.",
        on_click=_show,
        args=(alarm,),
    )


def _show(alarm: Alarm) -> None:
    choose_head(alarm.layer, alarm.head)
    st.session_state[METRIC] = alarm.rule.metric


def _rules() -> str:
    """All thresholds as a list."""
    lines = [f"- {rule.name}: {rule.condition}. {rule.meaning} {bc.METRICS[rule.metric].definition}" for rule in RULES]
    return "\n".join(["Each at the step shown, since the first probe of the unbroken stretch.\n", *lines])
