"""Writes docs/commands.md, the command reference, from the commands' own parsers and the schema of settings.

    make docs            or: python docs/commands.py

Nothing is listed by hand but one example a command; `tests/e2e/test_command_reference.py` parses those, and fails where
the page is not what this script writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import tyro

from bottleneck_core import cli
from bottleneck_core.cli import jobs
from bottleneck_core.config import EXPERIMENTS, GROUPS, RunConfig, Settings, flag_of
from bottleneck_core.config.presets import size_preset

PAGE = Path(__file__).resolve().with_suffix(".md")
PROGRAM = "python -m bottleneck_core"
SCHEMA_FORM = "Flags"  # what read_flags calls the form that it makes of the schema
POSITIONS = ("DIR", "GLOB", "NAME", "RUN", "RUN...")
SIZES = ("nano", "tiny", "small", "medium", "large", "1b")

EXAMPLES = {
    "prepare": 'prepare files "docs/*.md" "src/**/*.py" --tokenizer gpt2 --out data/mine.gpt2.bin',
    "train": "train --size nano --exp paper_bottleneck --attn-dim 32 --steps 1200 --run-tag narrow",
    "sample": 'sample --run runs/nano_bottleneck_ref --prompt "def " --max-new-tokens 200 --kv-cache q8_0',
    "evaluate": 'evaluate --run runs/nano_bottleneck_ref --policies "q8_0;k=q8_0,v=q4_0;q4_0,residual=64"',
    "tune": "tune --run runs/nano_bottleneck_ref --context 32k --self-opt-mem-budget-mb 4 --out choice.json",
    "bench": "bench train_speed --data data/mine.gpt2.bin --what speed --repeats 1",
    "kv": 'kv --model qwen3-8b --context 128k --kv-cache q8_0 --gpu "RTX 4090"',
    "runs": "runs runs --json",
    "report": "report runs/nano_baseline_ref runs/nano_bottleneck_ref --out report --formats md,png",
    "export": "export runs/nano_bottleneck --out shared/nano_bottleneck --maps 4 --weights bf16",
    "jobs": "jobs runs",
    "jobs add": "jobs add --device cuda:0 -- train --size tiny --exp paper_all --data data/mine.gpt2.bin",
    "jobs move": "jobs move tiny_gqa 0",
    "jobs start": "jobs start tiny_gqa",
    "jobs resume": "jobs resume tiny_gqa",
    "jobs stop": "jobs stop tiny_gqa",
    "jobs limit": "jobs limit cuda:0 2",
    "jobs log": "jobs log tiny_gqa -n 20",
    "serve": "serve --runs runs ../other/runs --port 8600",
    "demo": "demo --steps 200",
}

HEAD = f"""# Command reference

Written by `make docs` from the parsers and the schema of settings; do not edit. `{PROGRAM} <command>
--help` says the same, with the defaults of the presets that stand beside it.

Flags are written with dashes or underscores, as `--flag value` or `--flag=value`. A boolean is switched by `--x` and
`--no-x`. An explicit flag beats a preset, also where it says the default. A value that is not set shows an empty
default; `none` unsets what a preset has set. Exit codes: 0 done, 2 a mistake in what was given (one sentence says
which), 3 the loss or a gradient was not finite, 130 and 143 saved after SIGINT and SIGTERM.
"""


@dataclasses.dataclass(frozen=True)
class Flag:
    """A line of a table; `group` is that of a run's setting, and empty for what is the command's own."""

    name: str
    value: str
    default: str
    meaning: str
    group: str


@dataclasses.dataclass(frozen=True)
class Parser:
    """A command as its parser knows it."""

    command: str
    description: str
    flags: tuple[Flag, ...]


class _Seen(Exception):
    """Ends a command where its words would be read."""


def page() -> str:
    """The whole reference as Markdown."""
    parts = [HEAD, "".join(f"- [`{name}`](#{_anchor(name)}): {text}\n" for name, text in cli.COMMANDS.items())]
    parts[-1] += "- [settings of a run](#settings-of-a-run), which several of them take; [presets](#presets)\n"
    for command in EXAMPLES:
        parts.append(_section(parser_of(command)))
    parts.append(_settings())
    parts.append(_presets())
    return "\n".join(parts)


def commands() -> list[str]:
    """All commands and their second words."""
    names = [*cli.COMMANDS]
    at = names.index("jobs") + 1
    return [*names[:at], *(f"jobs {word}" for word in jobs._WORDS), *names[at:]]


def parser_of(command: str) -> Parser:
    """What the command would read its words with."""
    with recorded() as forms, contextlib.suppress(_Seen):
        cli.main([*command.split(), "--help"])
    form, description = forms[-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tyro means to have another way to ask, and has none yet
        parser = tyro.extras.get_parser(form)
    made = {f.name for f in dataclasses.fields(form) if f.default_factory is not dataclasses.MISSING}
    actions = [action for action in parser._actions if action.dest != "help"]
    schema, groups = _schema(command, is_schema=form.__name__ == SCHEMA_FORM)
    flags = [_flag(action, made, schema, groups) for action in actions]
    by_position = [flag for flag, action in zip(flags, actions, strict=True) if not action.option_strings]
    return Parser(command, description, (*by_position, *(flag for flag in flags if flag not in by_position)))


@contextlib.contextmanager
def recorded(then: Any = None) -> Iterator[list[tuple[Any, str]]]:
    """What commands hand to tyro meanwhile, form and description; each ends there. `then` is called with it first."""
    forms: list[tuple[Any, str]] = []

    def record(form: Any, *, description: str | None = None, **rest: Any) -> Any:
        forms.append((form, description or inspect.getdoc(form) or ""))
        if then is not None:
            then(form, description=description, **rest)
        raise _Seen

    with mock.patch.object(tyro, "cli", record):
        yield forms


def _schema(command: str, is_schema: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Fields of settings by flag, for their bounds, and the group of each flag that is a setting of a run.

    A command whose words are no schema has flags of its own alone, whatever their names.
    """
    module = importlib.import_module(f"bottleneck_core.cli.{command.split()[0]}")
    words = getattr(module, "Words", None)
    own = [words] if isinstance(words, type) and issubclass(words, Settings) else []
    fields = {
        flag_of(name): field for schema in (*GROUPS.values(), *own) for name, field in schema.model_fields.items()
    }
    groups = {flag_of(name): group for group, schema in GROUPS.items() for name in schema.model_fields}
    mine = {flag_of(name) for schema in own for name in schema.model_fields}
    return fields, {flag: group for flag, group in groups.items() if is_schema and flag not in mine}


def _flag(action: Any, made: set[str], schema: dict[str, Any], groups: dict[str, str]) -> Flag:
    meaning, _, default = (action.help or "").rpartition(" (default: ")
    default = default.removesuffix(")")
    value = "" if action.nargs == 0 else _value(str(action.metavar))
    choices = value.split(", ")
    if (default in ("None", "none") and default not in choices) or action.dest.replace("-", "_") in made:
        default = ""
    if action.nargs == 0:
        default = {"True": "on", "False": "off"}.get(default, default)
    names = action.option_strings
    if not names:  # by position: its name is what it is called in the help, or its field's
        names, value = ([value], "") if value in POSITIONS else ([action.dest.upper()], value)
    elif value and (bounds := _bounds(schema.get(names[0]))):
        value += f" {bounds}"
    return Flag(", ".join(names), value, default, " ".join(meaning.split()), groups.get(names[0], ""))


def _value(metavar: str) -> str:
    """`{None}|STR` is TEXT; a list of choices has spaces after its commas, so that a table can fold it."""
    text = re.sub(r"^\[(.*)\]$", r"\1", metavar).replace("{None}|", "").replace("STR", "TEXT")
    text = re.sub(r"^(\w+) \[\1 \.\.\.\]$", r"\1 ...", text)
    return ", ".join(text[1:-1].split(",")) if text.startswith("{") else text


def _bounds(field: Any) -> str:
    if field is None:
        return ""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [(sign, getattr(part, key)) for part in field.metadata for key, sign in signs.items() if hasattr(part, key)]
    return ", ".join(f"{sign} {value:g}" for sign, value in found)


def _section(parser: Parser) -> str:
    own = [flag for flag in parser.flags if not flag.group]
    level = "###" if " " in parser.command else "##"
    paragraphs = re.split(r"\n\s*\n", parser.description.strip())
    description = "\n\n".join(textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False) for text in paragraphs)
    lines = [f"{level} {parser.command}", "", description, "", "```sh", f"{PROGRAM} {EXAMPLES[parser.command]}", "```"]
    if own:
        lines += ["", *_table(own)]
    taken = dict.fromkeys(flag.group for flag in parser.flags if flag.group)
    if taken:
        links = ", ".join(f"[{group}](#{_anchor(group)})" for group in taken)
        lines += ["", textwrap.fill(f"Settings of a run that it takes: {links}.", 120, break_on_hyphens=False)]
    if parser.command == "jobs add":
        lines += ["", "After `--` stand `train` and [its flags](#train)."]
    return "\n".join(lines) + "\n"


def _settings() -> str:
    """The schema, group by group."""
    flags = {flag.name.split(",")[0]: flag for flag in parser_of("train").flags}
    lines = [
        "## Settings of a run",
        "",
        "`train` takes all of them; a run's `config.json` has them resolved.",
    ]
    for group, schema in GROUPS.items():
        described = " ".join((schema.__doc__ or "").split())
        lines += ["", f"### {group}", "", *([described, ""] if group != "model" else [])]
        lines += _table([flags[flag_of(name)] for name in schema.model_fields])
    return "\n".join(lines) + "\n"


def _presets() -> str:
    """What sizes and experiments set."""
    shape = ("d_model", "n_layer", "n_head", "d_ff", "block_size", "batch_size", "steps")
    lines = ["## Presets", "", "`--size` sets the shape:", ""]
    lines += _rows(["size", *(f"`{flag_of(name)}`" for name in shape)], _shapes(shape))
    lines += ["", "`--exp` sets the attention; the widths below are totals over all heads:", ""]
    sizes = [size for size in SIZES if size != "1b"]
    lines += _rows(["experiment", "switches", *sizes], (_experiment(exp, sizes) for exp in EXPERIMENTS))
    lines += ["", "`nano` also sets the byte tokenizer and a recipe for minutes:", ""]
    recipe = {name: value for name, value in size_preset("nano").items() if name not in size_preset("tiny")}
    lines += [", ".join(f"`{flag_of(name)} {value}`" for name, value in recipe.items()) + "."]
    return "\n".join(lines) + "\n"


def _shapes(shape: tuple[str, ...]) -> Iterator[list[str]]:
    for size in SIZES:
        preset = size_preset(size)
        yield [f"`{size}`", *(f"{preset[name]:,}" for name in shape)]


def _experiment(exp: str, sizes: list[str]) -> list[str]:
    switches = ("null_attn", "tie_qk")
    config = RunConfig.resolve(size="tiny", exp=exp)
    on = [f"`{flag_of(name)}`" for name in switches if getattr(config, name)]
    cells = []
    for size in sizes:
        at = RunConfig.resolve(size=size, exp=exp)
        widths = {"kv_head": at.kv_heads} if at.attention.grouped else at.head_dims
        cells.append(", ".join(f"{name} {width}" for name, width in widths.items()))
    return [f"`{exp}`", f"`--attn-mode {config.attn_mode}`" + "".join(f" {name}" for name in on), *cells]


def _table(flags: list[Flag]) -> list[str]:
    rows = ([f"`{flag.name}`", flag.value, flag.default, flag.meaning] for flag in flags)
    return _rows(["flag", "value", "default", "meaning"], rows)


def _rows(head: list[str], rows: Iterable[list[str]]) -> list[str]:
    escaped = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in [head, *rows]]
    table = [re.sub(r"\| +(?=\|)", "| ", f"| {row} |") for row in escaped]
    return [table[0], "|" + "---|" * len(head), *table[1:]]


def _anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE.relative_to(PAGE.parents[1]))
