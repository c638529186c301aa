"""One job in the queue: state, progress with time left, loss, what can be done with it, the end of its log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.figures.sparkline import sparkline
from bottleneck_core.jobs import Job, job_log, move_job, requeue_job, start_now
from bottleneck_core.store.layout import is_run
from dashboard.access import may_change, why_not
from dashboard.jobs_watch import LIVE, Watched, jobs_watch
from dashboard.markdown import escaped
from dashboard.progress import progress_of
from dashboard.run.header import STATUS_COLORS
from dashboard.state import reading, run_roots
from dashboard.train.address import key
from dashboard.train.prepare import PROBLEM
from dashboard.train.record import check_record
from dashboard.train.stop import Stop, stops

_RUN_PAGE = "dashboard/pages/run.py"
_LOG_LINES = 40
_LAST_LINES = 8
_BROKEN = ("failed", "lost")


def job_card(watched: Watched, place: int | None = None, waiting: int = 0) -> None:
    """Draws one job; `place` is its position among the `waiting` ones, from 0."""
    job, stop = watched.job, stops().of(watched.job.run_dir)
    stopping = stop is not None and not stop.ended
    with st.container(border=True, gap="small"):
        left, middle, right = st.columns([3, 5, 4], vertical_alignment="center", gap="medium")
        with left:
            _title(watched, place, "stopping" if stopping else watched.state)
        with middle:
            if stop is not None and (stopping or stop.error):
                _stop_stage(stop)
            if place is None:
                _progress(watched)
            elif not stopping:
                st.caption(f"waits for {escaped(', '.join(job.devices)) or 'its turn'}")
        with right, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
            _buttons(watched, place, waiting, stopping)
        if watched.state in _BROKEN:
            _end_of_log(watched)
        with st.expander(
            "Command and log", key=key("log", str(job.run_dir)), type="compact", on_change="rerun"
        ) as fold:
            if fold.open:
                st.code(" ".join(job.command_line.split()), language="bash", wrap_lines=True)
                st.code(job_log(job.run_dir, lines=_LOG_LINES) or "(nothing was printed yet)", language=None)


def _title(watched: Watched, place: int | None, state: str) -> None:
    job, number = watched.job, "" if place is None else f"{place + 1}. "
    run_id = job.run_dir.relative_to(watched.root).as_posix() if job.run_dir.is_relative_to(watched.root) else job.id
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if run_id.startswith("."):  # no run: a corpus is being prepared
            st.markdown(f"{number}prepare {escaped(job.id)}")
        else:
            address = {"id": run_id} | ({"root": str(watched.root)} if len(run_roots()) > 1 else {})
            st.page_link(_RUN_PAGE, label=f"{number}{escaped(job.id)}", query_params=address)
        st.markdown(f":{STATUS_COLORS.get(state, 'orange')}-badge[{state}]", width="content")
        if job.device:
            st.caption(
                escaped(job.device if job.nproc == 1 else f"{job.device}, {job.nproc} processes"), width="content"
            )


def _progress(watched: Watched) -> None:
    job = watched.job
    if watched.state == "lost":
        st.caption("Its processes are gone and no end was written: killed, or the machine went down.")
        return
    ended = "" if job.exit_code in (None, 0) else f" · exit code {job.exit_code}"
    if not is_run(job.run_dir) or not (job.run_dir / "train.jsonl").exists():
        st.caption({"running": "starting: no step yet"}.get(watched.state, f"{watched.state}{ended}"))
        return
    try:
        with reading(str(job.run_dir)) as run:
            progress = progress_of(run)
            losses = run.train["loss"].to_numpy(float) if "loss" in run.train else np.empty(0)
            curve = sparkline(losses, 40)
    except bc.UserError:  # gone since it was listed
        return
    bar, line = st.columns([3, 2], vertical_alignment="center")
    with bar:
        words = numbers.steps(progress.done)
        if progress.steps is not None:
            words = f"step {words} of {progress.steps:,}"
        if watched.state == "running":
            words += "" if progress.eta_s is None else f" · {numbers.duration(progress.eta_s)} left"
        st.progress(progress.share or 0.0, words + ended)
    with line:
        finite = losses[np.isfinite(losses)]
        if len(finite):
            st.metric("loss", numbers.loss(float(finite[-1])), chart_data=curve or None, width="stretch")


def _stop_stage(stop: Stop) -> None:
    if stop.error is not None:
        st.error(escaped(stop.error))
    else:
        st.markdown(f":orange[:material/hourglass_top: {escaped(stop.words)}]")


def _end_of_log(watched: Watched) -> None:
    text = job_log(watched.job.run_dir, lines=_LAST_LINES)
    st.code(text or "(it printed nothing)", language=None)


def _buttons(watched: Watched, place: int | None, waiting: int, stopping: bool) -> None:
    def button(
        label: str, words: str, action: Callable[..., Any], *args: Any, icon: str = "", off: bool = False
    ) -> None:
        allowed = may_change()
        st.button(
            label,
            icon=icon or None,
            key=key(label, str(watched.job.run_dir)),
            help=words if allowed else why_not(),
            disabled=off or not allowed,
            on_click=_guarded,
            args=(action, *args),
        )

    job, root = watched.job, watched.root
    if place is not None:
        button("Up", "Earlier in the queue", move_job, job.run_dir, root, place - 1, off=place == 0)
        button("Down", "Later in the queue", move_job, job.run_dir, root, place + 1, off=place + 1 >= waiting)
        button("Now", "Start now, past order and limit", start_now, job.run_dir, root)
    if watched.state in LIVE:
        words = "It saves and ends; it is killed where it does not" if place is None else "It leaves the queue"
        button("Stop", words, stops().begin, job.run_dir, icon=":material/stop:", off=stopping)
    elif watched.state in ("stopped", *_BROKEN):
        button("Resume", "Goes on from the last checkpoint, in its turn", _resume, watched, icon=":material/resume:")


def _resume(watched: Watched) -> None:
    check_record(Job.read(watched.job.run_dir) or watched.job)  # as it is now
    stops().forget(watched.job.run_dir)
    requeue_job(watched.job.run_dir, watched.root)


def _guarded(action: Callable[..., Any], *args: Any) -> None:
    """A button's action, for who may; a mistake is said on the page."""
    if not may_change():
        return
    try:
        action(*args)
    except bc.UserError as error:
        st.session_state[PROBLEM] = str(error)
    jobs_watch().look_again()
