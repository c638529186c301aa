"""The sums behind a size, one a line, so that a person can check them with a pocket calculator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bottleneck_core.memory.engines import Reserved
from bottleneck_core.memory.stored import Stored, up

if TYPE_CHECKING:
    from bottleneck_core.memory.kv import Cache


def derive(
    cache: Cache, context: int, batch: int, totals: Mapping[str, int], engines: Mapping[str, Reserved]
) -> tuple[str, ...]:
    """Lines that lead from the widths to the totals; every number of a product stands in its line."""
    lines = list(cache.model.assumed)
    lines += [line for part in cache.rows for line in _tensor(part, context, batch, cache.page)]
    for part in cache.states:
        lines.append(
            f"{part.name}: {_layers(part)} x {part.width:,} values x {part.format.bits // 8} B"
            f" ({part.format.name}) x batch {batch} = {part.bytes(1, batch):,} B, whatever the context"
        )
    sizes = [part.paged(context, batch, cache.page) for part in (*cache.rows, *cache.states)]
    lines.append(f"logical: {' + '.join(f'{size:,}' for size in sizes)} = {totals['logical']:,} B")
    lines += [f"reserved by {name}: {engine.rule} = {engine.bytes:,} B" for name, engine in engines.items()]
    held = up(context, cache.page)
    whole = [*(part.product(held, context) for part in cache.rows), *(part.product(1) for part in cache.states)]
    lines.append(f"conservative: {_times(whole, batch)} = {totals['conservative']:,} B")
    first = [part.product(up(1, cache.page), 1) for part in cache.rows]
    lines.append(f"first token: {' + '.join(first) or '0'} = {_added(cache, 0):,} B")
    more = [text for part in cache.rows if (text := _one_more(part, context, cache.page))]
    lines.append(f"one more token here: {' + '.join(more) or '0'} = {_added(cache, context):,} B")
    baseline = cache.baseline(context, batch)
    parts = [part.product(part.tokens(context)) for part in (*cache.baseline_rows, *cache.states)]
    lines.append(f"fp16 baseline: {_times(parts, batch)} = {baseline:,} B")
    lines.append(f"compression: {baseline:,} / {totals['logical']:,} = {baseline / totals['logical']:.4f}")
    return tuple(lines)


def _times(products: Sequence[str], batch: int) -> str:
    return f"({' + '.join(products)}) x batch {batch}"


def _added(cache: Cache, context: int) -> int:
    """Bytes that one more token of one request adds."""
    return cache.bytes(context + 1, 1) - (cache.bytes(context, 1) if context else cache.fixed)


def _one_more(part: Stored, context: int, page: int) -> str:
    """What a tensor takes more at one more token; nothing behind a full window or within a page."""
    now, then = part.tokens(context), part.tokens(context + 1)
    rows, newest = up(then, page) - up(now, page), min(then, part.residual) - min(now, part.residual)
    terms = [f"{part.layers} x {rows:,} x {part.row_bytes:,}"] if rows else []
    return " + ".join([*terms, *([f"{part.layers} x {newest:,} x {part.width:,} x 2"] if newest else [])])


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
        f"{label}: {_layers(part)} x {held:,} tokens x {part.row_bytes:,} B x batch {batch}"
        f" = {part.bytes(held, batch, 0):,} B"
    )
    if ring:
        newest = min(tokens, part.residual)
        lines.append(
            f"{label}: residual {_layers(part)} x {newest:,} tokens x {part.width:,} values x 2 B x batch {batch}"
            f" = {ring:,} B"
        )
    return lines


def _layers(part: Stored) -> str:
    return f"{part.layers} layer" + ("" if part.layers == 1 else "s")


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
