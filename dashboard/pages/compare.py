"""Runs side by side: curves over each other, results, settings that differ, quality against cost."""

from __future__ import annotations

import streamlit as st

from bottleneck_core.figures.palette import run_color
from bottleneck_core.figures.seeds import BandKind
from dashboard.compare import curves as compare_curves
from dashboard.compare import points as compare_points
from dashboard.compare import tables as compare_tables
from dashboard.compare.chips import Chip, run_chips
from dashboard.compare.data import compared_runs
from dashboard.compare.groups import Group, default_grouping, grouped, groupings
from dashboard.compare.runs import (
    RUNS,
    chosen_rows,
    ids_in,
    remember_address,
    remembered_address,
    runs_text,
    set_runs,
    tokens_of,
)
from dashboard.live_chart import load_plotly
from dashboard.markdown import escaped
from dashboard.state import IDLE_SECONDS, LIVE_SECONDS, Row, address_of, run_rows
from dashboard.turn import turn, turn_to

RUNS_PAGE = "dashboard/pages/runs.py"
RUN_PAGE = "dashboard/pages/run.py"
BANDS: tuple[BandKind, ...] = ("min to max", "95 % interval")
ADD = "add_run"


def open_run(token: str, rows: list[Row]) -> None:
    remember_address()
    opened, _ = chosen_rows(token, rows)
    if opened:
        turn_to(RUN_PAGE, address_of(opened[0], rows))


def add_box(chosen: list[Row], rows: list[Row]) -> None:
    """Adds one more run by searching for it."""
    taken = {row["path"] for row in chosen}
    others = [row for row in rows if row["path"] not in taken]
    by_token = dict(zip(tokens_of(others, rows), others, strict=True))

    def added() -> None:
        if token := st.session_state[ADD]:
            set_runs(runs_text([*chosen, by_token[token]], rows))
        st.session_state[ADD] = None

    st.selectbox(
        "Add a run",
        list(by_token),
        index=None,
        format_func=lambda token: by_token[token]["id"] if token in by_token else token,
        key=ADD,
        placeholder="Add a run",
        label_visibility="collapsed",
        icon=":material/add:",
        on_change=added,
        width=260,
        disabled=not others,
    )


def heading(chosen: list[Row], rows: list[Row]) -> tuple[list[Group], str, BandKind]:
    """Chips, the box that adds one, and how runs are grouped: the groups, by what, and the band around each."""
    with st.spinner("Reading the runs"):  # it waits half a second before it shows
        runs = compared_runs(chosen, rows)
    place = st.container()
    band: BandKind = BANDS[0]
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        add_box(chosen, rows)
        st.markdown(":small[:gray[group by]]", width="content")
        options = groupings(runs)
        by = st.selectbox(
            "Group by",
            options,
            index=options.index(default_grouping(runs)),
            key="group",
            bind="query-params",
            label_visibility="collapsed",
            width=200,
            disabled=len(runs) < 2,
        )
        groups = grouped(runs, by)
        if any(len(group.runs) > 1 for group in groups):
            st.markdown(":small[:gray[band]]", width="content")
            picked = st.segmented_control(
                "Band",
                BANDS,
                default=BANDS[0],
                required=True,
                key="band",
                bind="query-params",
                label_visibility="collapsed",
            )
            band = BANDS[BANDS.index(picked)] if picked in BANDS else BANDS[0]
    dashes = {run.token: (group.dash, group.runs[0].id) for group in groups for run in group.runs}
    chips = [
        Chip(
            token=run.token,
            name=run.id,
            light=run_color(dashes[run.token][1], "light"),
            dark=run_color(dashes[run.token][1], "dark"),
            dash=dashes[run.token][0],
        )
        for run in runs
    ]
    with place:
        run_chips(
            chips,
            on_change=lambda tokens: set_runs(",".join(tokens)),
            on_open=lambda token: open_run(token, rows),
        )
    return groups, by, band


def page(chosen: list[Row], rows: list[Row]) -> None:
    groups, by, band = heading(chosen, rows)
    live = any(row["status"] == "running" for row in chosen)

    def current() -> list[Group]:
        """As of now: all that is drawn is read again while a run is trained."""
        if not live:
            return groups
        now = run_rows(*ids_in(runs_text(chosen, rows)))
        fresh, _ = chosen_rows(runs_text(chosen, rows), now)
        if not any(row["status"] == "running" for row in fresh):
            st.rerun(scope="app")
        return grouped(compared_runs(fresh, now), by)

    @st.fragment(run_every=LIVE_SECONDS if live else None)
    def curves() -> None:
        now = current()
        look = compare_curves.curve_controls([run for group in now for run in group.runs], band)
        if look:
            compare_curves.overlay(now, look)
        remember_address()

    @st.fragment(run_every=IDLE_SECONDS if live else None)
    def tables() -> None:
        now = current()
        compare_tables.results(now)
        compare_tables.setting_differences(now)

    def opened(token: str) -> None:
        open_run(token, rows)

    @st.fragment
    def points() -> None:
        left, right = st.columns(2, gap="large")
        with left:
            compare_points.scatter(groups, opened)
        with right:
            compare_points.parallel(groups, opened)
        remember_address()
        turn()

    curves()
    tables()
    points()


if RUNS not in st.query_params and remembered_address().get(RUNS):
    # Back, or from the menu: the comparison is where it was left.
    st.query_params.from_dict(remembered_address())
    st.rerun()  # widgets take their values from the address at the start of a rerun
load_plotly()
rows = run_rows(*ids_in(st.query_params.get(RUNS)))
chosen, missing = chosen_rows(st.query_params.get(RUNS), rows)
if turn():
    st.stop()
if missing:
    st.warning(f"Not in the folders that are looked at: {', '.join(map(escaped, missing))}.")
if chosen:
    page(chosen, rows)
else:
    st.info("Nothing to compare yet: tick runs in the table of runs and press Compare, or add them here one by one.")
    with st.container(horizontal=True, vertical_alignment="center"):
        add_box(chosen, rows)
        st.page_link(RUNS_PAGE, label="Choose from all runs", icon=":material/table_rows:")
