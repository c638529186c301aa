"""How compared runs are put together, and the colour and dash that each line has on all of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck_core.figures.compare import dashes_of
from bottleneck_core.figures.differences import common_name, value_groups
from bottleneck_core.figures.palette import Theme, run_color
from dashboard.compare.data import Compared, differing, repetitions

EACH, SEEDS = "each run", "same but seed"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that are one line: with a single run that run itself."""

    name: str
    runs: tuple[Compared, ...]
    dash: str = "solid"

    def color(self, theme: Theme) -> str:
        """That of its first run."""
        return run_color(self.runs[0].id, theme)


def grouped(runs: Sequence[Compared], by: str) -> list[Group]:
    """The runs by `by`: EACH, SEEDS or a setting."""
    if by == SEEDS:
        parts = [(common_name([runs[i].id for i in part]), part) for part in repetitions(runs)]
    elif by == EACH:
        parts = [(run.id, [i]) for i, run in enumerate(runs)]
    else:
        parts = [(f"{by} {value}", part) for value, part in value_groups([run.config for run in runs], by).items()]
    # Which lines look alike does not depend on the theme.
    dashes = dashes_of([run_color(runs[part[0]].id) for _, part in parts])
    return [
        Group(name=name, runs=tuple(runs[i] for i in part), dash=dash)
        for (name, part), dash in zip(parts, dashes, strict=True)
    ]


def groupings(runs: Sequence[Compared]) -> list[str]:
    """What runs can be grouped by: each by itself, repetitions, and the settings that put some of them together."""
    settings = [
        setting.name
        for setting in differing(runs)
        if setting.everywhere and setting.name != "seed" and len(set(setting.values)) < len(runs)
    ]
    return [EACH, SEEDS, *settings]


def default_grouping(runs: Sequence[Compared]) -> str:
    """Repetitions are put together where there are any."""
    return SEEDS if any(len(part) > 1 for part in repetitions(runs)) else EACH
