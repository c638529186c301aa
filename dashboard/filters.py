"""How the table of runs is looked at, kept while the reader looks at a run."""

from __future__ import annotations

from typing import Any

import streamlit as st

# Keys of the widgets, which are also their names in the address.
FILTERS = ("q", "status", "attention", "tag", "by", "in", "columns", "at", "sort", "order")
_KEPT = "filters"


def remember_filters() -> None:
    """To be called before leaving the table."""
    st.session_state[_KEPT] = {name: st.query_params.get_all(name) for name in FILTERS if name in st.query_params}


def remembered_filters() -> dict[str, Any]:
    """What was set when the table was left; empty if nothing was."""
    return st.session_state.get(_KEPT, {})
