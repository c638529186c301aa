"""The built-in corpus, prepared as a job beside the runs."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

import bottleneck_core as bc
from bottleneck_core.jobs import job_state, start_job
from dashboard.access import may_change
from dashboard.state import run_roots
from dashboard.train.corpora import BUILT_IN

# Hidden: no run, so the table of runs has nothing to say about it.
FOLDER = ".prepare"
PROBLEM = "train_problem"


def prepare_folder(tokenizer: str) -> Path:
    """Where the job of this corpus keeps its record and its output."""
    return run_roots()[0] / FOLDER / f"{BUILT_IN}.{tokenizer}"


def preparing(tokenizer: str) -> bool:
    """Whether the job runs now."""
    try:
        return job_state(prepare_folder(tokenizer)) == "running"
    except bc.UserError:  # a damaged record
        return False


def prepare_built_in(tokenizer: str) -> None:
    """Start the job; a problem is said on the page."""
    if not may_change():
        return
    try:
        start_job(["prepare", BUILT_IN, "--tokenizer", tokenizer], prepare_folder(tokenizer))
    except bc.UserError as error:
        st.session_state[PROBLEM] = str(error)
