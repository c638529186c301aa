"""The draft of this reader, kept in the address: read when it comes from outside, written after edits.

The draft is the only state of the form; widgets show it and change it. So a link, the Back button and a clone fill
the form in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from dashboard.train.clone import cloned
from dashboard.train.draft import Draft, decode, encode

_DRAFT, _QUERY, _EDITED, _PROBLEMS = (f"train_{name}" for name in ("draft", "query", "edited", "problems"))


def key(*parts: str) -> str:
    """Of a widget of the form."""
    return "/".join(("train", *parts))


ARRIVED = key("name")  # a widget that is always there: gone means that the reader comes from another page


def current() -> tuple[Draft, list[str]]:
    """The draft, and what was not understood of the link that it came from."""
    state, query = st.session_state, st.query_params.to_dict()
    if state.pop(_EDITED, False):
        written = encode(state[_DRAFT])
        state[_PROBLEMS] = []
        if written != query:
            st.query_params.from_dict(written)
        state[_QUERY] = written
    elif ARRIVED not in state and not query and state.get(_QUERY):  # back through the menu: as it was left
        st.query_params.from_dict(state[_QUERY])
    elif _DRAFT not in state or query != state[_QUERY]:
        if "clone" in query:
            state[_DRAFT], state[_PROBLEMS] = cloned(query["clone"], query.get("root"))
        else:
            state[_DRAFT], state[_PROBLEMS] = decode(query)
        state[_QUERY] = query
    return state[_DRAFT], state[_PROBLEMS]


def edit(change: Callable[..., Draft], *args: Any) -> None:
    """For callbacks: the draft becomes `change(draft, *args)`."""
    st.session_state[_DRAFT] = change(st.session_state[_DRAFT], *args)
    st.session_state[_EDITED] = True


def show(widget: str, value: Any) -> None:
    """Before a widget is drawn: gives it the draft's value. Only where it differs, or it would interrupt typing."""
    if widget not in st.session_state or st.session_state[widget] != value:
        st.session_state[widget] = value
