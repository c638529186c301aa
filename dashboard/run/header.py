"""The first lines of a run's page: what it is, how far, how good, what is broken."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

import bottleneck_core as bc
from bottleneck_core.figures import numbers
from dashboard.markdown import escaped
from dashboard.progress import progress_of
from dashboard.run.actions import actions, said
from dashboard.state import Row

if TYPE_CHECKING:
    from bottleneck_core import Run

STATUS_COLORS = {
    "queued": "gray",
    "running": "blue",
    "done": "green",
    "stopped": "orange",
    "failed": "red",
    "lost": "red",
}
_CONTEXT = 128_000
# The width that a mode's name is followed by: `bottleneck 96`.
_WIDTHS = {"bottleneck": ("attn_dim",), "decoupled": ("sem_dim", "geo_dim", "attn_dim"), "gqa": ("kv_head",)}


def header(run: Run, row: Row, rows: list[Row]) -> None:
    """Draws the header; everything unknown is left out."""
    color = STATUS_COLORS.get(run.status, "gray")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"### {escaped(run.id)} &nbsp; :{color}-badge[{run.status}]", width="stretch")
        actions(run, row, rows)
    st.markdown(f":small[:gray[{escaped(' · '.join(description(run)))}]]")
    said(row)
    with st.container(horizontal=True, gap="large"):
        for label, value, hint in measures(run):
            st.metric(label, value, help=hint, width="content")
    progress = progress_of(run)
    if run.status == "running" and progress.share is not None:
        left = "" if progress.eta_s is None else f" · {numbers.duration(progress.eta_s)} left"
        st.progress(progress.share, f"step {progress.done:,} of {progress.steps:,}{left}")
    if run.errors:
        count = len(run.errors)
        with st.expander(f"{count} {'thing is' if count == 1 else 'things are'} broken or missing"):
            st.markdown("\n".join(f"- {escaped(sentence)}" for sentence in run.errors))


def description(run: Run) -> list[str]:
    """Attention with its width, toggles, parameters, size and steps."""
    config = run.config
    parts = []
    if mode := run.attn_mode:
        widths = [str(config[name]) for name in _WIDTHS.get(mode, ()) if config.get(name) is not None]
        parts.append(" ".join([mode, "/".join(widths)]).strip())
    if config.get("null_attn"):
        parts.append("null")
    if config.get("tie_qk"):
        parts.append("tied Q and K")
    if run.size:
        parts.append(str(run.size))
    if (n_params := run.n_params or bc.parameters_of(run)) is not None:
        parts.append(f"{numbers.count(n_params)} params")
    if (steps := progress_of(run).steps) is not None:
        parts.append(f"{numbers.steps(steps)} steps")
    return parts


def measures(run: Run) -> list[tuple[str, str, str]]:
    """(label, value, hint) of the numbers of a run, in the order of their weight."""
    found: list[tuple[str, str, str]] = []
    best = run.best_val_loss
    if best is not None:
        at = "" if run.best_val_step is None else f" @{numbers.steps(run.best_val_step)}"
        found.append(("best loss", numbers.loss(best) + at, bc.METRICS["val_loss"].definition))
        found.append(("perplexity", numbers.perplexity(np.exp(min(best, 700))), bc.METRICS["val_ppl"].definition))
    size, saved, hint = cache_size(run)
    if size is not None:
        found.append(("KV @128k", numbers.size(size) + (f", {numbers.ratio(saved)} less" if saved else ""), hint))
    rates = run.train["tok_s"].to_numpy(float)[-20:]
    if np.isfinite(rates).any():
        found.append(("tok/s", numbers.rate(float(np.nanmedian(rates))), bc.METRICS["tok_s"].definition))
    time = run.train["time_s"].dropna()
    if len(time) and time.iloc[-1] > 0:
        found.append(("time", numbers.duration(float(time.iloc[-1])), "Time of training, interruptions taken out."))
    return found


def cache_size(run: Run) -> tuple[float | None, float | None, str]:
    """Bytes of the KV cache at 128,000 tokens, how many times less than standard fp16, and both in words."""
    size, standard = run.kv_bytes_128k, None
    with contextlib.suppress(bc.UserError):  # a foreign configuration need not say enough
        computed = bc.kv_memory(run.config, _CONTEXT)
        size, standard = size or computed.bytes, computed.baseline_fp16_bytes
    if size is None:
        return None, None, ""
    words = f"KV cache of one request at {_CONTEXT:,} tokens: {numbers.exact_size(size)}."
    # "1.00 times less" says nothing.
    if standard is None or standard < 1.005 * size:
        return size, None, words
    words += f" Standard attention of this width takes {numbers.exact_size(standard)} in fp16."
    return size, standard / size, words
