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


def turn_to(page: str, query_params: Mapping[str, str]) -> None:
    """Opens `page`, a path below the app, with this address. To be called last: the page is drawn to its end."""
    with st.container(key="turn"):  # the script's name for it
        st.page_link(page, label="Opening …", query_params=query_params)
    _follow()(key="turn_follow", height="content")


@cache
def _follow() -> ComponentRenderer:
    return component("bottleneck_turn", js=_SCRIPT.read_text(encoding="utf-8"), isolate_styles=False)
