"""Going on with a run that was stopped, whoever started it: `/train?resume=<run id>`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.jobs import queue_job
from bottleneck_core.jobs.start import full_command
from dashboard.access import may_change, why_not
from dashboard.jobs_watch import jobs_watch
from dashboard.markdown import escaped
from dashboard.progress import progress_of
from dashboard.state import find_row, reading, root_of, run_rows
from dashboard.train.address import key
from dashboard.train.devices import devices
from dashboard.train.panel import STARTED
from dashboard.train.prepare import PROBLEM
from dashboard.train.stop import stops


@dataclass(frozen=True, kw_only=True)
class _Resumption:
    folder: Path
    root: Path
    argv: tuple[str, ...]
    device: str


def resume_card(run_id: str, root: str | None) -> None:
    """Where the run stands, and the command that goes on."""
    row = find_row(run_rows(run_id), run_id, root)
    if row is None:
        st.warning(f"There is no run {escaped(run_id)} in the folders that are looked at.")
        return
    with st.container(border=True):
        st.markdown(f"**Resume {escaped(run_id)}**")
        problem = _why_not(row)
        with reading(row["path"]) as run:
            progress = progress_of(run)
        of = "" if progress.steps is None else f" of {progress.steps:,}"
        st.caption(f"{row['status']} after {numbers.steps(progress.done)}{of} steps")
        if problem:
            st.error(escaped(problem))
            return
        left, _ = st.columns([1, 3])
        with left:
            steps = st.text_input(
                "steps in all",
                key=key("resume_steps"),
                placeholder="as before" if progress.steps is None else f"{progress.steps}",
                help="More than before to train a finished run further.",
                live=True,
            ).strip()
        argv = ("train", "--resume", row["path"], *(("--steps", steps) if steps else ()))
        st.code(shlex.join(full_command(argv)), language="bash", wrap_lines=True)
        mistake = _mistake(steps)
        if mistake:
            st.error(escaped(mistake))
        device = devices()[0]  # where training goes by itself
        asked = _Resumption(folder=Path(row["path"]), root=Path(root_of(row)), argv=argv, device=device.name)
        allowed = may_change()
        st.button(
            "Resume",
            key=key("resume"),
            type="primary",
            icon=":material/resume:",
            disabled=mistake is not None or not allowed,
            help=None if allowed else why_not(),
            on_click=_resume,
            args=(asked,),
        )


def _why_not(row: dict) -> str | None:
    if row["status"] in ("running", "queued"):
        return f"{row['id']} is {row['status']}: there is nothing to resume."
    if not any((Path(row["path"]) / name).exists() for name in ("last.pt", "last.dcp")):
        return f"{row['id']} has no checkpoint to go on from: clone it instead."
    return None


def _mistake(steps: str) -> str | None:
    if not steps:
        return None
    try:
        bc.RunConfig.resolve(steps=steps)
    except bc.UserError as error:
        return str(error)
    return None


def _resume(asked: _Resumption) -> None:
    if not may_change():
        return
    try:
        stops().forget(asked.folder)
        queue_job(asked.argv, asked.folder, root=asked.root, device=asked.device)
        st.session_state[STARTED] = 1
        st.query_params.clear()
    except bc.UserError as error:
        st.session_state[PROBLEM] = str(error)
    jobs_watch().look_again()
