"""What inference engines set aside for a cache, by their own rules: more than the tokens need.

llama.cpp (src/llama-context.cpp, llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp; one stream a request, full-size
window cache off): the context is padded to 256 cells; windowed and chunked layers get min(context, window + 512) cells,
padded to 256, 512 being the default micro-batch; states are fp32.

vLLM (v1/kv_cache_interface.py, v1/core/kv_cache_utils.py, model_executor/models/config.py): blocks of 16 tokens. A
window holds ceil(min(window - 1 + 2048, context) / 16) + 1 blocks and a chunk ceil(min(chunk + 2048, context) / 16),
2048 being the scheduler's default tokens a step. With several kinds of layers, all are put into groups of equal size
(that of the rarest kind, or of the commonest where it is less than 1.5 times that), which pads. Beside recurrent layers
a block is stretched in steps of 16 tokens until it holds a layer's state, and each such layer takes one block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck_core.memory.layers import LayerCache, ModelLayers
from bottleneck_core.memory.stored import Stored, up

LLAMA_PAD, LLAMA_UBATCH = 256, 512
VLLM_BLOCK, VLLM_STEP_TOKENS = 16, 2048


@dataclass(frozen=True, kw_only=True)
class Reserved:
    """What one engine sets aside, in bytes, and how it comes to that."""

    bytes: int
    rule: str


def reserved(
    model: ModelLayers, rows: Sequence[Stored], states: Sequence[Stored], context: int, batch: int, page: int
) -> dict[str, Reserved]:
    """By engine. Our own models run in our own cache, which grows by pages of `page` tokens (1: the model's own)."""
    if model.page is not None:
        own = page if page > 1 else model.page
        size = sum(part.paged(context, batch, own) for part in (*rows, *states))
        return {"bottleneck_core": Reserved(bytes=size, rule=f"pages of {own:,} tokens: {up(context, own):,} tokens")}
    return {
        "llama.cpp": llama_cpp(rows, states, context, batch),
        "vllm": vllm(model.layers, rows, states, context, batch),
    }


def llama_cpp(rows: Sequence[Stored], states: Sequence[Stored], context: int, batch: int) -> Reserved:
    """What llama.cpp allocates for `batch` requests of `context` tokens each."""
    full = up(context, LLAMA_PAD)
    cells = {
        part.limit: full if part.limit is None else up(min(full, part.limit + LLAMA_UBATCH), LLAMA_PAD) for part in rows
    }
    size = sum(part.bytes(cells[part.limit], batch, part.tokens(context)) for part in rows)
    size += sum(part.layers * part.width * 4 * batch for part in states)
    held = [f"{count:,}" + ("" if limit is None else f" behind a limit of {limit:,}") for limit, count in cells.items()]
    return Reserved(bytes=size, rule="; ".join([f"cells a layer: {', '.join(held) or 'none'}", "states in fp32"]))


def vllm(
    layers: Sequence[LayerCache], rows: Sequence[Stored], states: Sequence[Stored], context: int, batch: int
) -> Reserved:
    """What vLLM's blocks take for `batch` requests of `context` tokens each.

    Where kinds of layers have rows of different size the groups are not padded: each layer counts its own blocks.
    """
    residual = sum(part.bytes(0, batch, part.tokens(context)) for part in rows)
    recurrent = sum(1 for layer in layers if layer.states)
    state_bytes = sum(part.layers * part.row_bytes for part in states)
    kinds = _attention_kinds(layers)
    if not kinds:
        return Reserved(bytes=state_bytes * batch, rule="states alone")
    row_bytes = {  # of a token, over all layers of a kind
        kind: sum(part.layers * part.row_bytes for part in rows if (part.kind, part.limit) == kind) for kind in kinds
    }
    widest = max(-(-row_bytes[kind] // count) for kind, count in kinds.items())
    block = VLLM_BLOCK
    if recurrent:
        block = max(block, up(-(-state_bytes // (recurrent * widest)), VLLM_BLOCK))
    alike = len({row_bytes[kind] / count for kind, count in kinds.items()}) == 1
    group = _group_size([*kinds.values(), *([recurrent] if recurrent else [])]) if alike else 1
    size = up(recurrent, group) * block * widest
    held = [f"{up(recurrent, group)} recurrent layers x 1"] if recurrent else []
    for kind, count in kinds.items():
        blocks = _blocks(kind, context, block)
        size += up(count, group) * blocks * block * row_bytes[kind] // count
        held.append(f"{up(count, group)} {kind[0]} layers x {blocks:,}")
    return Reserved(
        bytes=size * batch + residual, rule=f"blocks of {block:,} tokens in layers padded to groups: {', '.join(held)}"
    )


def _attention_kinds(layers: Sequence[LayerCache]) -> dict[tuple[str, int | None], int]:
    """Layers with rows, by kind and window; the attention of a hybrid layer is full."""
    counts: dict[tuple[str, int | None], int] = {}
    for layer in layers:
        if layer.rows:
            kind = ("full" if layer.kind == "hybrid" else layer.kind, layer.limit)
            counts[kind] = counts.get(kind, 0) + 1
    return counts


def _group_size(counts: Sequence[int]) -> int:
    return max(counts) if max(counts) < 1.5 * min(counts) else min(counts)


def _blocks(kind: tuple[str, int | None], context: int, block: int) -> int:
    name, limit = kind
    if limit is None:
        return -(-context // block)
    if name == "chunked":
        return -(-min(limit + VLLM_STEP_TOKENS, context) // block)
    return -(-min(limit - 1 + VLLM_STEP_TOKENS, context) // block) + 1
