"""What will run: the numbers, the command that is started word for word, and Start."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from bottleneck_core.jobs import queue_job
from bottleneck_core.jobs.start import full_command
from dashboard.access import may_change, why_not
from dashboard.jobs_watch import jobs_watch
from dashboard.markdown import escaped
from dashboard.state import run_roots
from dashboard.train.address import key
from dashboard.train.corpora import check_corpus, check_paths, corpus_of
from dashboard.train.devices import Device, device_of, devices
from dashboard.train.draft import Draft, PlannedRun, planned_runs
from dashboard.train.plan import Plan, pace_words, plan
from dashboard.train.prepare import PROBLEM
from dashboard.train.speed import Measured

STARTED = "train_started"


@dataclass(frozen=True, kw_only=True)
class Intent:
    """What a draft comes to: its runs with their numbers, where, on what; or the `error` that holds it back."""

    root: Path
    nproc: int = 1
    device: Device | None = None
    runs: tuple[PlannedRun, ...] = ()
    plans: tuple[Plan, ...] = ()
    error: str | None = None

    @property
    def wrong(self) -> str | None:
        """The flag that the error is about, where it names one."""
        words = (self.error or "").split()
        return words[0].rstrip(":") if words and words[0].startswith("--") else None

    @property
    def seconds(self) -> float | None:
        """Of all runs, one after the other."""
        times = [p.seconds for p in self.plans if p.seconds is not None]
        return sum(times) if times and len(times) == len(self.plans) else None


def intent_of(draft: Draft, measured: Sequence[Measured]) -> Intent:
    """Resolves, checks and sizes what the draft says."""
    roots = run_roots()
    root = next((root for root in roots if str(root) == draft.root), roots[0])
    try:
        if draft.root and str(root) != draft.root:
            raise bc.UserError(f"{draft.root} is none of this dashboard's folders: choose one of them")
        runs = tuple(planned_runs(draft, root))
        plans = []
        for run in runs:
            check_paths(run.config)
            check_corpus(run.config)
            device = device_of(run.config.device)
            if device is None:
                names = ", ".join(device.name for device in devices())
                raise bc.UserError(f"--device {run.config.device} is not on this machine: choose one of {names}")
            if draft.nproc > 1 and (run.config.device or "").startswith("cuda:"):
                raise bc.UserError(
                    f"--device {run.config.device} is one card, and {draft.nproc} processes take the first "
                    f"{draft.nproc}: set the device to automatic"
                )
            if run.config.batch_size % draft.nproc:
                raise bc.UserError(
                    f"--batch-size {run.config.batch_size} must divide by {draft.nproc} processes: change one of them"
                )
            plans.append(plan(run.config, corpus_of(run.config), device, measured, draft.nproc))
        device = device_of(runs[0].config.device)
        return Intent(root=root, nproc=draft.nproc, device=device, runs=runs, plans=tuple(plans))
    except bc.UserError as error:
        return Intent(root=root, nproc=draft.nproc, error=str(error))


def panel(intent: Intent) -> None:
    """The panel at the right."""
    with st.container(border=True):
        count = len(intent.runs)
        st.markdown("**What will run**" if count < 2 else f"**What will run: {count} runs**")
        if intent.error is not None:
            st.error(escaped(f"{intent.error}."), icon=":material/error:")
        else:
            _numbers(intent)
            _command(intent.runs[0], intent)
        _start_button(intent)
        if problem := st.session_state.pop(PROBLEM, None):
            st.error(escaped(problem))


def _numbers(intent: Intent) -> None:
    first, device = intent.plans[0], intent.device
    assert device is not None
    memory = first.memory
    several = len(intent.plans) > 1
    of_all = ", all runs." if several else "."
    tokens, flops = sum(p.tokens for p in intent.plans), sum(p.flops for p in intent.plans)
    assumed = "" if first.vocab_known else " The corpus is not prepared yet: the vocabulary is assumed."
    fits = memory is None or memory.total <= device.memory
    cells = [
        (
            "parameters",
            numbers.count(first.params),
            f"{first.params:,} with a vocabulary of {first.vocab_size:,}.{assumed}",
        ),
        (
            "tokens",
            numbers.count(tokens),
            f"{tokens:,}: steps times tokens of a step{of_all}",
        ),
        (
            "FLOPs",
            numbers.scalar(float(flops)),
            f"6 per weight and token, and causal attention over half the block (Kaplan et al. 2020){of_all}",
        ),
        (
            "training memory" if intent.nproc == 1 else "memory a process",
            numbers.size(memory.total) if memory else numbers.MISSING,
            f"{numbers.exact_size(memory.total)}, derived for {memory.mode}; {escaped(device.model)} has "
            f"{numbers.size(device.memory)}."
            if memory
            else "No derivation covers this mixture of precision and compilation.",
        ),
        (
            "KV @128k",
            numbers.size(first.kv_bytes),
            f"{numbers.exact_size(first.kv_bytes)} for one request at 128,000 tokens, "
            f"{numbers.ratio(first.kv_saved)} less than standard attention in fp16.",
        ),
        (
            "time" if not several else "time, one by one",
            numbers.duration(intent.seconds) if intent.seconds is not None else "not measured yet",
            escaped(pace_words(first)),
        ),
    ]
    for start in range(0, len(cells), 2):
        for column, (label, value, hint) in zip(st.columns(2), cells[start : start + 2], strict=False):
            column.metric(label, value, help=hint)
    st.caption(escaped(pace_words(first)))
    if not fits and memory:
        st.warning(
            f"{numbers.size(memory.total)} are more than the {numbers.size(device.memory)} of {escaped(device.model)}: "
            "take a smaller batch with more micro-steps (grad accum), or recompute activations (grad checkpoint)."
        )
    st.caption(f"on **{escaped(device.name)}** ({escaped(device.model)}) &nbsp;·&nbsp; into")


def _command(run: PlannedRun, intent: Intent) -> None:
    st.code(str(run.folder), language=None, wrap_lines=True)
    st.code(shlex.join(full_command(run.argv, nproc=intent.nproc)), language="bash", wrap_lines=True)


def _start_button(intent: Intent) -> None:
    count, allowed = len(intent.runs), may_change()
    st.button(
        "Start" if count < 2 else f"Start {count} runs",
        key=key("start"),
        type="primary",
        icon=":material/play_arrow:",
        width="stretch",
        disabled=not intent.runs or not allowed,
        help=None if allowed else why_not(),
        on_click=start_all,
        args=(intent,),
    )


def start_all(intent: Intent) -> None:
    """Put the runs that the page showed into the queue; what a second click would start again is there already."""
    if not may_change() or intent.device is None:
        return
    started = 0
    for run in intent.runs:
        if run.folder.exists():
            continue
        try:
            queue_job(run.argv, run.folder, root=intent.root, device=intent.device.name, nproc=intent.nproc)
            started += 1
        except bc.UserError as error:
            st.session_state[PROBLEM] = str(error)
            break
    jobs_watch().look_again()
    st.session_state[STARTED] = started


def preview(intent: Intent) -> None:
    """The runs of a sweep: what sets each apart, its time and its command."""
    if len(intent.runs) < 2:
        return
    rows = pd.DataFrame(
        {
            "run": [run.name for run in intent.runs],
            "differs in": [run.apart for run in intent.runs],
            "steps": [run.config.steps for run in intent.runs],
            "tokens": [numbers.count(p.tokens) for p in intent.plans],
            "KV @128k": [numbers.size(p.kv_bytes) for p in intent.plans],
            "time": [
                numbers.duration(p.seconds) if p.seconds is not None else "not measured yet" for p in intent.plans
            ],
            "command": [shlex.join(full_command(run.argv, nproc=intent.nproc)) for run in intent.runs],
        }
    )
    known = intent.seconds is not None
    words = f"{numbers.duration(intent.seconds)} one after the other" if known else "their time is not measured yet"
    st.markdown(f"**{len(intent.runs)} runs**, {words}")
    st.dataframe(rows, hide_index=True, height="content" if len(rows) <= 10 else 400)
