"""The workload of all scenarios, above them: context, batch, and the card that it has to fit."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from bottleneck_core.cli.amounts import tokens
from bottleneck_core.errors import UserError
from bottleneck_core.memory import GPUS, WEIGHT_BITS
from dashboard.kv.address import ARRIVED, edited, key
from dashboard.kv.result import CONTEXTS, card_bytes
from dashboard.kv.scenario import MOST_REQUESTS, MOST_TOKENS, TOTALS, View
from dashboard.markdown import escaped

_SIZES = ("24GiB", "48GiB", "80GiB")


def workload(seed: View) -> View:
    """Context, batch and card, above all scenarios."""
    length, exact, batch, card, weights, rest = st.columns([4.4, 1.5, 1.2, 1.9, 1.2, 1.2], vertical_alignment="bottom")
    with length:
        st.select_slider(
            "Context (tokens of each request)",
            sorted({*CONTEXTS, _typed_context() or st.session_state.get(key("slider"), seed.context)}),
            value=seed.context,
            format_func=_short_count,
            key=key("slider"),
            on_change=_slid,
        )
    with exact:
        st.text_input(
            "Exactly",
            f"{seed.context:,}",
            key=key(ARRIVED),
            on_change=_typed,
            help="A number of tokens from 1 to 10 million; 128k is 128,000 and 128Ki is 131,072.",
        )
    with batch:
        requests = st.number_input(
            "Batch", 1, MOST_REQUESTS, seed.batch, key=key("batch"), on_change=edited, help="Requests at a time."
        )
    with card:
        cards = list(dict.fromkeys([*GPUS, *_SIZES, seed.card]))
        chosen = st.selectbox(
            "Card",
            cards,
            cards.index(seed.card),
            key=key("card"),
            on_change=edited,
            accept_new_options=True,
            help="A GPU by name, or type a size such as 80GiB.",
        )
    with weights:
        dtype = st.selectbox(
            "Weights",
            list(WEIGHT_BITS),
            list(WEIGHT_BITS).index(seed.weights),
            key=key("weights"),
            on_change=edited,
            help="How the model's weights are stored on the card.",
        )
    with rest, st.popover("Set aside", width="stretch"):
        activations = st.number_input(
            "Activations (GiB)",
            0.0,
            1024.0,
            seed.activations / 2**30,
            0.25,
            key=key("activations"),
            on_change=edited,
            help="What decoding needs besides weights and cache; a rule of thumb unless you measured it.",
        )
        reserve = st.number_input(
            "Reserve (% of the card)",
            0.0,
            99.0,
            100 * seed.reserve,
            1.0,
            key=key("reserve"),
            on_change=edited,
            help="Left free: fragments, other processes. vLLM leaves a tenth.",
        )
        fits = st.selectbox(
            "What has to fit",
            TOTALS,
            TOTALS.index(seed.fits),
            format_func=lambda name: name.replace("_", " "),
            key=key("fits"),
            on_change=edited,
        )
    return replace(
        seed,
        context=_context(),
        batch=requests,
        card=_card(chosen, seed),
        weights=dtype,
        # Unchanged is exactly as it was: not each share of bytes survives the unit of its field.
        activations=seed.activations if activations == seed.activations / 2**30 else round(activations * 2**30),
        reserve=seed.reserve if reserve == 100 * seed.reserve else round(reserve / 100, 9),
        fits=fits,
    )


def _slid() -> None:
    st.session_state[key(ARRIVED)] = f"{st.session_state[key('slider')]:,}"
    edited()


def _typed() -> None:
    if found := _typed_context():  # else the form says what is wrong
        st.session_state[key("slider")] = found
        edited()


def _typed_context() -> int | None:
    """The number in the field; None where there is none."""
    try:
        return _read_context(st.session_state.get(key(ARRIVED), ""))
    except UserError:
        return None


def _context() -> int:
    """The slider's number, and a sentence where the field says none."""
    try:
        _read_context(st.session_state[key(ARRIVED)])
    except UserError as error:
        st.error(escaped(f"{error}. The slider's is used."))
    return st.session_state[key("slider")]


def _read_context(text: str) -> int:
    found = tokens(text, "The context")
    if found > MOST_TOKENS:
        raise UserError(f"The context goes up to {MOST_TOKENS:,} tokens, got {text}")
    return found


def _card(chosen: str | None, seed: View) -> str:
    try:
        card_bytes(str(chosen))
        return str(chosen)
    except UserError as error:
        st.error(escaped(f"{error}, or choose a GPU from the list."))
        return seed.card if seed.card != chosen else View.card


def _short_count(value: int) -> str:
    """128k where that is all of it, else every digit."""
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if value >= unit and value * 100 % unit == 0:
            return f"{value / unit:g}{name}"
    return f"{value:,}"
