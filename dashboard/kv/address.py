"""The calculator's address: read when it comes from outside, written when the reader has changed something.

Widgets get their values from a seed, once, under keys that carry the seed's generation: a link, the Back button or
another number of scenarios starts a new generation. The address is written after edits only; written on arrival too,
it would catch those who go back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from dashboard.kv.scenario import View, decode, encode

_SEED, _GENERATION, _QUERY, _EDITED, _LAST, _PROBLEMS = (
    f"kv_{name}" for name in ("seed", "generation", "query", "edited", "last", "problems")
)
ARRIVED = "context"  # a widget that is always there: gone means that the reader comes from another page


def seed() -> tuple[View, list[str]]:
    """The view that widgets start from, and what was wrong with the link; to be called once a rerun."""
    state, query = st.session_state, st.query_params.to_dict()
    if key(ARRIVED) not in state and not state.get(_EDITED):
        if not query and state.get(_QUERY):  # back through the menu: as it was left
            query = state[_QUERY]
            st.query_params.from_dict(query)
        _load(query)
    elif not state.get(_EDITED) and query != state[_QUERY]:
        _load(query)
    elif state.get(_EDITED):
        state[_PROBLEMS] = []
    return state[_SEED], state[_PROBLEMS]


def key(*parts: str) -> str:
    """Of a widget of this generation."""
    return "/".join(("kv", str(st.session_state.get(_GENERATION, 0)), *parts))


def edited() -> None:
    """To be called when a widget changes."""
    st.session_state[_EDITED] = True


def start_from(change: Callable[..., View], *args: Any) -> None:
    """A new generation of widgets, from `change` of the view as it is."""
    st.session_state[_SEED] = change(st.session_state[_LAST], *args)
    st.session_state[_GENERATION] += 1
    edited()


def keep(view: View) -> dict[str, str]:
    """Remembers the view of this rerun, and writes the address after an edit. Returns its query parameters."""
    state, query = st.session_state, encode(view)
    state[_LAST] = view
    if state.pop(_EDITED, False):
        state[_QUERY] = query
        if query != st.query_params.to_dict():
            st.query_params.from_dict(query)
    return query


def _load(query: dict[str, str]) -> None:
    state = st.session_state
    state[_SEED], state[_PROBLEMS] = decode(query)
    state[_LAST] = state[_SEED]  # a quick reader clicks before the first rerun has come to its end
    state[_QUERY] = query
    state[_GENERATION] = state.get(_GENERATION, 0) + 1
