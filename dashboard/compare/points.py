"""One point a run: any number against any other, and all that differ at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from bottleneck_core.figures.parallel import MOST_AXES, parallel_figure
from bottleneck_core.figures.quantities import Quantity, RunPoint, varying
from bottleneck_core.figures.results import mean_of
from bottleneck_core.figures.scatter import CACHE, LOSS, scatter_figure
from bottleneck_core.figures.tables import csv_text
from dashboard.compare.data import RESULTS, Compared, attention_quantities, setting_order
from dashboard.compare.groups import Group
from dashboard.live_chart import live_chart
from dashboard.theme import theme

# Numbers that say which run it is rather than what it is like.
_LABELS = ("seed",)


def run_points(groups: Sequence[Group]) -> list[RunPoint]:
    """Every run in its group's colour, with its numeric settings and its results."""
    return [
        RunPoint(name=run.id, color=group.color(theme()), dash=group.dash, values={**_settings(run), **run.values})
        for group in groups
        for run in group.runs
    ]


def group_points(groups: Sequence[Group]) -> list[RunPoint]:
    """Every group as the mean of its runs' results, with their least and greatest."""
    found = []
    for group in groups:
        values: dict[str, float | None] = {}
        spread: dict[str, tuple[float, float]] = {}
        for key in dict.fromkeys(key for run in group.runs for key in run.values):
            known = [value for run in group.runs if (value := run.values.get(key)) is not None]
            values[key] = mean_of(known)
            if known and max(known) > min(known):
                spread[key] = (min(known), max(known))
        count = f" ({len(group.runs)})" if len(group.runs) > 1 else ""
        name, color = f"{group.name}{count}", group.color(theme())
        found.append(RunPoint(name=name, color=color, dash=group.dash, values=values, spread=spread))
    return found


def scatter(groups: Sequence[Group], on_open: Callable[[str], None]) -> None:
    """The scatter of groups with its two choices; a click on the point of a single run opens it."""
    runs = [run for group in groups for run in group.runs]
    points, quantities = group_points(groups), [*RESULTS, *attention_quantities(runs)]
    by_title = {quantity.title: quantity for quantity in quantities}
    titles = {quantity.key: quantity.title for quantity in quantities}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        x, y = (
            by_title[
                st.selectbox(label, list(by_title), list(by_title).index(titles[key]), key=name, bind="query-params")
            ]
            for label, key, name in (("Horizontal", CACHE, "across"), ("Vertical", LOSS, "up"))
        )

    def clicked(point: dict[str, Any]) -> None:
        group = groups[point["customdata"][0]] if point["customdata"] else None
        if group and len(group.runs) == 1:
            on_open(group.runs[0].token)

    live_chart(scatter_figure(points, x, y, theme=theme()), name="scatter", group="compare/scatter", on_click=clicked)
    _download(points, [x, y], "scatter")


def parallel(groups: Sequence[Group], on_open: Callable[[str], None]) -> None:
    """Parallel coordinates with a choice of axes."""
    runs = [run for group in groups for run in group.runs]
    points = run_points(groups)
    results = varying([*RESULTS, *attention_quantities(runs)], points)
    settings = varying([Quantity(key=name, label=name) for name in _numeric_names(runs)], points)
    by_title = {quantity.title: quantity for quantity in [*settings, *results]}
    ends = [quantity for quantity in results if quantity.key in (CACHE, LOSS)][::-1]
    default = [quantity.title for quantity in [*settings[: MOST_AXES - 2 - len(ends)], *ends]]
    chosen = st.multiselect(
        "Axes",
        list(by_title),
        default=default,
        max_selections=MOST_AXES,
        key="axes",
        bind="query-params",
        placeholder="numbers in which the runs differ",
    )

    def clicked(point: dict[str, Any]) -> None:
        if point["customdata"]:
            on_open(runs[point["customdata"][0]].token)

    quantities = [by_title[title] for title in chosen if title in by_title]
    figure = parallel_figure(points, quantities, theme=theme())
    live_chart(figure, name="parallel", group="compare/parallel", on_click=clicked)
    _download(points, quantities, "parallel")


def _download(points: Sequence[RunPoint], quantities: Sequence[Quantity], name: str) -> None:
    rows = [[point.name, *(point.values.get(quantity.key) for quantity in quantities)] for point in points]
    st.download_button(
        "Data",
        csv_text(["run", *(quantity.title for quantity in quantities)], rows),
        file_name=f"{name}.csv",
        mime="text/csv",
        icon=":material/download:",
        type="tertiary",
        key=f"{name}_csv",
        on_click="ignore",
        help="The numbers of this chart as CSV.",
    )


def _settings(run: Compared) -> dict[str, float | None]:
    return {
        name: float(value)
        for name, value in run.config.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in _LABELS
    }


def _numeric_names(runs: Sequence[Compared]) -> list[str]:
    """Numeric settings in the order of their weight."""
    found = {name for run in runs for name in _settings(run)}
    order = setting_order()
    return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))
