"""The tables of a comparison: results against the first, and the settings that differ; each as text to take along."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from bottleneck_core.figures.results import FORMATS, Side, mean_of, results_frame, written_rows
from bottleneck_core.figures.scatter import LOSS
from bottleneck_core.figures.tables import csv_text, latex_table, markdown_table
from dashboard.compare.data import cautions, differing
from dashboard.compare.groups import Group

_HELP = {
    "best loss": "Least validation loss of a run, nats per token; of a group the mean over its runs.",
    "± 95 %": "Half width of the 95 % interval of the mean, from Student's t over the group's runs.",
    "Δ loss": "Best loss above that of the first line.",
    "Δ 95 %": "95 % interval of that difference, by Welch.",
    "difference": "Welch's two-sided t-test at 5 %; it needs two runs on either side.",
    "ppl": "exp of the best loss.",
    "KV per token": "Bytes that a token of context takes in the cache, at 128,000 tokens.",
    "KV @128k": "KV cache of one request at 128,000 tokens.",
    "tok/s": "Tokens per second, median of the last rows.",
    "time": "Time of training, interruptions taken out.",
}


def results(groups: Sequence[Group]) -> None:
    """The table of results, and what its comparisons rest on."""
    frame = results_frame([side_of(group) for group in groups])
    with _heading("Results"):
        _exports("results", frame)
    st.dataframe(
        frame.style.format({name: FORMATS[name] for name in frame if name in FORMATS}),
        hide_index=True,
        placeholder="–",
        height="content" if len(frame) <= 15 else 560,
        column_config={
            **{name: st.column_config.Column(help=text) for name, text in _HELP.items() if name in frame},
            "run": st.column_config.TextColumn(pinned=True),
        },
    )
    notes = cautions([run for group in groups for run in group.runs])
    if "Δ 95 %" in frame and len(groups) > 2:
        notes.append("The p-values are not corrected for several comparisons with the same first line.")
    if notes:
        st.caption(" ".join(notes))


def setting_differences(groups: Sequence[Group]) -> None:
    """The settings that differ, a column a run or group; those that only some runs have on demand."""
    runs = [run for group in groups for run in group.runs]
    found = differing(runs)
    everywhere = [setting for setting in found if setting.everywhere]
    partial = len(found) - len(everywhere)
    with _heading("Settings that differ"):
        exports = st.container(width="content")
        more = partial and st.toggle(
            f"{partial} more that only some of the runs have",
            key="partial",
            bind="query-params",
            help="Settings of newer or other systems, which the rest did not know.",
        )
    rows = [[setting.name, *_by_group(setting.values, groups)] for setting in (found if more else everywhere)]
    names = _unique([group.name for group in groups])
    frame = pd.DataFrame(rows, columns=["setting", *names], dtype=str)
    if len(frame):
        with exports:
            _exports("settings", frame)
        st.dataframe(
            frame,
            hide_index=True,
            height="content" if len(frame) <= 15 else 560,
            column_config={"setting": st.column_config.TextColumn(pinned=True)},
        )
    elif len(runs) > 1:
        st.caption("All settings that these runs have in common are equal.")
    else:
        st.caption("Add a second run to see in what they differ.")


def side_of(group: Group) -> Side:
    """A group as a line of the table."""
    losses = [loss for run in group.runs if (loss := run.values[LOSS]) is not None]
    keys = dict.fromkeys(key for run in group.runs for key in run.values)
    values = {key: mean_of([run.values.get(key) for run in group.runs]) for key in keys}
    return Side(name=group.name, losses=losses, values=values, runs=len(group.runs))


def _by_group(values: Sequence[str], groups: Sequence[Group]) -> list[str]:
    """A cell a group: the values of its runs, each once."""
    rest = iter(values)
    return [", ".join(dict.fromkeys(next(rest) for _ in group.runs)) for group in groups]


def _heading(title: str) -> DeltaGenerator:
    """The title of a table, and the line on which its buttons are: left, where the table's own do not cover them."""
    line = st.container(horizontal=True, vertical_alignment="center", gap="medium")
    line.markdown(f"**{title}**", width="content")
    return line


def _exports(key: str, frame: pd.DataFrame) -> None:
    """The table as text to copy and as a file."""
    header, rows = [str(name) for name in frame], written_rows(frame)
    right = [name in FORMATS for name in header]
    with st.container(horizontal=True, width="content", gap="small"):
        with st.popover("Markdown", type="tertiary", icon=":material/content_copy:"):
            st.code(markdown_table(header, rows, right), language="markdown")
        with st.popover("LaTeX", type="tertiary", icon=":material/content_copy:"):
            st.caption("Needs the package booktabs.")
            st.code(latex_table(header, rows, right), language="latex")
        st.download_button(
            "CSV",
            csv_text(header, frame.astype(object).where(frame.notna(), "").to_numpy().tolist()),
            file_name=f"{key}.csv",
            mime="text/csv",
            icon=":material/download:",
            type="tertiary",
            key=f"{key}_csv",
            on_click="ignore",
        )


def _unique(names: Sequence[str]) -> list[str]:
    """Names that a table can have as columns: runs of two roots may share an id."""
    seen: dict[str, int] = {"setting": 1}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found
