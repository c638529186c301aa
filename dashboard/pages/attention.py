"""Attention by layer and head over training: a metric, a step, one head, its map, and what is alarming."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import streamlit as st

import bottleneck_core as bc
from dashboard.attention import playback as attention_playback
from dashboard.attention.alarms import METRIC, alarms
from dashboard.attention.data import Probed, probed_run
from dashboard.attention.maps import maps, spectra
from dashboard.attention.view import difference, head_controls, heat_maps, lines, shape_of, sides_of
from dashboard.compare.runs import ids_in
from dashboard.live_chart import load_plotly
from dashboard.markdown import escaped
from dashboard.state import LIVE_SECONDS, Row, address_of, root_of, run_rows

RUNS_PAGE = "dashboard/pages/runs.py"
RUN_PAGE = "dashboard/pages/run.py"
RUN, WITH = "run", "with"
MISSING, LEFT = "attention_missing", "attention_address"


def labelled(rows: list[Row]) -> dict[str, Row]:
    """Rows by what the address calls them: the id, with its folder where several have a run of that id."""
    count = Counter(row["id"] for row in rows)
    return {row["id"] if count[row["id"]] == 1 else f"{row['id']} @ {root_of(row)}": row for row in rows}


def resolve(named: dict[str, Row]) -> str:
    """Puts runs into the address as the boxes know them, and says which is the first one.

    A bare id means the first run of that id. Without an address the page is as it was left, or shows any run.
    """
    address = st.query_params.to_dict()
    if RUN not in address:
        address = st.session_state.get(LEFT, address).copy()
    for key in (RUN, WITH):
        text = address.get(key)
        if text is not None and text not in named:
            name = next((name for name, row in named.items() if row["id"] == text), None)
            if name is None:
                st.session_state[MISSING] = text  # nothing is said of an empty one
                del address[key]
            else:
                address[key] = name
    if RUN not in address:
        # Chosen, not a default: that is left out of the address, and a link would mean another run one day.
        with_analysis = (name for name, row in named.items() if (Path(row["path"]) / "analysis.h5").is_file())
        address[RUN] = next(with_analysis, next(iter(named)))
    if address != st.query_params.to_dict():
        st.query_params.from_dict(address)
        st.rerun()  # widgets take their values from the address at the start of a rerun
    if missing := st.session_state.pop(MISSING, None):
        st.warning(f"{escaped(missing)} is not in the folders that are looked at.")
    return address[RUN]


def run_box(label: str, key: str, names: list[str]) -> str | None:
    """A choice of a run by searching; None where none is chosen."""
    return st.selectbox(
        label,
        names,
        None,
        key=key,
        bind="query-params",
        placeholder="none",
        on_change=attention_playback.stop,
        width=260,
    )


def read(row: Row) -> Probed | None:
    """The run's analysis; where there is none that can be read, a sentence instead."""
    try:
        with st.spinner("Reading the analysis"):
            return probed_run(row)
    except bc.UserError as error:
        st.info(f"{escaped(str(error))}.")
        return None


def metric_box(run: Probed) -> str:
    shown = st.session_state.get(METRIC)
    metric = st.selectbox(
        "Metric",
        run.metrics,
        format_func=lambda name: bc.METRICS[name].label,
        key=METRIC,
        bind="query-params",
        help=bc.METRICS[shown if shown in run.metrics else run.metrics[0]].definition,
        width=240,
    )
    return metric or run.metrics[0]


def stage(first: Row, second: Row | None, metric: str, playing: bool) -> None:
    """Everything that follows the step; a fragment, so that a frame redraws no more than this."""
    if attention_playback.playing() != playing or st.session_state.get(METRIC, metric) != metric:
        st.rerun(scope="app")  # the pace of the fragment and the metric are the page's
    runs = [read(row) for row in (first, second) if row]
    if runs[0] is None or metric not in runs[0].metrics:
        return
    try:
        draw([run for run in runs if run], metric)
    except bc.UserError as error:  # a file that is damaged inside, or replaced while it was read
        st.warning(f"{escaped(str(error))}.")


def draw(runs: list[Probed], metric: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        probe = attention_playback.step_controls(runs[0].steps)
        head = head_controls(shape_of(runs[0], metric))
    sides = sides_of(runs, probe)
    if len(sides) > 1:
        heat_maps(sides, metric, head)
        st.markdown(difference(sides[0], sides[1], metric, head))
        lines(sides, metric, head)
        maps(sides, head)
        left, right = st.columns(2, gap="medium")
    else:
        left, right = st.columns([2, 3], gap="medium")
        with left:
            heat_maps(sides, metric, head)
        with right:
            lines(sides, metric, head)
        left, right = st.columns([3, 2], gap="medium")
        with left:
            maps(sides, head)
        left = right
    with left:
        spectra(sides, head)
    with right:
        alarms(sides)
    st.session_state[LEFT] = st.query_params.to_dict()


def page(rows: list[Row]) -> None:
    named = labelled(rows)
    names = list(named)
    chosen = resolve(named)
    load_plotly()
    bar = st.container(horizontal=True, vertical_alignment="bottom", gap="medium")
    with bar:
        name = run_box("Run", RUN, names) or chosen
    first = named[name]
    run = read(first)
    if run is None:
        target = {**address_of(first, rows), "tab": "Attention"}
        st.page_link(RUN_PAGE, label="Open the run", icon=":material/open_in_new:", query_params=target)
        return
    with bar:
        metric = metric_box(run)
        other = run_box("Compare with", WITH, [other for other in names if other != name])
    second = named[other] if other else None
    st.caption(bc.METRICS[metric].definition)
    if second is not None and read(second) is None:
        second = None
    playing = attention_playback.playing()
    pace = attention_playback.FRAME_SECONDS if playing else LIVE_SECONDS if run.live else None
    st.fragment(stage, run_every=pace)(first, second, metric, playing)


rows = run_rows(*ids_in(st.query_params.get(RUN), st.query_params.get(WITH)))
if rows:
    page(rows)
else:
    st.info("There are no runs to look into yet: start one with `--instrument full`.")
    st.page_link(RUNS_PAGE, label="All runs", icon=":material/table_rows:")
