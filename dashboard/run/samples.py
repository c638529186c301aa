"""The tab of texts that were sampled from a run and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from bottleneck_core.figures import numbers
from bottleneck_core.store.samples import KeptSample, read_samples
from dashboard.compare.runs import token_of
from dashboard.generate.text import TokenText, probability_legend, token_text
from dashboard.markdown import escaped
from dashboard.state import run_rows

if TYPE_CHECKING:
    from bottleneck_core import Run

GENERATE_PAGE = "dashboard/pages/generate.py"
_AT_ONCE = 20


def samples(run: Run) -> None:
    """samples.jsonl, newest first."""
    kept, faults = read_samples(run.paths.samples)
    if not kept:
        st.info(
            "No texts of this run are kept yet: generate some and press Keep, or use `sample`."
            if has_checkpoint(run)
            else "No texts of this run are kept, and it has no checkpoint (best.pt or last.pt) to generate from."
        )
    with st.container(horizontal=True, vertical_alignment="center"):
        if kept:
            probability_legend("samples/legend")
        if has_checkpoint(run):
            st.page_link(
                GENERATE_PAGE,
                label="Generate with this run",
                icon=":material/play_arrow:",
                query_params={"run": address(run)},
                width="content",
            )
    for fault in faults:
        st.warning(escaped(f"{fault}."))
    most = f"samples/{run.path}"
    count = st.session_state.get(most, _AT_ONCE)
    # Numbered from the oldest, so that a new text leaves the others where they are.
    for number, sample in reversed(list(enumerate(kept))[-count:]):
        one(sample, f"samples/{run.path}/{number}")
    if len(kept) > count:

        def more() -> None:
            st.session_state[most] = count + _AT_ONCE

        st.button(f"Show {min(_AT_ONCE, len(kept) - count)} more of {len(kept):,}", key="more_samples", on_click=more)


def one(sample: KeptSample, key: str) -> None:
    """One text below the line that says where it comes from."""
    title = f"**{escaped(sample.policy or 'cache not recorded')}**"
    st.markdown(" &nbsp; ".join([title, f":small[:gray[{escaped(' · '.join(described(sample)))}]]"]))
    coloured = sample.pieces is not None and sample.probabilities is not None
    tokens = [
        TokenText(text=text, probability=probability)
        for text, probability in zip(sample.pieces or (), sample.probabilities or (), strict=True)
    ]
    drawn = "".join(sample.pieces or ())
    rest = sample.text.removeprefix(drawn) if coloured else sample.text
    token_text(tokens, key=key, prompt=sample.prompt, rest=rest)


def described(sample: KeptSample) -> list[str]:
    """Step, checkpoint and how it was drawn; what is not recorded is left out."""
    parts = [
        sample.step is not None and f"step {numbers.steps(sample.step)}",
        sample.checkpoint,
        sample.temperature is not None and f"temperature {sample.temperature:g}",
        sample.seed is not None and f"seed {sample.seed}",
        sample.cache_bytes is not None and f"cache {numbers.size(sample.cache_bytes)}",
        sample.time and sample.time[:19].replace("T", " "),
    ]
    return [part for part in parts if part]


def has_checkpoint(run: Run) -> bool:
    return run.paths.best.is_file() or run.paths.last.is_file()


def address(run: Run) -> str:
    """How the Generate page names the run."""
    rows = run_rows()
    row = next((row for row in rows if row["path"] == str(run.path)), None)
    return token_of(row, rows) if row else run.id
