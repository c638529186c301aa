"""The queue under the form: what runs, what waits and for which device, what ended lately."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

import bottleneck_core as bc
from bottleneck_core.jobs import device_limits, set_device_limit
from dashboard.access import may_change, why_not
from dashboard.jobs_watch import Snapshot, Watched, jobs_watch
from dashboard.markdown import escaped
from dashboard.state import IDLE_SECONDS, LIVE_SECONDS, run_roots
from dashboard.train.address import key
from dashboard.train.devices import devices
from dashboard.train.job import job_card
from dashboard.train.prepare import PROBLEM
from dashboard.train.stop import stops

_ENDED_SHOWN = 5
_LIVELY = "train_lively"
_MOST_AT_ONCE = 64


def queue() -> None:
    """Draws the queue, anew every few seconds while anything happens."""
    seconds = LIVE_SECONDS if st.session_state.get(_LIVELY) else IDLE_SECONDS
    st.fragment(_queue, run_every=seconds)()


def _queue() -> None:
    snapshot = jobs_watch().snapshot()
    running, waiting = snapshot.running, snapshot.waiting
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.markdown(f"#### Queue &nbsp; :small[:gray[{len(running)} running · {len(waiting)} waiting]]")
        _limits(snapshot)
    if problem := st.session_state.pop(PROBLEM, None):
        st.error(escaped(problem))
    for sentence in snapshot.errors:
        st.warning(escaped(sentence))
    # Jobs on the way from waiting to running may be in both for a moment.
    places = {w.job.run_dir.resolve() for w in running}
    for watched in running:
        job_card(watched)
    for root in run_roots():
        line = [w for w in waiting if w.root == root]
        for place, watched in enumerate(line):
            if watched.job.run_dir.resolve() not in places:
                job_card(watched, place, len(line))
    ended = [w for w in snapshot.jobs if w.state not in ("running", "queued")]
    _ended(ended)
    if not snapshot.jobs:
        st.info("No job was started from here yet: choose a preset above and press Start.")
    lively = bool(running or waiting) or any((s := stops().of(w.job.run_dir)) and not s.ended for w in ended)
    if st.session_state.get(_LIVELY, False) != lively:
        st.session_state[_LIVELY] = lively
        st.rerun(scope="app")


def _ended(ended: Sequence[Watched]) -> None:
    """Those that ended lately, newest first; older ones on demand."""
    if not ended:
        return
    newest = sorted(ended, key=lambda w: w.job.ended or w.job.created, reverse=True)
    st.caption("Ended")
    most = st.session_state.get(key("ended_shown"), _ENDED_SHOWN)
    for watched in newest[:most]:
        job_card(watched)
    if len(newest) > most:
        st.button(f"Older ones ({len(newest) - most})", key=key("older"), type="tertiary", on_click=_older)


def _older() -> None:
    name = key("ended_shown")
    st.session_state[name] = st.session_state.get(name, _ENDED_SHOWN) + 4 * _ENDED_SHOWN


def _limits(snapshot: Snapshot) -> None:
    """How many jobs a device takes at once, for each root's queue."""
    allowed = may_change()
    with st.popover("Jobs at once", icon=":material/speed:", help="How many jobs a device takes at once."):
        for root in run_roots():
            if len(run_roots()) > 1:
                st.caption(escaped(str(root)))
            try:
                limits = {device.name: 1 for device in devices()} | device_limits(root)
            except bc.UserError as error:
                st.error(escaped(str(error)))
                continue
            for device, limit in limits.items():
                widget = key("limit", str(root), device)
                if widget not in st.session_state or not allowed:
                    st.session_state[widget] = limit
                st.number_input(
                    device,
                    0,
                    max(_MOST_AT_ONCE, limit),
                    key=widget,
                    disabled=not allowed,
                    help="0 holds the queue of this device; what runs goes on." if allowed else why_not(),
                    on_change=_limited,
                    args=(root, device, widget),
                )


def _limited(root: Path, device: str, widget: str) -> None:
    if not may_change():
        return
    try:
        set_device_limit(root, device, int(st.session_state[widget]))
    except bc.UserError as error:
        st.session_state[PROBLEM] = str(error)
