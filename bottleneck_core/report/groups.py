"""Runs that differ in nothing but the seed are one line of a report: a mean with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck_core.figures.compare import dashes_of
from bottleneck_core.figures.differences import common_name, seed_groups
from bottleneck_core.figures.palette import attention_color, categorical, run_color
from bottleneck_core.figures.quantities import RunPoint
from bottleneck_core.figures.results import Side, mean_of
from bottleneck_core.figures.scatter import LOSS

from .reported import Reported

HUES = 10  # of the palette


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that are one line; with a single run that run itself."""

    name: str
    runs: tuple[Reported, ...]
    color: str
    dash: str

    @property
    def label(self) -> str:
        """The name, and how many seeds it stands for."""
        return self.name if len(self.runs) == 1 else f"{self.name} ({len(self.runs)} seeds)"

    def side(self) -> Side:
        """The group as a line of the table of results."""
        losses = [loss for run in self.runs if (loss := run.values[LOSS]) is not None]
        return Side(name=self.label, losses=losses, values=self.means(), runs=len(self.runs))

    def point(self) -> RunPoint:
        """The group as a point: means, with the least and the greatest of its runs."""
        spread = {}
        for key in self.runs[0].values:
            known = [value for run in self.runs if (value := run.values[key]) is not None]
            if known and max(known) > min(known):
                spread[key] = (min(known), max(known))
        return RunPoint(name=self.label, color=self.color, dash=self.dash, values=self.means(), spread=spread)

    def means(self) -> dict[str, float | None]:
        """Means over the runs."""
        return {key: mean_of([run.values[key] for run in self.runs]) for key in self.runs[0].values}


def grouped(runs: Sequence[Reported]) -> list[Group]:
    """Repetitions together, in the order of their first runs, under names that no two share."""
    parts = seed_groups([run.config for run in runs])
    names: list[str] = []
    for part in parts:
        name = common_name([runs[i].id for i in part])
        taken = {*names, *(run.id for run in runs)} if len(part) > 1 else set(names)
        number, unique = 1, name
        while unique in taken:
            number += 1
            unique = f"{name} ({number})"
        names.append(unique)
    colors = _colors([runs[part[0]] for part in parts])
    return [
        Group(name=name, runs=tuple(runs[i] for i in part), color=color, dash=dash)
        for name, part, color, dash in zip(names, parts, colors, dashes_of(colors), strict=True)
    ]


def _colors(firsts: Sequence[Reported]) -> list[str]:
    """Colours of attention modes where each line has a mode of its own; else hues that are told apart in this report.

    More lines than hues have the colours of the pages, which repeat too.
    """
    modes = [run.config.get("attn_mode") for run in firsts]
    if all(modes) and len(set(modes)) == len(modes) > 1:
        return [attention_color(mode) for mode in modes]
    if 1 < len(firsts) <= HUES:
        return categorical(len(firsts))
    return [run_color(run.id) for run in firsts]
