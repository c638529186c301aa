"""The sums behind a size, one a line, so that a person can check them with a pocket calculator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bottleneck_core.memory.engines import Reserved
from bottleneck_core.memory.stored import Stored, up

if TYPE_CHECKING:
    from bottleneck_core.memory.kv import Cache


def derive(
    cache: Cache, context: int, batch: int, totals: Mapping[str, int], engines: Mapping[str, Reserved]
) -> tuple[str, ...]:
    """Lines that lead from the widths to the totals; every number of a product stands in its line."""
    lines = [line for part in cache.rows for line in _tensor(part, context, batch, cache.page)]
    for part in cache.states:
        lines.append(
            f"{part.name}: {part.layers} layers x {part.width:,} values x {part.format.bits // 8} B"
            f" ({part.format.name}) x batch {batch} = {part.bytes(1, batch):,} B, whatever the context"
        )
    sizes = [part.paged(context, batch, cache.page) for part in (*cache.rows, *cache.states)]
    lines.append(f"logical: {' + '.join(f'{size:,}' for size in sizes)} = {totals['logical']:,} B")
    lines += [f"reserved by {name}: {engine.rule} = {engine.bytes:,} B" for name, engine in engines.items()]
    lines.append(f"conservative: {context:,} tokens in every attention layer = {totals['conservative']:,} B")
    baseline = cache.baseline(context, batch)
    parts = [
        f"{part.layers} x {part.tokens(context):,} x {part.row_bytes:,}"
        for part in (*cache.baseline_rows, *cache.states)
    ]
    lines.append(f"fp16 baseline: ({' + '.join(parts)}) x batch {batch} = {baseline:,} B")
    lines.append(f"compression: {baseline:,} / {totals['logical']:,} = {baseline / totals['logical']:.4f}")
    return tuple(lines)


def _tensor(part: Stored, context: int, batch: int, page: int) -> list[str]:
    tokens, label = part.tokens(context), part.name
    if part.limit is not None:
        label += f" ({part.kind}, {part.limit:,} tokens)"
    held = up(tokens, page)
    lines = [f"{label}: a row of {_row(part)} = {part.row_bytes:,} B"]
    if part.limit is not None:
        lines.append(f"{label}: keeps min({context:,}, {part.limit:,}) = {tokens:,} tokens")
    if held != tokens:
        lines.append(f"{label}: {tokens:,} tokens in pages of {page:,} are {held:,}")
    ring = part.bytes(0, batch, tokens)
    lines.append(
        f"{label}: {part.layers} layers x {held:,} tokens x {part.row_bytes:,} B x batch {batch}"
        f" = {part.bytes(held, batch, 0):,} B"
    )
    if ring:
        newest = min(tokens, part.residual)
        lines.append(
            f"{label}: residual {part.layers} layers x {newest:,} tokens x {part.width:,} values x 2 B x batch {batch}"
            f" = {ring:,} B"
        )
    return lines


def _row(part: Stored) -> str:
    fmt = part.format
    if not fmt.meta_bytes:
        return f"{part.width:,} values x {fmt.bits // 8} B ({fmt.name})"
    blocks, codes = -(-part.width // part.qblock), -(-part.qblock * fmt.bits // 8)
    several = "" if blocks == 1 else "s"
    return (
        f"{part.width:,} values in {blocks:,} block{several} of {part.qblock} x ({codes} B codes + {fmt.meta_bytes} B"
        f" scale) ({fmt.name})"
    )
