"""The runs that are compared, as chips in their colours: drag or arrow keys to order, a cross to drop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st
from streamlit.components.v2 import component

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

_HERE = Path(__file__).parent
_KEY = "compare_chips"


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A run: `token` in the address, its name, the colours of its line in light and dark, and its dashes."""

    token: str
    name: str
    light: str
    dark: str
    dash: str


def run_chips(chips: Sequence[Chip], *, on_change: Callable[[list[str]], None], on_open: Callable[[str], None]) -> None:
    """Shows the chips. `on_change` gets the tokens in their new order, `on_open` that of a chip that was clicked."""

    def changed() -> None:
        tokens = (st.session_state.get(_KEY) or {}).get("tokens")
        if tokens is not None:
            on_change([str(token) for token in tokens])

    def opened() -> None:
        token = (st.session_state.get(_KEY) or {}).get("opened")
        if token:
            on_open(str(token))

    _chips()(
        key=_KEY,
        data={"chips": [asdict(chip) for chip in chips]},
        height="content",
        on_tokens_change=changed,
        on_opened_change=opened,
    )


@cache
def _chips() -> ComponentRenderer:
    return component(
        "bottleneck_run_chips",
        js=(_HERE / "chips.js").read_text(encoding="utf-8"),
        css=(_HERE / "chips.css").read_text(encoding="utf-8"),
    )
