"""What the KV calculator answers: sizes, parts, the curve over the context, what fits a card. No widgets here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import bottleneck_core as bc
from bottleneck_core import sizing
from bottleneck_core.cli.amounts import memory_size
from bottleneck_core.figures import numbers
from bottleneck_core.memory import GPUS, Budget, CachePolicy, KVMemory
from bottleneck_core.memory.kv import Cache
from dashboard.kv.models import Model
from dashboard.kv.scenario import MOST_TOKENS, View

# Steps of a decade that hold the lengths people ask for: 4k 8k 16k 32k 64k 128k 256k 512k.
_STEPS = (1.0, 1.28, 1.6, 2.0, 2.56, 3.2, 4.0, 5.12, 6.4, 8.0)
CONTEXTS = sorted({round(step * 10**power) for power in range(7) for step in _STEPS} | {MOST_TOKENS})

TOTAL_RULES = {
    "logical": "What the tokens need: a windowed layer keeps its window, a chunked one its chunk.",
    "engine_reserved": "The larger of what engines set aside by their own rules; for our models whole pages.",
    "conservative": "No credit for windows and chunks: every attention layer holds the whole context.",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """A cached tensor over the layers of a type that store it alike, or a type of layers; `tokens` kept, bytes."""

    name: str
    layer_type: str
    layers: int
    kind: str
    bytes: int
    tokens: int
    width: int = 0
    row_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Result:
    """The answers of one scenario; `policy` is what was asked, or the source's own."""

    letter: str
    model: Model
    policy: CachePolicy
    size: KVMemory
    tensors: tuple[Part, ...]
    layer_types: tuple[Part, ...]
    contexts: tuple[int, ...]
    curve: tuple[int, ...]

    @property
    def title(self) -> str:
        """Letter, model, and formats where not all are fp16."""
        kinds = dict.fromkeys(self.policy.kind_of(name) for name in self.model.tensors)
        formats = "" if set(kinds) <= {"fp16"} else " " + "/".join(kinds)
        return f"{self.letter.upper()} {self.model.title}{formats}"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What a card holds: tokens at the batch, requests at the context; None: any number."""

    budget: Budget
    tokens: int | None
    requests: int | None


def result_of(letter: str, model: Model, policy: CachePolicy, view: View) -> Result:
    """Raises UserError where the sizes are not possible, such as an odd block of a 4-bit kind."""
    size = bc.kv_memory(model.config, view.context, view.batch, policy)
    cache = Cache(model.config, policy)
    stored = (*cache.rows, *cache.states)
    tensors = tuple(
        Part(
            name=tensor.name,
            layer_type=_layer_type(part.kind, part.limit),
            layers=tensor.layers,
            kind=tensor.kind,
            bytes=tensor.bytes,
            tokens=tensor.tokens,
            width=tensor.width,
            row_bytes=tensor.row_bytes,
        )
        for tensor, part in zip(size.tensors, stored, strict=True)
    )
    # The curve is linear between the ends of windows: few points draw it exactly.
    bends = {part.limit for part in stored if part.limit} | {part.residual for part in stored if part.residual}
    contexts = tuple(sorted({*CONTEXTS, view.context, *(bend for bend in bends if bend <= MOST_TOKENS)}))
    return Result(
        letter=letter,
        model=model,
        policy=policy,
        size=size,
        tensors=tensors,
        layer_types=_layer_types(model, size),
        contexts=contexts,
        curve=tuple(cache.bytes(context, view.batch) for context in contexts),
    )


def fit_of(result: Result, view: View, params: int | None) -> Fit:
    """What the view's card holds of this cache. Raises UserError where the card or the weights are not known."""
    count = result.model.params or params
    if count is None:
        raise bc.UserError("What fits a card depends on the weights: give their number.")
    model = result.model.config
    budget = sizing.budget_of(
        model,
        card_bytes(view.card),
        weights=view.weights,
        activations=view.activations,
        reserve=view.reserve,
        params=count,
    )
    asked: dict[str, Any] = {"policy": result.policy, "total": view.fits}
    return Fit(
        budget=budget,
        tokens=sizing.longest_context(model, budget, batch=view.batch, **asked),
        requests=sizing.largest_batch(model, view.context, budget, **asked),
    )


def card_bytes(card: str) -> int:
    """Memory of a GPU by name, or of a card by size as `80GiB`. Raises UserError."""
    return GPUS[card] if card in GPUS else memory_size(card, "A card")


def fit_sentence(fit: Fit, view: View) -> str:
    """`On a card of 80GiB, weights taken off: 37.2M tokens at batch 1; batch 290 at 128,000.`"""
    budget = fit.budget
    where = f"On the {view.card}" if view.card in GPUS else f"On a card of {view.card}"
    if budget.cache == 0:
        return f"{where} nothing is left: the weights take {numbers.size(budget.weights)}."
    taken = ["weights", *(["activations"] if budget.activations else []), *(["reserve"] if budget.reserve else [])]
    listed = " and ".join([", ".join(taken[:-1]), taken[-1]]) if len(taken) > 1 else taken[0]
    tokens = "any length" if fit.tokens is None else f"**{numbers.count(fit.tokens)} tokens**"
    requests = "any batch" if fit.requests is None else f"**batch {fit.requests:,}**"
    return f"{where}, {listed} taken off: {tokens} at batch {view.batch:,}; {requests} at {view.context:,}."


def per_token(size: KVMemory) -> str:
    """`2,304 B per token + 0 B fixed`; where windows fill up, one more token takes less than the first."""
    first, more = f"{size.bytes_per_token:,} B", f"{size.slope_bytes_per_token:,} B"
    rows = f"{more} per token" if first == more else f"{more} per token here, {first} the first,"
    return f"{rows} + {size.fixed_bytes_per_request:,} B fixed"


def total_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The three totals with their rules, and the engines behind the second: a column a scenario."""
    rows = [
        {"total": name.replace("_", " "), **{r.title: numbers.size(r.size.totals[name]) for r in results}, "rule": rule}
        for name, rule in TOTAL_RULES.items()
    ]
    for engine in dict.fromkeys(engine for r in results if r.model.public for engine in r.size.engines):
        sizes = {r.title: numbers.size(r.size.engines.get(engine)) for r in results}
        rows.append(
            {"total": f"reserved by {engine}", **sizes, "rule": "Its own rule, which the derivation spells out."}
        )
    return rows


def part_rows(results: Sequence[Result], by: str) -> list[dict[str, Any]]:
    """Tensors or layer types of all scenarios, a line each."""
    rows = []
    for result in results:
        for part in result.tensors if by == "tensors" else result.layer_types:
            row: dict[str, Any] = {"scenario": result.title}
            if by == "tensors":
                row |= {"tensor": part.name}
            row |= {"layers": part.layers, "layer type": part.layer_type}
            if by == "tensors":
                row |= {"kind": part.kind, "values": part.width, "bytes a row": part.row_bytes}
            rows.append(row | {"tokens kept": part.tokens, "size": numbers.size(part.bytes), "bytes": part.bytes})
    return rows


def as_csv(results: Sequence[Result]) -> str:
    """Bytes over the context: a line a context, a column a scenario."""
    at = [dict(zip(r.contexts, r.curve, strict=True)) for r in results]
    contexts = sorted(set(at[0]).intersection(*at[1:])) if at else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["context", *(f"{r.title} (bytes)" for r in results)])
    writer.writerows([context, *(sizes[context] for sizes in at)] for context in contexts)
    return text.getvalue()


def as_json(results: Sequence[Result], fits: Mapping[str, Fit], query: Mapping[str, str]) -> str:
    """Everything on the page: one document, numbers exact."""
    scenarios = []
    for r in results:
        fit = fits.get(r.letter)
        scenarios.append(
            {
                "scenario": r.letter,
                "model": r.model.title,
                **r.size.to_dict(),
                "curve": {"context": r.contexts, "bytes": r.curve},
                "fits": fit and {"cache_bytes": fit.budget.cache, "tokens": fit.tokens, "batch": fit.requests},
            }
        )
    return json.dumps({"query": dict(query), "scenarios": scenarios}, indent=2, allow_nan=False)


def _layer_types(model: Model, size: KVMemory) -> tuple[Part, ...]:
    found: dict[str, list[tuple[int, int]]] = {}
    for layer, layer_bytes in zip(model.layers.layers, size.layer_bytes, strict=True):
        kept = layer.tokens(size.context) if layer.rows else 0
        found.setdefault(_layer_type(layer.kind, layer.limit), []).append((kept, layer_bytes))
    return tuple(
        Part(
            name=name,
            layer_type=name,
            layers=len(layers),
            kind="",
            tokens=layers[0][0],
            bytes=sum(layer_bytes for _, layer_bytes in layers),
        )
        for name, layers in found.items()
    )


def _layer_type(kind: str, limit: int | None) -> str:
    return kind if limit is None else f"{kind} {limit:,}"
