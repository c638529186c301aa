"""Train: choose a preset, change what matters, see what will run, start it, watch the queue."""

from __future__ import annotations

import streamlit as st

from bottleneck_core.figures import numbers
from dashboard.markdown import escaped
from dashboard.state import run_roots
from dashboard.train.address import current
from dashboard.train.form import form
from dashboard.train.panel import STARTED, intent_of, panel, preview
from dashboard.train.queue import queue
from dashboard.train.resume import resume_card
from dashboard.train.speed import measured_runs

_FORM_HEIGHT = 720


@st.fragment
def compose() -> None:
    """Form and panel: typing redraws these and not the queue."""
    draft, problems = current()
    if problems:
        st.warning("\n\n".join(escaped(f"{sentence}.") for sentence in problems))
    measured = measured_runs(tuple(map(str, run_roots())))
    intent = intent_of(draft, measured)
    left, right = st.columns([11, 5], gap="medium")
    with left, st.container(height=_FORM_HEIGHT, border=False):
        form(draft, measured, intent.wrong)
    with right:
        panel(intent)
    preview(intent)
    started = st.session_state.pop(STARTED, None)
    if started is not None:
        if started:
            st.toast(f"{numbers.steps(started)} {'run is' if started == 1 else 'runs are'} in the queue.")
        st.rerun(scope="app")  # the queue shows it at once


if "resume" in st.query_params:
    resume_card(st.query_params["resume"], st.query_params.get("root"))
compose()
queue()
