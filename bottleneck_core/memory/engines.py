"""What inference engines set aside for a cache, by their own rules: more than the tokens need.

llama.cpp, one stream a request and the full-size window cache off: the context is padded to 256 cells
(src/llama-context.cpp); windowed and chunked layers get min(context, window + 512) cells, padded to 256, 512 being the
default micro-batch (src/llama-kv-cache-iswa.cpp), in the families whose window it knows (src/models/*.cpp, swa_type);
in others, Mistral and Phi-3 among them, every layer holds the context. States are fp32 (src/llama-model.cpp, which
hands GGML_TYPE_F32 to src/llama-memory-recurrent.cpp).

vLLM: blocks of 16 tokens; MLA and FlashInfer backends may ask for larger ones. A window holds
ceil(min(window - 1 + 2048, context) / 16) + 1 blocks and a chunk ceil(min(chunk + 2048, context) / 16), 2048 being the
scheduler's default tokens a step, which servers on large GPUs raise (v1/kv_cache_interface.py). With several kinds of
layers, all are put into groups of equal size (that of the rarest kind, or of the commonest where it is less than 1.5
times that), which pads (v1/core/kv_cache_utils.py). Beside recurrent layers a block is stretched in steps of 16 tokens
until it holds a layer's state, and each such layer takes one block (model_executor/models/config.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bottleneck_core.memory.layers import LayerCache, ModelLayers
from bottleneck_core.memory.stored import Stored, up

LLAMA_PAD, LLAMA_UBATCH = 256, 512
VLLM_BLOCK, VLLM_STEP_TOKENS = 16, 2048
LLAMA_WINDOWS = frozenset(
    ("gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "gpt_oss", "cohere2", "olmo3", "llama4_text")
)


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
        products = [part.product(up(part.tokens(context), own), part.tokens(context)) for part in rows]
        rule = f"pages of {own:,} tokens: ({' + '.join(products)}) x batch {batch}"
        return {"bottleneck_core": Reserved(bytes=size, rule=rule)}
    return {
        "llama.cpp": llama_cpp(rows, states, context, batch, windows=model.family in LLAMA_WINDOWS),
        "vllm": vllm(model.layers, rows, states, context, batch),
    }


def llama_cpp(
    rows: Sequence[Stored], states: Sequence[Stored], context: int, batch: int, windows: bool = True
) -> Reserved:
    """What llama.cpp allocates for `batch` requests of `context` tokens each; `windows`: it knows the family's."""
    full = up(context, LLAMA_PAD)
    cells = {
        part.limit: up(min(full, part.limit + LLAMA_UBATCH), LLAMA_PAD) if windows and part.limit else full
        for part in rows
    }
    size = sum(part.bytes(cells[part.limit], batch, part.tokens(context)) for part in rows)
    size += sum(part.layers * part.width * 4 * batch for part in states)
    products = [part.product(cells[part.limit], part.tokens(context)) for part in rows]
    products += [f"{part.layers} x {part.width:,} x 4" for part in states]
    return Reserved(bytes=size, rule=f"cells in steps of 256: ({' + '.join(products)}) x batch {batch}")


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
        return Reserved(bytes=state_bytes * batch, rule=f"states alone: {state_bytes:,} x batch {batch}")
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
    products = [f"{up(recurrent, group)} x {block:,} x {widest:,}"] if recurrent else []
    for kind, count in kinds.items():
        tokens = _blocks(kind, context, block) * block
        size += up(count, group) * tokens * row_bytes[kind] // count
        row, rest = divmod(row_bytes[kind], count)
        of_row = f"{row_bytes[kind]:,} / {count}" if rest else f"{row:,}"  # a layer's mean where they differ
        products.append(f"{up(count, group)} x {tokens:,} x {of_row}")
    rule = f"blocks of {block:,} tokens, layers in groups of {group}: ({' + '.join(products)}) x batch {batch}"
    return Reserved(bytes=size * batch + residual, rule=rule + (f" + residual {residual:,}" if residual else ""))


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
