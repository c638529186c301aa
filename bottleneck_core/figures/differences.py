"""In which settings runs differ, and which of them differ in nothing but the seed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Where a run lies and how it was called; it says nothing about what was trained.
_NAMES = frozenset({"out_dir", "run_root", "run_tag", "resume", "given", "ckpt"})
_SEED = "seed"
_TAIL = re.compile(r"([\W_]+s|[\W_]*seed)?[\W_]*$", re.IGNORECASE)
ABSENT = "·"

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting in which runs differ: its value in each of them, in words. `known` says which runs have it at all."""

    name: str
    values: tuple[str, ...]
    known: tuple[bool, ...]

    @property
    def everywhere(self) -> bool:
        return all(self.known)


def differences(configs: Sequence[Config], order: Sequence[str] = ()) -> list[Setting]:
    """The settings in which `configs` differ, those of `order` first.

    A setting that only some of them have is not in itself a difference: an older system did not know it. It is told
    apart by `everywhere`.
    """
    names = dict.fromkeys([*order, *(name for config in configs for name in config)])
    found = []
    for name in names:
        known = tuple(name in config for config in configs)
        values = tuple(written(config[name]) if name in config else ABSENT for config in configs)
        if name not in _NAMES and len(set(values)) > 1:
            found.append(Setting(name=name, values=values, known=known))
    return found


def seed_groups(configs: Sequence[Config]) -> list[list[int]]:
    """Numbers of the configurations that are equal but for seed and names, each in order, by first appearance.

    Two of one seed are not independent, whatever else differs between them: the second starts a group of its own.
    """
    groups: dict[object, list[int]] = {}
    seen: dict[object, int] = {}
    for i, config in enumerate(configs):
        same = frozenset(
            (name, written(value)) for name, value in config.items() if name not in _NAMES and name != _SEED
        )
        # A run that says nothing of itself is the repetition of none.
        repeated = (same, written(config.get(_SEED)))
        seen[repeated] = seen.get(repeated, 0) + 1
        groups.setdefault((same, seen[repeated]) if same else i, []).append(i)
    return list(groups.values())


def value_groups(configs: Sequence[Config], name: str) -> dict[str, list[int]]:
    """Numbers of the configurations by their value of a setting, by first appearance."""
    groups: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        groups.setdefault(written(config[name]) if name in config else ABSENT, []).append(i)
    return groups


def common_name(names: Sequence[str]) -> str:
    """What to call repetitions: what their names begin with, `tiny` for `tiny_seed1` and `tiny_seed2`."""
    first, last = min(names), max(names)
    if first == last:
        return first
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    # The digits of `seed10` and `seed11` that agree belong to the number.
    numbered = any(name[same : same + 1].isdigit() for name in (first, last))
    stem = _TAIL.sub("", first[:same].rstrip("0123456789") if numbered else first[:same])
    return stem or f"{names[0]} and {len(names) - 1} more"


def written(value: Any) -> str:
    """A setting's value in words; 1 and 1.0 are the same."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        whole = math.isfinite(value) and abs(value) < 2**53 and value == int(value)
        return str(int(value)) if whole else repr(value)
    if isinstance(value, (list, tuple)):
        return " ".join(map(written, value))
    return str(value)
