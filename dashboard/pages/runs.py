"""All runs: what there is, which is best, and the table that opens them."""

from __future__ import annotations

import os

import streamlit as st

from bottleneck_core.figures import numbers
from bottleneck_core.figures.frontier import comparable, quality_figure
from dashboard import runs_table
from dashboard.filters import remember_filters, remembered_filters
from dashboard.live_chart import live_chart, load_plotly
from dashboard.state import IDLE_SECONDS, LIVE_SECONDS, Row, address_of, run_roots, run_rows, with_details
from dashboard.theme import theme

START = "python -m bottleneck_core train --size nano --exp paper_bottleneck"
LIVELY = "runs_lively"


def heading(rows: list[Row]) -> None:
    running = sum(row["status"] == "running" for row in rows)
    parts = [f"**{len(rows)}** {'run' if len(rows) == 1 else 'runs'}", f"**{running}** running"]
    best = min((row for row in rows if row.get("best_val_loss")), key=lambda r: r["best_val_loss"], default=None)
    if best:
        parts.append(f"best **{numbers.loss(best['best_val_loss'])}** {best['id']}")
    st.markdown(" &nbsp;·&nbsp; ".join(parts))


def quality(rows: list[Row]) -> None:
    """The picture that matters, once there are two runs to compare."""
    if len(comparable(rows)) < 2:
        return

    def clicked(point: dict) -> None:
        if point["customdata"]:
            st.session_state["open_run"] = rows[point["customdata"][0]]

    live_chart(quality_figure(rows, theme=theme()), name="quality", group="runs", on_click=clicked)


def table(rows: list[Row]) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        text = st.text_input(
            "Search",
            key="q",
            bind="query-params",
            placeholder="search id or settings",
            label_visibility="collapsed",
        )
        statuses = st.multiselect(
            "Status",
            runs_table.STATUSES,
            key="status",
            bind="query-params",
            placeholder="any status",
            label_visibility="collapsed",
        )
        modes = st.multiselect(
            "Attention",
            runs_table.ATTENTION_MODES,
            key="attention",
            bind="query-params",
            placeholder="any attention",
            label_visibility="collapsed",
        )
    shown = runs_table.matching(rows, text, statuses, modes)
    if not shown:
        st.info(f"None of the {len(rows)} runs match: clear the search or a filter.")
        return

    def opened() -> None:
        st.session_state["open_run"] = shown[st.session_state["opened_row"]["row"]]

    frame = runs_table.table_frame(shown)
    st.dataframe(
        runs_table.styled(frame),
        column_config=runs_table.columns(frame, opened, "opened_row"),
        column_order=runs_table.column_order(frame),
        hide_index=True,
        placeholder="",
        key="runs_table",
        height="content" if len(shown) <= 15 else 560,
    )


def page() -> None:
    rows, complete = with_details(runs_table.ordered(run_rows()))
    if not rows:
        roots = ", ".join(f"`{root}`" for root in run_roots())
        st.info(f"No runs in {roots} yet. Start one:")
        st.code(START, language="bash")
    else:
        heading(rows)
        quality(rows)
        table(rows)
    # Kept until the run's page takes it: a live update may overtake the switch, and then the next one repeats it.
    if row := st.session_state.get("open_run"):
        remember_filters()
        st.switch_page("dashboard/pages/run.py", query_params=address_of(row, rows))
    # Runs that others start appear by themselves, only more slowly.
    lively = not complete or any(row["status"] == "running" for row in rows)
    if st.session_state.get(LIVELY, False) != lively:
        st.session_state[LIVELY] = lively
        st.rerun(scope="app")


for missing in (root for root in run_roots() if not root.is_dir() and "BOTTLENECK_RUNS" in os.environ):
    st.warning(f"`{missing}` of BOTTLENECK_RUNS is no folder: create it or take it out.")
if "id" in st.query_params:
    # Back from a run: Streamlit wrote the run's parameters over this page's before it went there.
    st.session_state.pop("open_run", None)
    st.query_params.from_dict(remembered_filters())
    st.rerun()  # widgets take their values from the address at the start of a rerun
load_plotly()
st.fragment(page, run_every=LIVE_SECONDS if st.session_state.get(LIVELY) else IDLE_SECONDS)()
