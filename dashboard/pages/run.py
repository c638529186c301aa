"""One run: header, then tabs of which only the open one is computed."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from dashboard.filters import remembered_filters
from dashboard.live_chart import load_plotly
from dashboard.markdown import escaped
from dashboard.run import attention as run_attention
from dashboard.run import curves as run_curves
from dashboard.run import files as run_files
from dashboard.run import header as run_header
from dashboard.run import kv as run_kv
from dashboard.run import record as run_record
from dashboard.run import samples as run_samples
from dashboard.runs.actions import problems
from dashboard.state import LIVE_SECONDS, Row, drawn_of, find_row, reading, root_of, run_rows

RUNS_PAGE = "dashboard/pages/runs.py"
ATTENTION_PAGE = "dashboard/pages/attention.py"
TABS = ["Curves", "Attention", "KV memory", "Samples", "Summary", "Config", "Log", "Files"]


def page(row: Row) -> None:
    path = row["path"]
    with reading(path) as run:
        live = LIVE_SECONDS if run.status == "running" else None

    @st.fragment(run_every=live)
    def header() -> None:
        rows = run_rows()  # tags and notes change while the page is open
        now = next((other for other in rows if other["path"] == path), row)
        problems()
        with reading(path) as run:
            run_header.header(run, now, rows)
            ended = live is not None and run.status != "running"
        if ended:  # nothing to look at any more
            st.rerun(scope="app")

    @st.fragment(run_every=live)
    def curves() -> None:
        with reading(path) as run:
            drawn = drawn_of(path)
            run_curves.curves(run, run_curves.curve_controls(run, drawn), drawn)

    @st.fragment(run_every=live)
    def attention() -> None:
        if (Path(path) / "analysis.h5").is_file():
            several = sum(other["id"] == row["id"] for other in run_rows()) > 1
            st.page_link(
                ATTENTION_PAGE,
                label="Every step, head and map of this run",
                icon=":material/grid_view:",
                query_params={"run": f"{row['id']} @ {root_of(row)}" if several else row["id"]},
            )
        with reading(path) as run:
            run_attention.attention(run, drawn_of(path))

    @st.fragment(run_every=live)
    def log() -> None:
        with reading(path) as run:
            run_record.log(run)

    header()
    tabs = dict(zip(TABS, st.tabs(TABS, key="tab", bind="query-params"), strict=True))
    draw = {
        "Curves": curves,
        "Attention": attention,
        "KV memory": lambda: run_kv.kv_memory(run, row),
        "Samples": lambda: run_samples.samples(run),
        "Summary": lambda: run_record.summary(run),
        "Config": lambda: run_record.settings(run),
        "Log": log,
        "Files": lambda: run_files.files(run),
    }
    for name, tab in tabs.items():
        if tab.open:
            with tab:
                draw[name]()


load_plotly()
st.page_link(RUNS_PAGE, label="All runs", icon=":material/arrow_back:", query_params=remembered_filters())
run_id, root = st.query_params.get("id"), st.query_params.get("root")
row = find_row(run_rows(run_id), run_id, root) if run_id else None
if row is not None:
    page(row)
else:
    missing = f"There is no run {escaped(run_id or '')} in the folders that are looked at."
    st.warning(missing if run_id else "No run was chosen.")
