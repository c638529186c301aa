"""One run: header, then tabs of which only the open one is computed."""

from __future__ import annotations

import streamlit as st

from dashboard import run_attention, run_curves, run_header, run_record
from dashboard.filters import remembered_filters
from dashboard.live_chart import load_plotly
from dashboard.state import LIVE_SECONDS, Row, find_row, reading, run_rows

RUNS_PAGE = "dashboard/pages/runs.py"
TABS = ["Curves", "Attention", "Summary", "Config", "Log", "Files"]


def page(row: Row) -> None:
    path = row["path"]
    with reading(path) as run:
        live = LIVE_SECONDS if run.status == "running" else None

    @st.fragment(run_every=live)
    def header() -> None:
        with reading(path) as run:
            run_header.header(run)
            ended = live is not None and run.status != "running"
        if ended:  # nothing to look at any more
            st.rerun(scope="app")

    @st.fragment(run_every=live)
    def curves() -> None:
        with reading(path) as run:
            run_curves.curves(run, run_curves.curve_controls(run))

    @st.fragment(run_every=live)
    def attention() -> None:
        with reading(path) as run:
            run_attention.attention(run)

    @st.fragment(run_every=live)
    def log() -> None:
        with reading(path) as run:
            run_record.log(run)

    header()
    tabs = dict(zip(TABS, st.tabs(TABS, key="tab", bind="query-params"), strict=True))
    draw = {
        "Curves": curves,
        "Attention": attention,
        "Summary": lambda: run_record.summary(run),
        "Config": lambda: run_record.settings(run),
        "Log": log,
        "Files": lambda: run_record.files(run),
    }
    for name, tab in tabs.items():
        if tab.open:
            with tab:
                draw[name]()


load_plotly()
st.session_state.pop("open_run", None)
st.page_link(RUNS_PAGE, label="All runs", icon=":material/arrow_back:", query_params=remembered_filters())
run_id, root = st.query_params.get("id"), st.query_params.get("root")
row = find_row(run_rows(), run_id, root) if run_id else None
if row is not None:
    page(row)
else:
    st.warning(f"There is no run `{run_id}` in the folders that are looked at." if run_id else "No run was chosen.")
