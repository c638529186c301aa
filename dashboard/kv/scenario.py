"""What the KV calculator is asked, and its spelling in the address.

`?context=128000&batch=1&a.preset=tiny.paper_decoupled&a.cache=q4_0&b.model=gemma-3-27b&b.k=q8_0`: scenarios have
the letters a to d. What is left out has its default; a scenario without any word on storage is stored as its source
says. Reading is lenient: what makes no sense is left out, and a sentence says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, cast

from bottleneck_core.errors import UserError
from bottleneck_core.memory import FORMATS, WEIGHT_BITS, CachePolicy
from bottleneck_core.memory.budget import DEFAULT_ACTIVATIONS, DEFAULT_RESERVE, DEFAULT_WEIGHTS
from dashboard.kv.config import pack_config, unpack_config

LETTERS = "abcd"
TENSORS = ("k", "k_sem", "k_geo", "v")
TOTALS = ("logical", "engine_reserved", "conservative")
MOST_TOKENS = 10_000_000
MOST_REQUESTS = 100_000
MOST_LAYERS = 1000
MOST_VALUES = 65_536  # a quantisation block
MOST_BYTES = 2**50
MOST_PARAMS = 10**15

SourceKind = Literal["run", "preset", "model", "config"]
SOURCES: tuple[SourceKind, ...] = ("run", "preset", "model", "config")
Breakdown = Literal["tensors", "layers"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model comes from. `name`: a run's id, `size.experiment`, a public model's name, or compact JSON; empty
    where nothing is chosen yet. `root`: the folder of a run whose id is in several."""

    kind: SourceKind
    name: str
    root: str | None = None


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A model and how its cache is stored; `policy` None is the source's own. `params`: weights, where not known."""

    source: Source
    policy: CachePolicy | None = None
    params: int | None = None


@dataclass(frozen=True, kw_only=True)
class View:
    """The whole page: scenarios under one workload, on one card (a GPU's name or bytes as `80GiB`)."""

    scenarios: tuple[Scenario, ...]
    context: int = 128_000
    batch: int = 1
    card: str = "H100 80GB"
    weights: str = DEFAULT_WEIGHTS
    activations: int = DEFAULT_ACTIVATIONS
    reserve: float = DEFAULT_RESERVE
    fits: str = "logical"
    by: Breakdown = "tensors"
    shares: bool = False


FIRST = View(scenarios=(Scenario(source=Source(kind="preset", name="tiny.paper_bottleneck")),))


def default_residual(source: Source) -> int:
    """Tokens also kept in fp16 where nothing is said: public engines have no such window."""
    return 0 if source.kind in ("model", "config") else CachePolicy().residual


def encode(view: View) -> dict[str, str]:
    """The query parameters of a view, defaults left out; `decode(encode(view))` is the view again."""
    query = {"context": str(view.context), "batch": str(view.batch)}
    for letter, scenario in zip(LETTERS, view.scenarios, strict=False):
        query |= {f"{letter}.{name}": value for name, value in _scenario_words(scenario).items()}
    rest = {
        "card": view.card,
        "weights": view.weights,
        "activations": str(view.activations),
        "reserve": f"{view.reserve:g}",
        "fits": view.fits,
        "by": view.by,
        "shares": str(int(view.shares)),
    }
    defaults = {"activations": str(DEFAULT_ACTIVATIONS), "reserve": f"{DEFAULT_RESERVE:g}", "shares": "0"}
    defaults |= {f.name: f.default for f in fields(View) if f.name not in defaults and isinstance(f.default, str)}
    return query | {name: value for name, value in rest.items() if value != defaults[name]}


def decode(query: Mapping[str, str]) -> tuple[View, list[str]]:
    """The view that query parameters mean, and a sentence for each that makes no sense."""
    words = _Words(query)
    scenarios = tuple(s for letter in LETTERS if (s := _scenario(words, letter)))
    view = View(
        scenarios=scenarios or FIRST.scenarios,
        context=words.number("context", 1, MOST_TOKENS, FIRST.context),
        batch=words.number("batch", 1, MOST_REQUESTS, FIRST.batch),
        card=words.text("card", FIRST.card),
        weights=words.one_of("weights", tuple(WEIGHT_BITS), FIRST.weights),
        activations=words.number("activations", 0, MOST_BYTES, FIRST.activations),
        reserve=words.share("reserve", FIRST.reserve),
        fits=words.one_of("fits", TOTALS, FIRST.fits),
        by=cast("Breakdown", words.one_of("by", ("tensors", "layers"), FIRST.by)),
        shares=words.one_of("shares", ("0", "1"), "0") == "1",
    )
    return view, words.problems


def with_scenario(view: View) -> View:
    """One scenario more, which starts as the last one."""
    return replace(view, scenarios=(*view.scenarios, view.scenarios[-1]))


def without_scenario(view: View, index: int) -> View:
    """One scenario less."""
    return replace(view, scenarios=view.scenarios[:index] + view.scenarios[index + 1 :])


def spelled_layers(layer_kinds: Mapping[int, Mapping[str, str]]) -> str:
    """Kinds of single layers as `3.k.q8_0-4.v.fp16`."""
    kinds = sorted((layer, name, kind) for layer, of_layer in layer_kinds.items() for name, kind in of_layer.items())
    return "-".join(f"{layer}.{name}.{kind}" for layer, name, kind in kinds)


def read_layers(text: str) -> dict[int, dict[str, str]]:
    """The other way round; commas and spaces divide as well. Raises UserError."""
    found: dict[int, dict[str, str]] = {}
    for term in re.split(r"[-,\s]+", text.strip()) if text.strip() else []:
        layer, _, rest = term.partition(".")
        name, _, kind = rest.partition(".")
        if not re.fullmatch(r"[0-9]{1,4}", layer) or name not in TENSORS or kind not in FORMATS:
            raise UserError(f"{term} names no layer, tensor and kind: write 3.k.q8_0 for k of layer 3, counted from 0")
        found.setdefault(int(layer), {})[name] = kind
    return found


def _scenario_words(scenario: Scenario) -> dict[str, str]:
    source, policy = scenario.source, scenario.policy
    words = {source.kind: pack_config(source.name) if source.kind == "config" else source.name}
    if source.root is not None:
        words["root"] = source.root
    if policy is not None:
        words["cache"] = policy.kind
        words |= {name: policy.kinds[name] for name in TENSORS if name in policy.kinds}
        if policy.qblock != CachePolicy.qblock:
            words["block"] = str(policy.qblock)
        words |= {f"{name}_block": str(policy.qblocks[name]) for name in TENSORS if name in policy.qblocks}
        if policy.residual != default_residual(source):
            words["residual"] = str(policy.residual)
        words |= {name: str(n) for name in ("first", "last") if (n := getattr(policy, f"{name}_layers"))}
        if policy.edge_kind != CachePolicy.edge_kind:
            words["edge"] = policy.edge_kind
        if policy.layer_kinds:
            words["layers"] = spelled_layers(policy.layer_kinds)
    if scenario.params is not None:
        words["params"] = str(scenario.params)
    return words


def _scenario(words: _Words, letter: str) -> Scenario | None:
    kind: SourceKind | None = next((kind for kind in SOURCES if f"{letter}.{kind}" in words.query), None)
    if kind is None:
        return None
    name = words.query[f"{letter}.{kind}"]
    if kind == "config":
        name = words.read(f"{letter}.config", unpack_config, "")
    source = Source(kind=kind, name=name, root=words.query.get(f"{letter}.root") if kind == "run" else None)
    params = words.number(f"{letter}.params", 1, MOST_PARAMS, 0) or None
    return Scenario(source=source, policy=_policy(words, letter, source), params=params)


def _policy(words: _Words, letter: str, source: Source) -> CachePolicy | None:
    said = ("cache", "block", "residual", "first", "last", "edge", "layers", *TENSORS)
    said += tuple(f"{name}_block" for name in TENSORS)
    if not any(f"{letter}.{name}" in words.query for name in said):
        return None
    formats = tuple(FORMATS)
    return CachePolicy(
        kind=words.one_of(f"{letter}.cache", formats, CachePolicy.kind),
        kinds={t: kind for t in TENSORS if (kind := words.one_of(f"{letter}.{t}", formats, ""))},
        qblock=words.number(f"{letter}.block", 1, MOST_VALUES, CachePolicy.qblock),
        qblocks={t: block for t in TENSORS if (block := words.number(f"{letter}.{t}_block", 1, MOST_VALUES, 0))},
        residual=words.number(f"{letter}.residual", 0, MOST_TOKENS, default_residual(source)),
        first_layers=words.number(f"{letter}.first", 0, MOST_LAYERS, 0),
        last_layers=words.number(f"{letter}.last", 0, MOST_LAYERS, 0),
        edge_kind=words.one_of(f"{letter}.edge", formats, CachePolicy.edge_kind),
        layer_kinds=words.read(f"{letter}.layers", read_layers, {}),
    )


@dataclass(frozen=True)
class _Words:
    """Query parameters and what was wrong with them."""

    query: Mapping[str, str]
    problems: list[str] = field(default_factory=list)

    def text(self, name: str, default: str) -> str:
        return self.query.get(name, default)

    def number(self, name: str, least: int, most: int, default: int) -> int:
        text = self.query.get(name)
        if text is None:
            return default
        if re.fullmatch(r"[0-9]{1,18}", text) and least <= int(text) <= most:
            return int(text)
        self.problems.append(f"{name}={text} of the link is no whole number from {least:,} to {most:,} and is left out")
        return default

    def share(self, name: str, default: float) -> float:
        text = self.query.get(name)
        if text is None:
            return default
        if re.fullmatch(r"0(\.[0-9]{1,9})?", text):
            return float(text)
        self.problems.append(f"{name}={text} of the link is no share from 0 to below 1 and is left out")
        return default

    def one_of(self, name: str, known: tuple[str, ...], default: str) -> str:
        text = self.query.get(name)
        if text is None or text in known:
            return default if text is None else text
        self.problems.append(f"{name}={text} of the link is left out: choose one of {', '.join(known)}")
        return default

    def read(self, name: str, reader: Callable[[str], T], default: T) -> T:
        text = self.query.get(name)
        try:
            return default if text is None else reader(text)
        except UserError as error:
            self.problems.append(f"{name} of the link is left out: {error}")
            return default


def settings_of(policy: CachePolicy, tensors: tuple[str, ...]) -> tuple[Any, ...]:
    """What a policy means for these tensors: equal where two policies store them alike."""
    return (
        tuple(policy.kind_of(name) for name in tensors),
        tuple(policy.qblock_of(name) for name in tensors),
        policy.residual,
        policy.first_layers,
        policy.last_layers,
        policy.edge_kind,
        {layer: dict(kinds) for layer, kinds in policy.layer_kinds.items()},
    )
