"""Flags from the schema: tyro reads the words and prints the help, the schema judges the values.

Every flag reaches tyro as text (booleans as `--x/--no-x`), so that types and bounds are checked in one place and a
mistake is one sentence, not a box.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import typing
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import tyro

from bottleneck_core.config import GROUPS, Settings, flag_of
from bottleneck_core.config.run import preset_settings
from bottleneck_core.errors import UserError

_OPTIONAL_VALUE = {"--resume": "auto"}


def read_flags(
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    groups: Iterable[str] = GROUPS,
    own: type[Settings] | None = None,
    switches: Iterable[str] = (),
) -> tuple[dict[str, Any], dict[str, bool]]:
    """The settings that `argv` gives explicitly, as text, and the command's own `switches` that it sets.

    Known are the settings of `groups` and those that are the command's `own`.

    Raises UserError for a flag that is unknown, lacks its value or stands twice with different values; `--help` prints
    the flags with the defaults of the presets named in `argv` and exits with 0.
    """
    schemas = [*([own] if own else []), *(GROUPS[group] for group in groups)]
    fields = {name: field for schema in schemas for name, field in schema.model_fields.items()}
    spelled = {flag_of(name): name for name in fields}
    booleans = {flag for flag, name in spelled.items() if fields[name].annotation is bool}
    switched = [f"--{name.replace('_', '-')}" for name in switches]
    words = _normalised(argv, spelled, booleans, switched)

    given: dict[str, Any] = {}
    for flag, value in words:
        if flag in switched or flag == "--help":
            continue
        positive = f"--{flag[5:]}" if flag.startswith("--no-") else flag
        negative = flag not in spelled
        name = spelled[positive if negative else flag]
        parsed = value if value is not None else not negative
        if given.get(name, parsed) != parsed:
            raise UserError(f"{flag_of(name)} is given twice with different values: keep one")
        given[name] = parsed
    _parse(words, fields, switched, given, prog, description)
    nullable = {name for name in given if type(None) in typing.get_args(fields[name].annotation)}
    settings = {
        name: None if name in nullable and str(value).lower() in ("none", "null") else value
        for name, value in given.items()
    }
    return settings, {flag[2:].replace("-", "_"): any(word == flag for word, _ in words) for flag in switched}


def _normalised(
    argv: Sequence[str], spelled: dict[str, str], booleans: set[str], own: list[str]
) -> list[tuple[str, str | None]]:
    """(flag, value) pairs with dashes for underscores, values joined; unknown or incomplete ones raise UserError."""
    pairs: list[tuple[str, str | None]] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            pairs.append(("--help", None))
            continue
        if not word.startswith("--"):
            raise UserError(f"{word!r} stands alone: every value follows its flag, as in --steps 600")
        flag, equals, value = word.partition("=")
        flag = flag.replace("_", "-")
        negated = f"--{flag[5:]}" if flag.startswith("--no-") else ""
        if flag in booleans or negated in booleans or flag in own:
            if equals:
                raise UserError(f"{flag} takes no value: write {flag} or --no-{flag[2:]}")
            pairs.append((flag, None))
        elif flag in spelled:
            if not equals and rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            elif not equals:
                if flag not in _OPTIONAL_VALUE:
                    raise UserError(f"{flag} needs a value: see --help for its meaning")
                value = _OPTIONAL_VALUE[flag]
            pairs.append((flag, value))
        else:
            near = difflib.get_close_matches(flag, [*spelled, *own, *(f"--no-{b[2:]}" for b in booleans)], n=1)
            raise UserError(f"unknown flag {flag}" + (f": did you mean {near[0]}?" if near else ": see --help"))
    return pairs


def _parse(
    words: list[tuple[str, str | None]],
    fields: dict[str, Any],
    own: list[str],
    given: dict[str, Any],
    prog: str,
    description: str,
) -> None:
    """Hand the words to tyro, which prints the help where it is asked for; defaults are those of the presets."""
    defaults = {name: field.default for name, field in fields.items()}
    with contextlib.suppress(KeyError, UserError):  # of an unknown preset, which validation names
        defaults |= {k: v for k, v in preset_settings(given).items() if k in defaults}
    members: list[tuple[str, Any, Any]] = []
    for name, field in fields.items():
        boolean, default = field.annotation is bool, defaults[name]
        metavar = None if boolean else _metavar(field.annotation)
        arg = tyro.conf.arg(name=flag_of(name)[2:], help=field.description, metavar=metavar)
        shown = default if boolean else "none" if default is None else str(default)
        members.append((name, Annotated[bool if boolean else str, arg], dataclasses.field(default=shown)))
    for flag in own:
        name = flag[2:].replace("-", "_")
        arg = tyro.conf.arg(name=flag[2:], help=SWITCH_HELP[name])
        members.append((name, Annotated[tyro.conf.FlagCreatePairsOff[bool], arg], dataclasses.field(default=False)))
    flags = dataclasses.make_dataclass("Flags", members)
    flat = [flag if value is None else f"{flag}={value}" for flag, value in words]
    tyro.cli(flags, prog=prog, description=description, args=flat)


SWITCH_HELP = {
    "print_config": "print the resolved configuration and KV bytes as JSON, then exit",
    "json": "print one JSON document and nothing else",
    "json_lines": "print one JSON object a token as it is drawn, of every policy in turn",
    "no_save": "do not add the texts to the run's samples.jsonl",
}


def _metavar(annotation: Any) -> str:
    """`INT`, `FLOAT`, `TEXT` or the choices."""
    for part in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(part) is typing.Literal:
            return "{" + ",".join(map(str, typing.get_args(part))) + "}"
    kinds = {int: "INT", float: "FLOAT"}
    parts = (annotation, *typing.get_args(annotation))
    return next((kinds[part] for part in parts if part in kinds), "TEXT")
