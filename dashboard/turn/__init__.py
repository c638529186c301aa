"""Opening another page as the answer to a click that was not on a link.

The browser goes there as by a link, which stops the old page's timers before it asks for the new page.
`st.switch_page` has the server turn instead: what the old page's live parts asked for meanwhile is then answered under
the old page's name, at which the browser empties the new page and the next live part has nowhere to draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.components.v2 import component

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

_SCRIPT = Path(__file__).with_name("turn.js")
_PAGE = "turn_page"
_TARGET = "turn_target"


def arrive(page: str) -> None:
    """The reader is on `page` now: whoever comes back does not want to leave again. To be called once a run."""
    if st.session_state.get(_PAGE) != page:
        st.session_state[_PAGE] = page
        st.session_state.pop(_TARGET, None)


def turn_to(page: str, query_params: Mapping[str, str]) -> None:
    """Has `turn` open `page`, a path below the app, with this address. For callbacks."""
    st.session_state[_TARGET] = (page, query_params)


def turn() -> bool:
    """Opens the page that was asked for, if any; again when a live update comes before the browser has gone."""
    if _TARGET not in st.session_state:
        return False
    page, query_params = st.session_state[_TARGET]
    with st.container(key="turn"):  # the script's name for it
        st.page_link(page, label="Opening …", query_params=query_params)
    _follow()(key="turn_follow", height="content")
    return True


@cache
def _follow() -> ComponentRenderer:
    return component("bottleneck_turn", js=_SCRIPT.read_text(encoding="utf-8"), isolate_styles=False)
