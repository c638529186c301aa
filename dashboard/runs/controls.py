"""The line above everything on the page of runs: search, filters, grouping, columns, and the context of KV bytes.

All of it is in the address. Each widget's key is its name there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from bottleneck_core.figures import numbers
from dashboard.markdown import escaped
from dashboard.runs.kv import CONTEXTS
from dashboard.runs.query import SEEDS, Facts, Filter, setting_names
from dashboard.runs.table import ATTENTION_MODES, STATUSES, USUAL, VALUES
from dashboard.state import Row

AT = "128k"
SORTS = ("newest", "run", "best loss", "ppl", "last loss", "tokens", "tok/s", "KV", "params")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the reader asked for: rows, the setting to group by, columns, and the context by its name in `CONTEXTS`."""

    wanted: Filter
    by: str | None
    columns: Sequence[str]
    at: str

    @property
    def context(self) -> int:
        return CONTEXTS[self.at]


def heading(count: int, known: Facts) -> None:
    """`12 runs · 2 running · best 4.3349 tiny_bottleneck`"""
    parts = [f"**{count:,}** {'run' if count == 1 else 'runs'}", f"**{known.running}** running"]
    if known.best:
        parts.append(f"best **{numbers.loss(known.best['best_val_loss'])}** {escaped(known.best['id'])}")
    st.markdown(" &nbsp;·&nbsp; ".join(parts), width="stretch")


def controls(rows: Sequence[Row], version: int, known: Facts) -> Choice:
    """Draws the line. `version` is that of the rows: what follows from their settings is computed once."""
    settings, differing = setting_names(version, rows)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        heading(len(rows), known)
        text = st.text_input(
            "Search",
            key="q",
            bind="query-params",
            placeholder="name, tag, note, lr=0.001",
            icon=":material/search:",
            help="Every word has to be in id, status, attention, size, tags or note; `lr=0.001` asks for a setting.",
            label_visibility="collapsed",
            live=True,
            width=230,
        )
        with st.popover("Filter", icon=":material/filter_list:"):
            wanted = Filter(text=text or "", **_filters(known.tags))
        by = st.selectbox(
            "Group by",
            [SEEDS, *differing],
            index=None,
            key="by",
            bind="query-params",
            placeholder="group by",
            label_visibility="collapsed",
            width=160,
        )
        with st.popover("Columns", icon=":material/view_column:"):
            columns = st.multiselect(
                "Columns",
                [*(name for name in VALUES if name != "run"), *(name for name in settings if name not in VALUES)],
                default=[name for name in USUAL if name != "run"],
                key="columns",
                bind="query-params",
                help="Ours, then any setting of any run. A column without a value in it is left out.",
                width=420,
            )
        at = st.selectbox(
            "KV bytes at",
            list(CONTEXTS),
            index=list(CONTEXTS).index(AT),
            key="at",
            bind="query-params",
            icon=":material/memory:",
            help="The context that the KV bytes of picture and table are for: tokens of one request.",
            label_visibility="collapsed",
            width=130,
        )
    return Choice(wanted=wanted, by=by, columns=columns, at=at if at in CONTEXTS else AT)


def sort_controls() -> tuple[str, bool]:
    """By what to sort a table that does not fit on one page, and whether the greatest come first."""
    name = st.selectbox(
        "Sort by",
        SORTS,
        key="sort",
        bind="query-params",
        icon=":material/sort:",
        help="Sorts all pages; a click on a column's title sorts this one.",
        label_visibility="collapsed",
        width=160,
    )
    descending = st.toggle("descending", key="order", bind="query-params", disabled=name == "newest")
    return name, descending


def _filters(tags: list[str]) -> dict[str, list[str]]:
    labels = {
        "statuses": ("Status", STATUSES, "status"),
        "modes": ("Attention", ATTENTION_MODES, "attention"),
        "tags": ("Tags", tags, "tag"),
    }
    return {
        field: st.multiselect(
            label,
            options,
            key=key,
            bind="query-params",
            placeholder=f"any {label.lower()}" if options else "no run has a tag yet",
            disabled=not options,
            width=300,
        )
        for field, (label, options, key) in labels.items()
    }
