"""Which runs are shown, in which order and in which groups. No widgets here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from bottleneck_core.figures.differences import ABSENT, common_name, seed_groups, written
from dashboard.kept import Kept
from dashboard.state import Row

# What was made of the rows last, for all readers: their order, those that match, their picture.
MADE = Kept(32)

SEEDS = "same but seed"
# Searched besides id, tags and note.
_SEARCHED = ("status", "attn_mode", "size", "exp")
# Where a run lies and how it was called: no grouping, and each run has another.
_NAMES = frozenset({"out_dir", "run_root", "run_tag", "resume", "ckpt"})


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What a row has to have; empty means anything."""

    text: str = ""
    statuses: Sequence[str] = ()
    modes: Sequence[str] = ()
    tags: Sequence[str] = ()

    @property
    def narrows(self) -> bool:
        return bool(self.text.strip() or self.statuses or self.modes or self.tags)

    @property
    def key(self) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        """The same for filters that ask for the same."""
        return self.text, tuple(self.statuses), tuple(self.modes), tuple(self.tags)


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """Runs of one value of a setting, or that differ in their seed only; losses over those that have one."""

    name: str
    rows: Sequence[Row]

    @property
    def losses(self) -> list[float]:
        return [row["best_val_loss"] for row in self.rows if row.get("best_val_loss") is not None]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is said of all rows: how many are running, which has the least loss, and the tags that any has."""

    running: int
    best: Row | None
    tags: list[str]


def facts(rows: Sequence[Row]) -> Facts:
    known = [row for row in rows if row.get("best_val_loss")]
    return Facts(
        running=sum(row["status"] == "running" for row in rows),
        best=min(known, key=lambda row: row["best_val_loss"]) if known else None,
        tags=all_tags(rows),
    )


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Running first, then the newest."""
    newest = sorted(rows, key=lambda row: row.get("created") or "", reverse=True)
    return sorted(newest, key=lambda row: row["status"] != "running")


def by_value(rows: Sequence[Row], name: str, *, descending: bool) -> list[Row]:
    """Rows by a value or a setting; those without it last."""

    def value(row: Row) -> Any:
        return row[name] if name in row else row["config"].get(name)

    def key(row: Row) -> tuple[bool, float, str]:
        found = value(row)
        number = isinstance(found, (int, float)) and not isinstance(found, bool)
        return (not number, float(found) if number else 0.0, "" if number else written(found))

    known = [row for row in rows if (found := value(row)) is not None and found == found]
    kept = {id(row) for row in known}
    return sorted(known, key=key, reverse=descending) + [row for row in rows if id(row) not in kept]


def matching(rows: Sequence[Row], wanted: Filter) -> list[Row]:
    """Rows that contain every word of the text and have one of the statuses and modes and all of the tags.

    A word `lr=0.001` asks for a setting of exactly that value.
    """
    words, settings = [], []
    for word in wanted.text.lower().split():
        name, equals, value = word.partition("=")
        if equals and name:
            settings.append((name, value))
        else:
            words.append(word)
    statuses, modes, tags = set(wanted.statuses), set(wanted.modes), set(wanted.tags)

    def matches(row: Row) -> bool:
        return (
            (not statuses or row["status"] in statuses)
            and (not modes or row.get("attn_mode") in modes)
            and tags.issubset(row["tags"])
            and all(_says(row["config"], name, value) for name, value in settings)
            and (not words or _contains(row, words))
        )

    return [row for row in rows if matches(row)] if wanted.narrows else list(rows)


def grouped(rows: Sequence[Row], by: str, repetitions: Mapping[str, int]) -> list[RunGroup]:
    """The rows by a setting, or by their number in `repetitions` (see there) for SEEDS; the best group first."""
    parts: dict[str, list[Row]] = {}
    if by == SEEDS:
        numbered: dict[int, list[Row]] = {}
        for row in rows:
            numbered.setdefault(repetitions[row["path"]], []).append(row)
        for part in numbered.values():
            name = common_name([row["id"] for row in part])
            while name in parts:  # two groups of equal names are two groups all the same
                name += "′"
            parts[name] = part
    else:
        for row in rows:
            config = row["config"]
            parts.setdefault(written(config[by]) if by in config else ABSENT, []).append(row)
    groups = [RunGroup(name=name, rows=part) for name, part in parts.items()]
    return sorted(groups, key=lambda group: min(group.losses, default=math.inf))


@st.cache_resource(show_spinner="Looking for repetitions", max_entries=4)
def repetitions(version: int, _rows: Sequence[Row]) -> dict[str, int]:
    """Numbers of the groups of runs that differ in nothing but the seed, by path; of one version of the index."""
    groups = seed_groups([row["config"] for row in _rows])
    return {_rows[i]["path"]: number for number, group in enumerate(groups) for i in group}


@st.cache_resource(show_spinner=False, max_entries=4)
def setting_names(version: int, _rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """The settings that any of the rows has, and those of them in which some differ; of one version of the index."""
    names: dict[str, Any] = {}
    alike: dict[str, Any] = {}
    differing = []
    for row in _rows:
        config = row["config"]
        for name in [name for name, value in alike.items() if config.get(name, value) != value]:
            differing.append(name)
            del alike[name]
        if len(names) < len(names | config):
            alike |= {name: value for name, value in config.items() if name not in names and _groups_by(name, value)}
            names |= config
    return sorted(names), sorted(differing)


def all_tags(rows: Sequence[Row]) -> list[str]:
    """The tags that any row has."""
    return sorted({tag for row in rows for tag in row["tags"]}, key=str.lower)


def _contains(row: Row, words: Sequence[str]) -> bool:
    parts = [row["id"], *(str(row[name]) for name in _SEARCHED if row.get(name)), *row["tags"], row["note"]]
    text = "\n".join(parts).lower()
    return all(word in text for word in words)


def _says(config: Mapping[str, Any], name: str, value: str) -> bool:
    found = config.get(name)
    if found is None:
        return False
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        try:
            return float(found) == float(value)
        except ValueError:
            return False
    return value in (written(found).lower(), str(found).lower())


def _groups_by(name: str, value: Any) -> bool:
    """Lists and tables are no setting to group by, nor is what names a run."""
    return name not in _NAMES and not isinstance(value, (dict, list))
