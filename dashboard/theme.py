"""The reader's theme."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from bottleneck_core.figures.palette import Theme


def theme() -> Theme:
    """Light or dark, as of the last message from the browser; charts ask for a rerun when it has changed since."""
    return "dark" if st.context.theme.type == "dark" else "light"
