"""The section on settings: in which of them the runs differ."""

from __future__ import annotations

from collections.abc import Sequence

from bottleneck_core.config import GROUPS
from bottleneck_core.figures.differences import ABSENT, Setting, differences

from .document import Block, Paragraph, Section, Table, listed
from .groups import Group

# What tells runs apart at first sight stands at the top; the rest is in the order of the schema.
_ORDER = ("attn_mode", "size", "exp", "seed")


def settings_section(groups: Sequence[Group]) -> Section:
    """A line a setting, a column a line of the results; those that only some of the runs know are told apart."""
    speaking = [group for group in groups if _says_something(group)]
    runs = [run for group in speaking for run in group.runs]
    order = [*_ORDER, *(name for group in GROUPS.values() for name in group.model_fields)]
    found = differences([run.config for run in runs], order)
    shared = [setting for setting in found if setting.everywhere]
    partial = [setting for setting in found if not setting.everywhere]
    # Where the runs that know a setting agree on it, an older system merely did not have it.
    varied = [setting for setting in partial if len({*setting.values} - {ABSENT}) > 1]
    blocks: list[Block] = []
    if len(runs) == 1:
        blocks.append(Paragraph(text=f"There is nothing to compare the settings of {runs[0].id} with."))
    elif shared:
        blocks.append(_table("settings", "Settings in which the runs differ.", shared, speaking))
    elif runs:
        blocks.append(Paragraph(text="All settings that these runs have in common are equal."))
    if varied:
        caption = f"Settings that only some of the runs know, and differ in; {ABSENT} where a run does not."
        blocks.append(_table("settings-partial", caption, varied, speaking))
    if len(partial) > len(varied):
        names = listed([setting.name for setting in partial if setting not in varied], 100)
        blocks.append(Paragraph(text=f"Known to only some of the runs, and the same in all of them: {names}."))
    silent = [run.id for group in groups if group not in speaking for run in group.runs]
    if silent:
        blocks.append(Paragraph(text=f"Without any settings: {listed(silent)}."))
    return Section(title="Settings that differ", blocks=blocks)


def _says_something(group: Group) -> bool:
    return any(value is not None for value in group.runs[0].config.values())


def _table(name: str, caption: str, settings: Sequence[Setting], groups: Sequence[Group]) -> Table:
    return Table(
        name=name,
        caption=caption,
        header=["setting", *(group.label for group in groups)],
        rows=[[setting.name, *_by_group(setting.values, groups)] for setting in settings],
        right=[False] * (len(groups) + 1),
    )


def _by_group(values: Sequence[str], groups: Sequence[Group]) -> list[str]:
    """A cell a group: the values of its runs, each once."""
    rest = iter(values)
    return [", ".join(dict.fromkeys(next(rest) for _ in group.runs)) for group in groups]
