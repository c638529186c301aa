"""All runs: what there is, which is best, and the table that opens them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import streamlit as st

from bottleneck_core.figures.frontier import comparable, quality_figure
from dashboard.compare.runs import RUNS, runs_text
from dashboard.filters import remember_filters
from dashboard.kept import Same
from dashboard.live_chart import Drawn, live_chart, load_plotly
from dashboard.markdown import escaped
from dashboard.run.index import RunIndex
from dashboard.runs import actions as runs_actions
from dashboard.runs import kv as runs_kv
from dashboard.runs import query as runs_query
from dashboard.runs import selection as runs_selection
from dashboard.runs import table as runs_table
from dashboard.runs.controls import AT, Choice, controls, sort_controls
from dashboard.runs.query import MADE
from dashboard.state import IDLE_SECONDS, LIVE_SECONDS, Row, address_of, all_runs, run_roots
from dashboard.theme import theme
from dashboard.turn import turn, turn_to

COMPARE_PAGE = "dashboard/pages/compare.py"
RUN_PAGE = "dashboard/pages/run.py"
TRAIN_PAGE = "dashboard/pages/train.py"
LIVELY = "runs_lively"
# A table of more rows is sorted here and turned page by page, or each update would be megabytes.
MOST_ROWS = 250
PAGE_ROWS = 100
LINE_HEIGHT = 42


def open_run(row: Row, rows: list[Row]) -> None:
    remember_filters()
    turn_to(RUN_PAGE, address_of(row, rows))


def quality(shown: list[Row], rows: list[Row], choice: Choice) -> None:
    """The picture that matters, of the runs shown; once there are two runs to compare."""
    figure = MADE.get(("quality", Same(shown), Same(rows), choice.at, theme()), lambda: picture(shown, rows, choice))
    if figure is None:
        return

    def clicked(point: dict) -> None:
        if point["customdata"]:
            open_run(shown[point["customdata"][0]], rows)

    live_chart(figure, name="quality", group=f"runs/{choice.at}", on_click=clicked)


def picture(shown: list[Row], rows: list[Row], choice: Choice) -> Drawn | None:
    if len(comparable(rows)) < 2 or not comparable(shown):
        return None
    sizes = None if choice.at == AT else runs_kv.sizes(shown, choice.context)
    return Drawn.of(quality_figure(shown, at=choice.at, sizes=sizes, theme=theme()))


def selection_bar(ticked: list[Row], shown: list[Row], rows: list[Row]) -> None:
    """What can be done with the ticked runs; there only while any is."""

    def compare() -> None:
        remember_filters()
        turn_to(COMPARE_PAGE, {RUNS: runs_text(ticked, rows)})

    st.markdown(f"**{len(ticked)}** ticked", width="content")
    several = len(ticked) > 1
    st.button(
        "Compare",
        type="primary" if several else "secondary",
        icon=":material/compare_arrows:",
        on_click=compare,
        help=None if several else "One run; others can be added there.",
    )
    st.button(
        "Open",
        icon=":material/open_in_new:",
        disabled=several,
        on_click=lambda: open_run(ticked[0], rows),
        help="One run at a time." if several else None,
    )
    runs_actions.tag_popover(ticked, rows)
    runs_actions.move_buttons(ticked)
    with st.popover("Export", icon=":material/download:"):
        for words, exported in ((f"{len(ticked)} ticked", ticked), (f"{len(shown):,} shown", shown)):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(words, width=100)
                for kind, write, mime in (
                    ("CSV", runs_selection.rows_csv, "text/csv"),
                    ("JSON", runs_selection.rows_json, "application/json"),
                ):
                    st.download_button(
                        kind,
                        lambda write=write, exported=exported: write(exported),
                        file_name=f"runs.{kind.lower()}",
                        mime=mime,
                        key=f"export_{kind}_{words.split()[1]}",
                        on_click="ignore",
                    )
    st.button(
        "",
        icon=":material/close:",
        type="tertiary",
        key="untick_all",
        help="Untick all",
        on_click=runs_selection.untick_all,
    )


def run_table(shown: list[Row], rows: list[Row], choice: Choice) -> None:
    """The runs, one line each, below what can be done with the ticked ones."""
    # The line is always there: coming and going, it would move rows away from under the mouse that ticks them.
    with st.container(horizontal=True, vertical_alignment="center", gap="small", height=LINE_HEIGHT, border=False):
        if ticked := runs_selection.ticked_rows(rows):
            selection_bar(ticked, shown, rows)
        elif not runs_actions.outcome():
            st.caption("Tick runs to compare, tag, archive or export them.", width="stretch")
        runs_actions.shelves_popover()
    listed = shown
    if len(shown) > MOST_ROWS:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            name, descending = sort_controls()
            page = st.pagination(math.ceil(len(shown) / PAGE_ROWS), key="page", bind="query-params", width="stretch")
            st.caption(f"{len(shown):,} runs", width="content")
        key = ("order", Same(shown), name, descending, choice.at)
        in_turn = MADE.get(key, lambda: in_order(shown, name, descending, choice))
        listed = in_turn[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]

    def opened() -> None:
        open_run(listed[st.session_state["opened_row"]["row"]], rows)

    runs_selection.follow_rows(listed)
    frame = runs_table.table_frame(listed, runs_kv.sizes(listed, choice.context), choice.at, choice.columns)
    st.dataframe(
        runs_table.styled(frame),
        column_config=runs_table.columns(frame, opened, "opened_row"),
        column_order=runs_table.column_order(frame),
        hide_index=True,
        placeholder="",
        key=runs_selection.TABLE,
        on_select=runs_selection.on_tick,
        selection_mode="multi-row",
        height="content" if len(listed) <= 15 else 560,
    )


def in_order(rows: list[Row], name: str, descending: bool, choice: Choice) -> list[Row]:
    if name == "newest":
        return rows
    if name == "KV":
        sized = [{"row": row, "kv": runs_kv.cache_bytes(row, choice.context), "config": {}} for row in rows]
        return [found["row"] for found in runs_query.by_value(sized, "kv", descending=descending)]
    return runs_query.by_value(rows, runs_table.VALUES.get(name, name), descending=descending)


def grouped(shown: list[Row], rows: list[Row], version: int, by: str) -> list[runs_query.RunGroup]:
    seeds = runs_query.repetitions(version, rows) if by == runs_query.SEEDS else {}
    return MADE.get(("groups", Same(shown), by), lambda: runs_query.grouped(shown, by, seeds))


def group_table(groups: Sequence[runs_query.RunGroup], by: str, choice: Choice) -> None:
    """The groups, one line each; a click shows the runs of one."""

    def opened() -> None:
        st.session_state["in"] = groups[st.session_state["opened_group"]["row"]].name

    frame = runs_table.group_frame(groups, lambda row: runs_kv.cache_bytes(row, choice.context), by, choice.at)
    st.dataframe(
        runs_table.styled(frame),
        column_config=runs_table.group_columns(frame, opened, "opened_group"),
        column_order=runs_table.column_order(frame),
        hide_index=True,
        placeholder="",
        key="groups_table",
        height="content" if len(frame) <= 15 else 560,
    )


def group_box(groups: Sequence[runs_query.RunGroup], by: str) -> str | None:
    """Which group's runs are shown; None for the table of groups."""
    names = [group.name for group in groups]
    if st.session_state.get("in") not in (None, *names):
        del st.session_state["in"]  # of another grouping, or filtered away
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption(f"{len(names):,} groups by {escaped(by)}", width="content")
        return st.selectbox(
            "Group",
            names,
            index=None,
            key="in",
            bind="query-params",
            placeholder="all groups",
            label_visibility="collapsed",
            width=320,
        )


def empty() -> None:
    roots = ", ".join(f"`{root}`" for root in run_roots())
    st.info(f"No runs in {roots} yet.")
    st.page_link(TRAIN_PAGE, label="Start the first one", icon=":material/play_arrow:")
    runs_actions.outcome()
    runs_actions.shelves_popover()


def page() -> None:
    if runs_actions.question_waits():
        st.rerun(scope="app")
    index = all_runs()
    found = index.rows()
    rows = MADE.get(("ordered", Same(found)), lambda: runs_query.ordered(found))
    runs_actions.problems()
    if index.unread:
        done = len(rows) / (len(rows) + index.unread)
        st.progress(done, f"Reading runs: {len(rows):,} of {len(rows) + index.unread:,}")
    if not rows:
        empty()
    else:
        choice = controls(rows, index.version, MADE.get(("facts", Same(rows)), lambda: runs_query.facts(rows)))
        shown = MADE.get(("matching", Same(rows), choice.wanted.key), lambda: runs_query.matching(rows, choice.wanted))
        groups = grouped(shown, rows, index.version, choice.by) if choice.by else []
        chosen = None
        quality(shown, rows, choice)
        if not shown:
            runs_actions.outcome()
            st.info(f"None of the {len(rows):,} runs match: clear the search or a filter.")
        elif choice.by:
            chosen = group_box(groups, choice.by)
        if choice.by and shown and chosen is None:
            group_table(groups, choice.by, choice)
        elif shown:
            run_table(next((list(g.rows) for g in groups if g.name == chosen), shown), rows, choice)
    if not turn() and st.session_state[LIVELY] != lively(index, rows):
        st.session_state[LIVELY] = not st.session_state[LIVELY]
        st.rerun(scope="app")


def lively(index: RunIndex, rows: list[Row]) -> bool:
    """Whether to look often; runs that others start appear by themselves, only more slowly."""
    return bool(index.unread) or any(row["status"] == "running" for row in rows)


for missing in (root for root in run_roots() if not root.is_dir() and "BOTTLENECK_RUNS" in os.environ):
    st.warning(f"`{missing}` of BOTTLENECK_RUNS is no folder: create it or take it out.")
if LIVELY not in st.session_state:  # asked before anything is drawn: to find out later would draw all of it twice
    st.session_state[LIVELY] = lively(all_runs(), all_runs().rows())
load_plotly()
runs_actions.dialog()
st.fragment(page, run_every=LIVE_SECONDS if st.session_state[LIVELY] else IDLE_SECONDS)()
