"""The settings of the schema as fields of the form: which widget each takes, and what its text means.

Everything but the layout comes from `bottleneck_core.config`: names, groups, help, choices, defaults.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from bottleneck_core.config import GROUPS, RunConfig, flag_of
from bottleneck_core.config.run import preset_settings
from bottleneck_core.errors import UserError

Kind = Literal["switch", "choice", "number", "text"]

# The page has ways of its own to ask for these.
OWN = frozenset({"size", "exp", "run_root", "out_dir", "resume", "data", "device"})
# Asked for first; all others are folded by group.
FIRST = ("steps", "batch_size", "block_size", "lr", "lr_schedule", "warmup_steps", "seed", "eval_every")
# Given at its default, each of these still says something: `--speed auto` leaves alone what was given.
_TELLING = frozenset({"amp", "compile"})
_NONE = ("none", "null")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One setting of the form."""

    name: str
    group: str
    help: str
    kind: Kind
    choices: tuple[str, ...] = ()
    nullable: bool = False

    @property
    def flag(self) -> str:
        """As on the command line: `--lr`."""
        return flag_of(self.name)

    @property
    def label(self) -> str:
        """The flag without dashes: `batch size`."""
        return self.flag[2:].replace("-", " ")

    def value(self, text: str) -> Any:
        """What the schema is given for a text: None for `none` where that is allowed, the text itself otherwise."""
        return None if self.nullable and text.strip().lower() in _NONE else text.strip()

    def same(self, text: str, value: Any) -> bool:
        """Whether a text means `value`; no text at all means whatever is set without it."""
        text = text.strip()
        if not text or text == text_of(value) or (value is None and self.value(text) is None):
            return True
        if self.kind != "number" or value is None:
            return False
        try:
            return float(text) == float(value)
        except ValueError:
            return False

    def says_nothing(self, text: str, default: Any) -> bool:
        """Whether giving the text changes nothing."""
        return not text.strip() or (self.same(text, default) and self.name not in _TELLING)


@cache
def fields() -> dict[str, Field]:
    """Every setting of the schema, by name, in its order."""
    found = {}
    for group, schema in GROUPS.items():
        for name, info in schema.model_fields.items():
            kind, choices, nullable = _kind(info.annotation)
            found[name] = Field(
                name=name, group=group, help=info.description or "", kind=kind, choices=choices, nullable=nullable
            )
    return found


def folded_groups() -> dict[str, list[Field]]:
    """The fields that are not among the first, by group."""
    groups: dict[str, list[Field]] = {group: [] for group in GROUPS}
    for field in fields().values():
        if field.name not in OWN and field.name not in FIRST:
            groups[field.group].append(field)
    return {group: members for group, members in groups.items() if members}


def defaults(explicit: Mapping[str, Any]) -> dict[str, Any]:
    """Each setting's value as long as it is not given, by the presets that `explicit` names."""
    found = {name: info.default for name, info in RunConfig.model_fields.items() if name != "given"}
    try:
        return found | preset_settings(explicit)
    except (KeyError, UserError):  # of a preset or a width that validation names
        return found


def text_of(value: Any) -> str:
    """A value as the form and the address show it: `true`, `0.0003`, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _kind(annotation: Any) -> tuple[Kind, tuple[str, ...], bool]:
    members = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if typing.get_origin(annotation) is typing.Union:
        members = typing.get_args(annotation)
    nullable = type(None) in members
    (kind,) = (member for member in members if member is not type(None))
    if kind is bool:
        return "switch", (), nullable
    if typing.get_origin(kind) is Literal:
        return "choice", typing.get_args(kind), nullable
    return ("number" if kind in (int, float) else "text"), (), nullable
