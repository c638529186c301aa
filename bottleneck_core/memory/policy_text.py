"""A cache policy as one line of text, and back: what `--policies` takes and what tables are labelled with.

Terms are divided by commas, in any order: the kind of all tensors (`q4_0`), the kind of one (`k=q8_0`; `k_sem`, `k_geo`
and `v` likewise) or of one in one layer counted from 0 (`k@3=q8_0`), `residual=64`, `qblock=16` and `qblock_v=16`,
`first=1`, `last=1` and `edge=fp16` for the outer layers, `hadamard`. What is left out has the default of `CachePolicy`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bottleneck_core.errors import UserError
from bottleneck_core.memory.formats import FORMATS
from bottleneck_core.memory.policy import CachePolicy

_TENSORS = ("k", "k_sem", "k_geo", "v")
_TENSOR = "k_sem|k_geo|k|v"
_NUMBERS = {"residual": "residual", "qblock": "qblock", "first": "first_layers", "last": "last_layers"}
_FORMS = "q4_0 or k=q8_0,v=q4_0 or q4_0,residual=64,qblock=16,first=1,last=1,edge=fp16,hadamard"
_DEFAULT = CachePolicy()


def parse_policy(text: str) -> CachePolicy:
    """The policy that `text` spells; `parse_policy(policy_label(policy)) == policy`. Raises UserError."""
    fields: dict[str, Any] = {}
    layer_kinds: dict[int, dict[str, str]] = {}
    target: dict[Any, Any]
    found: Any
    for term in (part.strip() for part in text.lower().split(",")):
        name, equals, value = (part.strip() for part in term.partition("="))
        if not equals:
            rotated = term == "hadamard"
            target, key = fields, "hadamard" if rotated else "kind"
            found = rotated or _kind(term, text)
        elif name in _NUMBERS:
            target, key, found = fields, _NUMBERS[name], _number(value, term, text)
        elif name == "edge":
            target, key, found = fields, "edge_kind", _kind(value, text)
        elif name in _TENSORS:
            target, key, found = fields.setdefault("kinds", {}), name, _kind(value, text)
        elif match := re.fullmatch(rf"qblock_({_TENSOR})", name):
            target, key, found = fields.setdefault("qblocks", {}), match[1], _number(value, term, text)
        elif match := re.fullmatch(rf"({_TENSOR})@([0-9]+)", name):
            target, key, found = layer_kinds.setdefault(int(match[2]), {}), match[1], _kind(value, text)
        else:
            raise UserError(f"cache policy {text!r} has the unknown term {term!r}: write it as {_FORMS}")
        if key in target:
            raise UserError(f"cache policy {text!r} says {term!r} where that was said before: keep one")
        target[key] = found
    try:
        return CachePolicy(**fields, layer_kinds=layer_kinds)
    except ValueError as error:
        raise UserError(f"cache policy {text!r} is not possible: {error}") from None


def policy_label(policy: CachePolicy) -> str:
    """The policy as text: `policy_label(parse_policy(text)) == text` for text in this order without defaults.

    The order is kind, tensors, residual, qblock, first, last, edge, single layers, hadamard. `edge` is written wherever
    there are outer layers, the kind unless it is fp16 beside kinds by tensor. Raises ValueError for a tensor that has
    no spelling.
    """
    terms = [] if policy.kinds and policy.kind == _DEFAULT.kind else [policy.kind]
    terms += [f"{tensor}={kind}" for tensor, kind in _ordered(policy.kinds)]
    for name, field in (("residual", "residual"), ("qblock", "qblock")):
        if getattr(policy, field) != getattr(_DEFAULT, field):
            terms.append(f"{name}={getattr(policy, field)}")
    terms += [f"qblock_{tensor}={block}" for tensor, block in _ordered(policy.qblocks)]
    terms += [f"{name}={count}" for name in ("first", "last") if (count := getattr(policy, _NUMBERS[name]))]
    if policy.first_layers or policy.last_layers or policy.edge_kind != _DEFAULT.edge_kind:
        terms.append(f"edge={policy.edge_kind}")
    for layer, kinds in sorted(policy.layer_kinds.items()):
        terms += [f"{tensor}@{layer}={kind}" for tensor, kind in _ordered(kinds)]
    return ",".join([*terms, "hadamard"] if policy.hadamard else terms)


def _ordered(by_tensor: Mapping[str, Any]) -> list[tuple[str, Any]]:
    if unknown := set(by_tensor) - set(_TENSORS):
        raise ValueError(f"a policy's text knows the tensors {', '.join(_TENSORS)}, not {min(unknown)}")
    return [(tensor, by_tensor[tensor]) for tensor in _TENSORS if tensor in by_tensor]


def _kind(name: str, text: str) -> str:
    if name not in FORMATS:
        what = f"the unknown kind {name!r}" if name else "a term without a kind"
        raise UserError(f"cache policy {text!r} has {what}: choose one of {', '.join(FORMATS)}, as {_FORMS}")
    return name


def _number(value: str, term: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise UserError(f"cache policy {text!r} needs a whole number in {term!r}: write it as {_FORMS}")
    return int(value)
