"""Families whose layers are attention throughout: full, sliding, chunked, or with one latent row a token.

Each rule is that of the family's configuration class in huggingface/transformers,
src/transformers/models/<family>/configuration_<family>.py, unless a line says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bottleneck_core.memory.hf.fields import Fields, divided
from bottleneck_core.memory.layers import LayerCache, ModelLayers, Row

Pattern = Callable[[Fields, int], list[str]]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a family spells its shape.

    `explicit`: head_dim is a field of its own and not derived. `kv_default`: without num_key_value_heads there are as
    many as query heads. `pattern`: the layer types where `layer_types` is absent. `window`: the field of the limit.
    `switch`: the field without which no layer slides, whatever `layer_types` says.
    """

    explicit: bool = False
    kv_default: bool = False
    pattern: Pattern = lambda fields, layers: ["full_attention"] * layers
    window: str = "sliding_window"
    switch: str | None = None


def every(interval: int, field: str | None = None) -> Pattern:
    """Every `interval`-th layer full, the others sliding; `field` may give another interval."""

    def pattern(fields: Fields, layers: int) -> list[str]:
        step = (field and fields.optional(field)) or interval
        return ["sliding_attention" if (i + 1) % step else "full_attention" for i in range(layers)]

    return pattern


def all_sliding(fields: Fields, layers: int) -> list[str]:
    """A window on every layer where there is one (Phi-3, Starcoder 2, Mixtral: absent means none)."""
    return ["full_attention" if fields.optional("sliding_window") is None else "sliding_attention"] * layers


def stated_sliding(fields: Fields, layers: int) -> list[str]:
    """As `all_sliding`, but null has to be said: Mistral's class has a window of 4096 by default."""
    return ["full_attention" if fields.known("sliding_window") is None else "sliding_attention"] * layers


def qwen2_pattern(fields: Fields, layers: int) -> list[str]:
    """Layers from max_window_layers on slide, and only with use_sliding_window."""
    if not fields.flag("use_sliding_window") or fields.known("sliding_window") is None:
        return ["full_attention"] * layers
    if "max_window_layers" not in fields.config:
        raise ValueError(f"the {fields.model_type} configuration lacks max_window_layers: use_sliding_window needs it")
    first = fields.config["max_window_layers"]
    return ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]


def qwen3_moe_pattern(fields: Fields, layers: int) -> list[str]:
    """modeling_qwen3_moe.py gives the window to every layer, whatever max_window_layers says."""
    sliding = fields.flag("use_sliding_window") and fields.known("sliding_window") is not None
    return ["sliding_attention" if sliding else "full_attention"] * layers


def llama4_pattern(fields: Fields, layers: int) -> list[str]:
    """Layers with rotary embedding attend within chunks, every no_rope_layer_interval-th has none and sees all."""
    if fields.known("attention_chunk_size") is None:
        return ["full_attention"] * layers
    listed = fields.config.get("no_rope_layers")  # 1: rotary embedding
    if listed:
        if len(listed) != layers:
            raise ValueError(f"no_rope_layers of the {fields.model_type} configuration must list all {layers} layers")
        return ["chunked_attention" if rotary else "full_attention" for rotary in listed]
    interval = fields.one("no_rope_layer_interval")
    return ["chunked_attention" if (i + 1) % interval else "full_attention" for i in range(layers)]


FAMILIES: dict[str, Family] = {
    "llama": Family(kv_default=True),
    "mistral": Family(pattern=stated_sliding),
    "mixtral": Family(pattern=all_sliding),
    "ministral": Family(explicit=True, pattern=stated_sliding),
    "ministral3": Family(explicit=True, pattern=stated_sliding),
    "phi": Family(kv_default=True),
    "phi3": Family(kv_default=True, pattern=all_sliding),
    "phimoe": Family(pattern=all_sliding),
    "starcoder2": Family(pattern=all_sliding),
    "qwen2": Family(pattern=qwen2_pattern, switch="use_sliding_window"),
    "qwen2_moe": Family(pattern=qwen2_pattern, switch="use_sliding_window"),
    "qwen2_vl_text": Family(pattern=qwen2_pattern, switch="use_sliding_window"),
    "qwen2_5_vl_text": Family(pattern=qwen2_pattern, switch="use_sliding_window"),
    "qwen3": Family(explicit=True, pattern=qwen2_pattern, switch="use_sliding_window"),
    "qwen3_moe": Family(explicit=True, pattern=qwen3_moe_pattern, switch="use_sliding_window"),
    "qwen3_vl_text": Family(explicit=True),
    "qwen3_vl_moe_text": Family(explicit=True),
    "gemma": Family(explicit=True),
    "gemma2": Family(explicit=True, pattern=every(2)),
    "gemma3_text": Family(explicit=True, pattern=every(6, "sliding_window_pattern")),
    "gpt_oss": Family(explicit=True, pattern=every(2)),
    "llama4_text": Family(explicit=True, pattern=llama4_pattern, window="attention_chunk_size"),
    "cohere": Family(kv_default=True),
    "cohere2": Family(pattern=every(4, "sliding_window_pattern")),
    "olmo": Family(kv_default=True),
    "olmo2": Family(kv_default=True),
    "olmo3": Family(kv_default=True, pattern=every(4)),
    "olmoe": Family(kv_default=True),
    "stablelm": Family(),
    "granite": Family(kv_default=True),
    "granitemoe": Family(kv_default=True),
    "glm4": Family(explicit=True),
    "glm4_moe": Family(explicit=True),
    "minimax_m2": Family(explicit=True),
    "smollm3": Family(kv_default=True),
    "opt": Family(kv_default=True),
    "gpt_neox": Family(kv_default=True),
}


def read_family(fields: Fields) -> ModelLayers:
    """A family of `FAMILIES`: `layer_types` decides where it is present."""
    family = FAMILIES[fields.model_type]
    needed = ["num_hidden_layers", "num_attention_heads"]
    if not family.kv_default and "num_key_value_heads" not in fields.config:  # null: as many as query heads
        needed.append("num_key_value_heads")
    layers, heads, *_ = fields.need(*needed, *(["head_dim"] if family.explicit else []))
    kv_heads = fields.optional("num_key_value_heads")
    types = fields.names("layer_types", layers) or family.pattern(fields, layers)
    if family.switch and not fields.flag(family.switch):
        types = ["full_attention"] * layers
    rows = key_value(kv_heads or heads, fields.head_dim(explicit=family.explicit))
    return ModelLayers(
        family=fields.model_type, layers=tuple(attention_layer(fields, kind, rows, family.window) for kind in types)
    )


def attention_layer(fields: Fields, kind: str, rows: tuple[Row, ...], window: str = "sliding_window") -> LayerCache:
    """One layer of a `layer_types` word. Raises ValueError for words that name no attention known here."""
    if kind in ("full_attention", "attention", "global"):
        return LayerCache(kind="full", rows=rows)
    if kind == "sliding_attention":
        return LayerCache(kind="sliding", rows=rows, limit=fields.one(window))
    if kind == "chunked_attention":
        return LayerCache(kind="chunked", rows=rows, limit=fields.one("attention_chunk_size"))
    raise ValueError(f"unknown layer type {kind} of the {fields.model_type} configuration: its cache is not known")


def key_value(kv_heads: int, head_dim: int) -> tuple[Row, ...]:
    return (Row.of("k", kv_heads, head_dim), Row.of("v", kv_heads, head_dim))


def read_gpt2(fields: Fields) -> ModelLayers:
    """GPT-2 and GPT-J: n_layer, n_head, n_embd, as many key heads as query heads."""
    layers, heads, width = fields.need("n_layer", "n_head", "n_embd")
    return _full(fields, layers, heads, divided(fields.model_type, width, heads))


def read_gpt_bigcode(fields: Fields) -> ModelLayers:
    """Starcoder 1: GPT-2's names; one key head with multi_query, which has to be said."""
    layers, heads, width = fields.need("n_layer", "n_head", "n_embd")
    kv_heads = 1 if _said(fields, "multi_query") else heads
    return _full(fields, layers, kv_heads, divided(fields.model_type, width, heads))


def read_falcon(fields: Fields) -> ModelLayers:
    """num_kv_heads counts in the new architecture alone; in the old, multi_query means one (FalconConfig,
    modeling_falcon.py: FalconAttention.num_kv_heads)."""
    layers, heads, hidden = fields.need("num_hidden_layers", "num_attention_heads", "hidden_size")
    if fields.flag("new_decoder_architecture"):
        kv_heads = fields.optional("num_kv_heads") or fields.optional("n_head_kv") or heads
    else:
        kv_heads = 1 if _said(fields, "multi_query") else heads
    return _full(fields, layers, kv_heads, divided(fields.model_type, hidden, heads))


def read_latent(fields: Fields) -> ModelLayers:
    """Multi-head latent attention (DeepSeek V2 and V3, Kimi K2): the latent and the rotated part, one copy a token.

    modeling_deepseek_v3.py: kv_a_proj_with_mqa is kv_lora_rank + qk_rope_head_dim wide. vLLM and llama.cpp cache that;
    transformers' own eager path caches the expanded heads, which no engine does.
    """
    layers, rank, rope = fields.need("num_hidden_layers", "kv_lora_rank", "qk_rope_head_dim")
    row = Row.of("latent", 1, rank + rope, setting="k")
    return ModelLayers(family=fields.model_type, layers=(LayerCache(kind="latent", rows=(row,)),) * layers)


def read_shared(fields: Fields) -> ModelLayers:
    """Gemma 3n and Gemma 4: the last num_kv_shared_layers read the cache of an earlier layer and have none.

    Gemma 4's full layers have their own head dim (global_head_dim) and, with attention_k_eq_v, their own number of
    heads (num_global_key_value_heads); K and V are cached apart all the same: one is normed and rotated.
    """
    layers, kv_heads = fields.need("num_hidden_layers", "num_key_value_heads")
    head_dim, interval = fields.one("head_dim"), {"gemma3n_text": 5}.get(fields.model_type, 6)
    types = fields.names("layer_types", layers) or every(interval)(fields, layers)
    if "num_kv_shared_layers" not in fields.config:
        raise ValueError(f"the {fields.model_type} configuration lacks num_kv_shared_layers: give it, 0 where none are")
    owners = layers - (fields.config["num_kv_shared_layers"] or 0)
    rows: dict[str, tuple[Row, ...]] = {"sliding_attention": key_value(kv_heads, head_dim)}
    rows["full_attention"] = rows["sliding_attention"]
    if fields.model_type == "gemma4_text":
        types[-1] = "full_attention"  # Gemma4TextConfig forces it
        own_heads = fields.optional("num_global_key_value_heads") if fields.flag("attention_k_eq_v") else None
        rows["full_attention"] = key_value(own_heads or kv_heads, fields.one("global_head_dim"))
    return ModelLayers(
        family=fields.model_type,
        layers=tuple(
            attention_layer(fields, kind, rows.get(kind, ())) if i < owners else LayerCache(kind="shared")
            for i, kind in enumerate(types)
        ),
    )


def _full(fields: Fields, layers: int, kv_heads: int, head_dim: int) -> ModelLayers:
    layer = LayerCache(kind="full", rows=key_value(kv_heads, head_dim))
    return ModelLayers(family=fields.model_type, layers=(layer,) * layers)


def _said(fields: Fields, name: str) -> bool:
    if name not in fields.config:
        raise ValueError(f"the {fields.model_type} configuration lacks {name}: give it, true or false")
    return fields.flag(name)
