"""Alarms of the step shown, in words; a click shows the head and the metric that it is about."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import streamlit as st

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.figures.alarms import RULES, Alarm
from dashboard.attention.data import alarms_of, watched
from dashboard.attention.view import Side, choose_head
from dashboard.markdown import escaped

METRIC = "metric"
# Alarms of one rule that have a button each. A collapsed model has hundreds: the rest is a list to choose from.
_LISTED = 4


def alarms(sides: Sequence[Side]) -> None:
    """The alarms of each run, the most severe of each rule first; a sentence where there are none."""
    st.markdown("**Alarms**", help=_rules())
    for number, side in enumerate(sides):
        found = alarms_of(side.run, side.probe)
        name = f"{escaped(side.run.id)}: " if len(sides) > 1 else ""
        if not found:
            st.markdown(f":green[:material/check_circle:] {name}{_all_clear(side, watched(side.run))}")
            continue
        if name:
            st.markdown(f"{name}{len(found)} at step {side.step:,}")
        with st.container(gap=None):
            for rule in RULES:
                of_rule = sorted((alarm for alarm in found if alarm.rule is rule), key=_severity, reverse=True)
                for alarm in of_rule[:_LISTED]:
                    _button(alarm, number)
                if rest := of_rule[_LISTED:]:
                    _more(rest, f"more/{number}/{rule.metric}")


def _severity(alarm: Alarm) -> float:
    """How far the value is past its level, in the unit of the rule."""
    return abs(alarm.value - alarm.rule.level)


def _all_clear(side: Side, metrics: Collection[str]) -> str:
    if not metrics:
        return "this run recorded none of the metrics that alarms look at."
    if side.step == 0:
        return "step 0 is the untrained model, which raises no alarm."
    words = ", ".join(rule.words for rule in RULES if rule.metric in metrics)
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


def _more(rest: Sequence[Alarm], key: str) -> None:
    """Alarms of one rule to choose from, by searching too; what is chosen is looked at."""
    by_sentence = {alarm.sentence: alarm for alarm in rest}

    def chosen() -> None:
        alarm = by_sentence.get(st.session_state[key])
        st.session_state[key] = None  # to choose is to go there: nothing stays chosen
        if alarm:
            _show(alarm)

    st.selectbox(
        f"More alarms: {rest[0].rule.name}",
        list(by_sentence),
        index=None,
        key=key,
        placeholder=f"and {len(rest)} more: {rest[0].rule.name}",
        label_visibility="collapsed",
        on_change=chosen,
    )


def _show(alarm: Alarm) -> None:
    choose_head(alarm.layer, alarm.head)
    st.session_state[METRIC] = alarm.rule.metric


def _rules() -> str:
    """All thresholds as a list."""
    lines = [f"- {rule.name}: {rule.condition}. {rule.meaning} {bc.METRICS[rule.metric].definition}" for rule in RULES]
    return "\n".join(["Each at the step shown, since the first probe of the unbroken stretch.\n", *lines])
