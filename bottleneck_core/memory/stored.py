"""How the rows of a model are stored under a policy: layers that store a tensor alike make one `Stored`.

bytes = layers x (tokens x row bytes + residual tokens x width x 2 B) x batch; states have one row and no residual.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bottleneck_core.memory.formats import FORMATS, Format
from bottleneck_core.memory.layers import LayerCache, LayerKind, Row, StateKind
from bottleneck_core.memory.policy import CachePolicy


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A cached tensor over the `layers` that store it alike; `limit` is the most tokens they keep."""

    name: str
    layers: int
    format: Format
    qblock: int
    width: int
    row_bytes: int
    kind: LayerKind
    limit: int | None = None
    residual: int = 0
    state: bool = False

    def tokens(self, context: int) -> int:
        """Tokens kept of `context`; a state is one row."""
        if self.state:
            return 1
        return context if self.limit is None else min(context, self.limit)

    def bytes(self, tokens: int, batch: int, residual_tokens: int | None = None) -> int:
        """Bytes of `tokens` stored rows; the residual ring holds the newest of `residual_tokens`, never paged."""
        newest = min(tokens if residual_tokens is None else residual_tokens, self.residual)
        return self.layers * (tokens * self.row_bytes + newest * self.width * 2) * batch

    def product(self, tokens: int, residual_tokens: int | None = None) -> str:
        """The sum that `bytes` is for one request, as text."""
        newest = min(tokens if residual_tokens is None else residual_tokens, self.residual)
        rows = f"{self.layers} x {tokens:,} x {self.row_bytes:,}"
        return rows + (f" + {self.layers} x {newest:,} x {self.width:,} x 2" if newest else "")

    def paged(self, context: int, batch: int, page: int) -> int:
        tokens = self.tokens(context)
        return self.bytes(tokens if self.state else up(tokens, page), batch, tokens)


def rows_by_layer(layers: Sequence[LayerCache], policy: CachePolicy) -> list[list[Stored]]:
    """What grows with the context, layer by layer."""
    kinds = [[policy.layer_kind(row.setting, i, len(layers)) for row in layer.rows] for i, layer in enumerate(layers)]
    return [
        [_row(row, layer, FORMATS[kind], policy) for row, kind in zip(layer.rows, of_layer, strict=True)]
        for layer, of_layer in zip(layers, kinds, strict=True)
    ]


def states_by_layer(layers: Sequence[LayerCache], state_kind: StateKind) -> list[list[Stored]]:
    """What is fixed per request, layer by layer."""
    return [
        [_state(state.name, state.values, FORMATS[state.kind or state_kind], layer.kind) for state in layer.states]
        for layer in layers
    ]


def merged(by_layer: Iterable[Iterable[Stored]]) -> list[Stored]:
    """Layers that store a tensor alike as one, in order of appearance."""
    counts: dict[Stored, int] = {}
    for parts in by_layer:
        for part in parts:
            counts[part] = counts.get(part, 0) + 1
    return [replace(part, layers=count) for part, count in counts.items()]


def up(tokens: int, multiple: int) -> int:
    """`tokens` rounded up to a multiple."""
    return -(-tokens // multiple) * multiple


def _row(row: Row, layer: LayerCache, fmt: Format, policy: CachePolicy) -> Stored:
    qblock = row.head_dim if fmt.per_head else policy.qblock_of(row.setting)
    return Stored(
        name=row.name,
        layers=1,
        format=fmt,
        qblock=fmt.block(row.width, qblock),
        width=row.width,
        row_bytes=fmt.row_bytes(row.width, qblock),
        kind="full" if layer.kind == "hybrid" else layer.kind,
        limit=layer.limit,
        residual=policy.residual if fmt.quantised else 0,
    )


def _state(name: str, values: int, fmt: Format, kind: LayerKind) -> Stored:
    width = fmt.row_bytes(values, 1)
    return Stored(name=name, layers=1, format=fmt, qblock=1, width=values, row_bytes=width, kind=kind, state=True)
