"""What the reader is about to start: presets, changed settings, a name, a sweep. All of it fits into a link."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from bottleneck_core.config import EXPERIMENTS, RunConfig
from bottleneck_core.errors import UserError
from bottleneck_core.store.layout import next_free_id
from dashboard.train.schema import OWN, defaults, fields

SIZES = ("nano", "tiny", "small", "medium", "large", "1b")
ALL = "paper_all"
MOST_JOBS = 64  # each waits in a process of its own
_NOTHING = "none"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# What a preset of size or attention is about: choosing another one takes these back.
_SHAPE = ("d_model", "n_layer", "n_head", "d_ff", "embed_dim", "block_size")
_ATTENTION = ("attn_mode", "null_attn", "tie_qk", "attn_dim", "sem_dim", "geo_dim", "kv_head")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """`settings` are the changed ones as texts by field name. `values` and `seeds` are lists as typed."""

    size: str | None = "nano"
    exp: str | None = "paper_bottleneck"
    settings: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    root: str = ""
    nproc: int = 1
    sweep: str = ""
    values: str = ""
    seeds: str = ""

    @property
    def explicit(self) -> dict[str, Any]:
        """The changed settings as the schema takes them, presets included."""
        known = fields()
        given = {name: known[name].value(text) for name, text in self.settings.items()}
        presets = {"size": self.size, "exp": self.exp}
        return {name: value for name, value in presets.items() if value is not None} | given

    @property
    def defaults(self) -> dict[str, Any]:
        """What each setting is where it is not changed."""
        return defaults(self.explicit)

    def with_setting(self, name: str, text: str) -> Draft:
        """Changed, or as before where the text says nothing new."""
        others = {key: value for key, value in self.settings.items() if key != name}
        without = replace(self, settings=others)
        if fields()[name].says_nothing(text, without.defaults.get(name)):
            return without
        return replace(self, settings=others | {name: text.strip()})

    def with_size(self, size: str | None) -> Draft:
        """Another size preset; what was changed of shape and attention widths is its again."""
        return replace(self._without((*_SHAPE, *_ATTENTION)), size=size)

    def with_exp(self, exp: str | None) -> Draft:
        """Another experiment preset, which sets the attention."""
        return replace(self._without(_ATTENTION), exp=exp)

    def _without(self, names: Sequence[str]) -> Draft:
        return replace(self, settings={n: t for n, t in self.settings.items() if n not in names})


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One job to be: its settings, the words after the program's name, its folder, and what sets it apart."""

    config: RunConfig
    argv: tuple[str, ...]
    folder: Path
    apart: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name


def planned_runs(draft: Draft, root: Path) -> list[PlannedRun]:
    """The runs that a draft means, below `root`. Raises UserError, one sentence, where it means none."""
    swept = fields().get(draft.sweep)
    if draft.sweep and (swept is None or draft.sweep in OWN):
        raise UserError(f"{draft.sweep} is no setting that can be swept: choose one from the list")
    values = listed(draft.values) if swept else []
    if swept and not values:
        raise UserError(f"a sweep over {swept.flag} needs values: separate them by commas")
    seeds = listed(draft.seeds)
    variants = list(product(EXPERIMENTS if draft.exp == ALL else (draft.exp,), values or (None,), seeds or (None,)))
    if len(variants) > MOST_JOBS:
        raise UserError(f"{len(variants):,} runs at once are too many: at most {MOST_JOBS}")
    taken: set[str] = set()
    runs = []
    for exp, value, seed in variants:
        one = replace(draft, exp=exp)
        apart = {}
        for name, text in ((draft.sweep, value), ("seed", seed)):
            if text is not None:
                one = replace(one, settings=dict(one.settings) | {name: text})
                apart[name] = text
        runs.append(_planned(one, root, taken, apart, named_apart=len(variants) > 1, several=draft.exp == ALL))
    return runs


def _planned(
    draft: Draft, root: Path, taken: set[str], apart: Mapping[str, str], *, named_apart: bool, several: bool
) -> PlannedRun:
    config = RunConfig.resolve(**draft.explicit)
    if draft.name and not _NAME.fullmatch(draft.name):
        raise UserError("a run's name is made of letters, digits, dots, dashes and underscores, at most 100 of them")
    variant = [str(draft.exp).removeprefix("paper_")] if several else []
    # The tag is any text, and part of the id: as a path it would lead out of the root.
    parts = [draft.name, *variant] if draft.name else [_slug(config.run_id, 100)]
    parts += [_slug(f"{fields()[name].flag[2:]}{text}") for name, text in apart.items()]
    wanted = "_".join(parts)
    name = wanted
    if not draft.name or named_apart:
        number = 1
        while name in taken or os.path.lexists(root / name):
            number += 1
            name = f"{wanted}_{number}"
    elif os.path.lexists(root / name):
        raise UserError(f"{name} is there already: give another name, such as {next_free_id(root, name)}")
    taken.add(name)
    words = variant + [f"{fields()[key].label} {text}" for key, text in apart.items()]
    folder = root / name
    return PlannedRun(config=config, argv=argv(draft, folder), folder=folder, apart=", ".join(words))


def argv(draft: Draft, folder: Path) -> tuple[str, ...]:
    """The words after the program's name: what differs from the presets, and the folder."""
    words = ["train"]
    for preset, value in (("--size", draft.size), ("--exp", draft.exp)):
        words += [preset, value] if value else []
    for name, spec in fields().items():
        text = draft.settings.get(name)
        if text is None:
            continue
        if spec.kind == "switch" and text in ("true", "false"):
            words.append(spec.flag if text == "true" else f"--no-{spec.flag[2:]}")
        elif text.startswith("--") or not text:  # a value that would be taken for a flag
            words.append(f"{spec.flag}={text}")
        else:
            words += [spec.flag, text]
    return (*words, "--out-dir", str(folder))


def listed(text: str) -> list[str]:
    """The parts of a list as typed: by semicolons where there are any, else by commas; each once."""
    parts = text.split(";" if ";" in text else ",")
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def encode(draft: Draft) -> dict[str, str]:
    """Query parameters of a draft; what is as usual is left out."""
    usual = Draft()
    query = {name: getattr(draft, name) or _NOTHING for name in ("size", "exp")}
    if (draft.size, draft.exp) == (usual.size, usual.exp):
        query = {}
    if draft.settings:
        query["set"] = ",".join(f"{name}:{quote(text, safe='')}" for name, text in draft.settings.items())
    named = {"name": draft.name, "into": draft.root, "sweep": draft.sweep, "values": draft.values, "seeds": draft.seeds}
    query |= {name: value for name, value in named.items() if value}
    if draft.nproc != 1:
        query["nproc"] = str(draft.nproc)
    return query


def decode(query: Mapping[str, str]) -> tuple[Draft, list[str]]:
    """The draft of a link, and a sentence for each part that is not understood."""
    problems: list[str] = []
    settings: dict[str, str] = {}
    known = fields()
    for part in filter(None, query.get("set", "").split(",")):
        name, colon, text = part.partition(":")
        if name in known and name not in OWN - {"data", "device"} and colon:
            settings[name] = unquote(text)
        else:
            problems.append(f"the link sets {name}, which is no setting here: it is left out")
    usual = Draft()
    presets: dict[str, str | None] = {}
    for name, choices in (("size", SIZES), ("exp", (*EXPERIMENTS, ALL))):
        chosen = query.get(name, getattr(usual, name))
        if chosen not in (*choices, _NOTHING):
            problems.append(f"the link's {name} {chosen} is none of {', '.join(choices)}")
            chosen = getattr(usual, name)
        presets[name] = None if chosen == _NOTHING else chosen
    nproc = query.get("nproc", "1")
    if not re.fullmatch("[0-9]{1,2}", nproc) or not 1 <= int(nproc) <= 64:
        problems.append(f"the link's nproc {nproc} is no number from 1 to 64")
        nproc = "1"
    draft = Draft(
        **presets,
        settings=settings,
        name=query.get("name", ""),
        root=query.get("into", ""),
        nproc=int(nproc),
        sweep=query.get("sweep", ""),
        values=query.get("values", ""),
        seeds=query.get("seeds", ""),
    )
    return draft, problems


def _slug(text: str, most: int = 40) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:most]
