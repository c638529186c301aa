"""Which page the reader is on, for what a page redraws by itself.

Streamlit may run a fragment of the page before once more while the next one is already being drawn; what it draws then
has no place in the browser, whose page stops with an error. So such a fragment draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import streamlit as st

P = ParamSpec("P")
_PAGE = "visited_page"


def visit(page: str) -> None:
    """The reader is on `page` now: to be said before anything of it is drawn."""
    st.session_state[_PAGE] = page


def of_this_page(draw: Callable[P, None]) -> Callable[P, None]:
    """`draw` for a fragment, as long as the reader is on the page on which this was called."""
    page = st.session_state.get(_PAGE)

    @wraps(draw)
    def here(*arguments: P.args, **options: P.kwargs) -> None:
        if st.session_state.get(_PAGE) == page:
            draw(*arguments, **options)

    return here
