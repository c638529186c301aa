"""The dashboard: `streamlit run app.py`. Pages are in dashboard/pages; this file only routes to them."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.access import may_change, why_not
from dashboard.account import account
from dashboard.preload import preload
from dashboard.strip import status_strip
from dashboard.turn import arrive

ICON = Path(__file__).parent / "dashboard" / "icon.svg"
# Streamlit keeps six rem free above the page, for a menu that it hides as long as there is only one entry.
STYLE = "<style>.stMainBlockContainer { padding-top: 4rem; padding-bottom: 3rem; }</style>"

st.set_page_config(page_title="Bottleneck", page_icon=str(ICON), layout="wide")
st.html(STYLE)

pages = [
    st.Page("dashboard/pages/runs.py", title="Runs", default=True),
    st.Page("dashboard/pages/compare.py", title="Compare", url_path="compare"),
    st.Page("dashboard/pages/attention.py", title="Attention", url_path="attention"),
    st.Page("dashboard/pages/kv.py", title="KV calculator", url_path="kv"),
    st.Page("dashboard/pages/train.py", title="Train", url_path="train"),
    st.Page("dashboard/pages/generate.py", title="Generate", url_path="generate"),
    # Opened from anywhere by its address, /run?id=...; a menu entry would not know which run.
    st.Page("dashboard/pages/run.py", title="Run", url_path="run", visibility="hidden"),
]
page = st.navigation(pages, position="top")
arrive(page.url_path)
with st.container(horizontal=True, vertical_alignment="center", gap="small"):
    status_strip(on_train=page.url_path == "train")
    account("You may start, stop, edit and delete." if may_change() else why_not())
page.run()
preload()
