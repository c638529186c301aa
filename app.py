"""The dashboard: `streamlit run app.py`. Pages are in dashboard/pages; this file only routes to them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

ICON = Path(__file__).parent / "dashboard" / "icon.svg"
# Streamlit keeps six rem free above the page, for a menu that it hides as long as there is only one entry.
STYLE = "<style>.stMainBlockContainer { padding-top: 3.5rem; padding-bottom: 3rem; }</style>"

st.set_page_config(page_title="Bottleneck", page_icon=str(ICON), layout="wide")
st.html(STYLE)

pages = [
    st.Page("dashboard/pages/runs.py", title="Runs", default=True),
    # Opened from anywhere by its address, /run?id=...; a menu entry would not know which run.
    st.Page("dashboard/pages/run.py", title="Run", url_path="run", visibility="hidden"),
]
st.navigation(pages, position="top").run()
