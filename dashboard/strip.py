"""The thin line under the navigation of every page: jobs running, queue, devices. A click opens Train."""

from __future__ import annotations

import streamlit as st

from bottleneck_core.figures import numbers
from dashboard.jobs_watch import Snapshot, jobs_watch

TRAIN_PAGE = "dashboard/pages/train.py"
_SECONDS = 5.0


@st.fragment(run_every=_SECONDS)
def status_strip(*, on_train: bool = False) -> None:
    """Draws the strip. To be called once a page, below the navigation; `on_train`: there it leads nowhere."""
    snapshot = jobs_watch().snapshot()
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.page_link(
            TRAIN_PAGE,
            label=f":small[:gray[{strip_words(snapshot)}]]",
            icon=":material/play_circle:" if snapshot.running else ":material/pause_circle:",
            help="Jobs of this dashboard and how busy the machine is. A click opens the queue.",
            disabled=on_train,  # a link to the page itself would take back what the form says
        )


def strip_words(snapshot: Snapshot) -> str:
    """`2 running · 3 waiting · CPU 87 % · GPU 0 93 %, 12.3 of 79.6 GiB`."""
    words = [f"{len(snapshot.running)} running", f"{len(snapshot.waiting)} waiting", f"CPU {snapshot.processor:.0%}"]
    for card in snapshot.cards:
        share = "" if card.share is None else f" {card.share:.0%}"
        used = "" if card.used is None else f", {numbers.size(card.used)} of {numbers.size(card.memory)}"
        words.append(f"{card.name}{share}{used}")
    return " · ".join(words).replace("%", " %")
