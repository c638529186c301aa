"""Families whose layers are attention throughout: full, sliding, chunked, or with one latent row a token.

Each rule is that of the family's configuration class in transformers 5.23.0,
src/transformers/models/<family>/configuration_<family>.py, unless a line says otherwise. kimi_k2 is no class there: its
checkpoints carry DeepSeek V3's under that name.
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

    `explicit`: head_dim is a field of its own and not derived. `pattern`: the layer types where `layer_types` is
    absent. `window`: the field of the limit. `switch`: the field without which no layer slides, whatever `layer_types`
    says.
    """

    explicit: bool = False
    pattern: Pattern = lambda fields, layers: ["full_attention"] * layers
    window: str = "sliding_window"
    switch: str | None = None


def every(interval: int | str) -> Pattern:
    """Every `interval`-th layer full, the others sliding; a name is the field that says it."""

    def pattern(fields: Fields, layers: int) -> list[str]:
        step = fields.one(interval) if isinstance(interval, str) else interval
        return ["sliding_attention" if (i + 1) % step else "full_attention" for i in range(layers)]

    return pattern


def windowed(fields: Fields, layers: int) -> list[str]:
    """A window on every layer where there is one; null means none (Mistral 7B v0.3, Mixtral)."""
    return ["full_attention" if fields.optional("sliding_window") is None else "sliding_attention"] * layers


def switched(fields: Fields) -> bool:
    """Whether use_sliding_window is said and there is a window."""
    return fields.flag("use_sliding_window") and fields.optional("sliding_window") is not None


def qwen2_pattern(fields: Fields, layers: int) -> list[str]:
    """Layers from max_window_layers on slide, and only with use_sliding_window."""
    first = fields.count("max_window_layers") if switched(fields) else layers
    return ["sliding_attention" if i >= first else "full_attention" for i in range(layers)]


def qwen2_moe_pattern(fields: Fields, layers: int) -> list[str]:
    """Every other layer below max_window_layers slides, from the first, and only with use_sliding_window."""
    last = fields.count("max_window_layers") if switched(fields) else 0
    return ["sliding_attention" if i % 2 == 0 and i < last else "full_attention" for i in range(layers)]


def qwen3_moe_pattern(fields: Fields, layers: int) -> list[str]:
    """modeling_qwen3_moe.py gives the window to every layer, whatever max_window_layers says."""
    return ["sliding_attention" if switched(fields) else "full_attention"] * layers


def smollm3_pattern(fields: Fields, layers: int) -> list[str]:
    """With use_sliding_window the layers without rotary embedding slide."""
    if not switched(fields):
        return ["full_attention"] * layers
    return ["full_attention" if rotary else "sliding_attention" for rotary in rotary_layers(fields, layers)]


def llama4_pattern(fields: Fields, layers: int) -> list[str]:
    """Layers with rotary embedding attend within chunks, those without see all."""
    if fields.optional("attention_chunk_size") is None:
        return ["full_attention"] * layers
    return ["chunked_attention" if rotary else "full_attention" for rotary in rotary_layers(fields, layers)]


def rotary_layers(fields: Fields, layers: int) -> list[bool]:
    """no_rope_layers lists them (1: rotary embedding); else every no_rope_layer_interval-th layer has none."""
    listed = fields.config.get("no_rope_layers")
    if not listed:
        interval = fields.one("no_rope_layer_interval")
        return [(i + 1) % interval != 0 for i in range(layers)]
    if not isinstance(listed, (list, tuple)) or len(listed) != layers:
        raise ValueError(f"no_rope_layers of the {fields.model_type} configuration must list all {layers} layers")
    return [bool(rotary) for rotary in listed]


FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "mistral": Family(pattern=windowed),
    "mixtral": Family(pattern=windowed),
    "ministral": Family(explicit=True, pattern=windowed),
    "ministral3": Family(explicit=True, pattern=windowed),
    "phi": Family(),
    "phi3": Family(pattern=windowed),
    "phimoe": Family(pattern=windowed),
    "starcoder2": Family(pattern=windowed),
    "qwen2": Family(pattern=qwen2_pattern, switch="use_sliding_window"),
    "qwen2_moe": Family(pattern=qwen2_moe_pattern, switch="use_sliding_window"),
    "qwen2_vl_text": Family(pattern=qwen2_pattern, switch="use_sliding_window"),
    "qwen2_5_vl_text": Family(pattern=qwen2_pattern, switch="use_sliding_window"),
    "qwen3": Family(explicit=True, pattern=qwen2_pattern, switch="use_sliding_window"),
    "qwen3_moe": Family(explicit=True, pattern=qwen3_moe_pattern, switch="use_sliding_window"),
    "qwen3_vl_text": Family(explicit=True),
    "qwen3_vl_moe_text": Family(),
    "gemma": Family(explicit=True),
    "gemma2": Family(explicit=True, pattern=every(2)),
    "gemma3_text": Family(explicit=True, pattern=every("sliding_window_pattern")),
    "gpt_oss": Family(explicit=True, pattern=every(2)),
    "llama4_text": Family(explicit=True, pattern=llama4_pattern, window="attention_chunk_size"),
    "cohere": Family(),
    "cohere2": Family(pattern=every("sliding_window_pattern")),
    "olmo": Family(),
    "olmo2": Family(),
    "olmo3": Family(pattern=every(4)),
    "olmoe": Family(),
    "stablelm": Family(),
    "granite": Family(),
    "granitemoe": Family(),
    "glm4": Family(explicit=True),
    "glm4_moe": Family(explicit=True),
    "minimax_m2": Family(explicit=True),
    "smollm3": Family(pattern=smollm3_pattern, switch="use_sliding_window"),
    "opt": Family(),
    "gpt_neox": Family(),
}


def read_family(fields: Fields) -> ModelLayers:
    """A family of `FAMILIES`: `layer_types` decides where it is present."""
    family = FAMILIES[fields.model_type]
    layers, _, kv_heads, *_ = fields.shape(*(["head_dim"] if family.explicit else []))
    rows = key_value(kv_heads, fields.head_dim(explicit=family.explicit))
    types = fields.names("layer_types", layers) or family.pattern(fields, layers)
    if family.switch and not fields.flag(family.switch):
        types = ["full_attention"] * layers
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
    """Starcoder 1: GPT-2's names; one key head with multi_query."""
    layers, heads, width = fields.need("n_layer", "n_head", "n_embd")
    kv_heads = 1 if fields.flag("multi_query") else heads
    return _full(fields, layers, kv_heads, divided(fields.model_type, width, heads))


def read_falcon(fields: Fields) -> ModelLayers:
    """One key head with multi_query, unless the new architecture or the lack of multi_query lets num_kv_heads count
    (modeling_falcon.py, FalconAttention.num_kv_heads). transformers' own cache of the new architecture repeats them for
    every query head; engines do not.
    """
    layers, heads, hidden = fields.need("num_hidden_layers", "num_attention_heads", "hidden_size")
    if fields.flag("new_decoder_architecture") or not fields.flag("multi_query"):
        kv_heads = fields.optional("num_kv_heads") or heads
    else:
        kv_heads = 1
    return _full(fields, layers, kv_heads, divided(fields.model_type, hidden, heads))


def read_latent(fields: Fields) -> ModelLayers:
    """Multi-head latent attention (DeepSeek V2 and V3, Kimi K2): the latent and the rotated part, one copy a token.

    modeling_deepseek_v3.py and modeling_deepseek_v2.py: kv_a_proj_with_mqa is kv_lora_rank + qk_rope_head_dim wide, and
    that is what transformers caches since it keeps latents, as vLLM and llama.cpp do; before, it kept expanded heads.
    """
    layers, rank, rope = fields.need("num_hidden_layers", "kv_lora_rank", "qk_rope_head_dim")
    row = Row.of("latent", 1, rank + rope, setting="k")
    return ModelLayers(family=fields.model_type, layers=(LayerCache(kind="latent", rows=(row,)),) * layers)


def read_shared(fields: Fields) -> ModelLayers:
    """Gemma 3n and Gemma 4: the last num_kv_shared_layers read the cache of an earlier layer and have none.

    Gemma 4's full layers have their own head dim (global_head_dim) and, with attention_k_eq_v, their own number of
    heads (num_global_key_value_heads), or per_layer_config says both; K and V are cached apart all the same: one is
    normed and rotated.
    """
    layers, _, kv_heads, head_dim = fields.shape("head_dim")
    interval = {"gemma3n_text": 5}.get(fields.model_type, 6)
    types = fields.names("layer_types", layers) or every(interval)(fields, layers)
    if not fields.has("num_kv_shared_layers"):
        raise ValueError(f"the {fields.model_type} configuration lacks num_kv_shared_layers: give it, 0 where none are")
    owners = layers - fields.count("num_kv_shared_layers")
    wide = (kv_heads, head_dim)
    if fields.model_type == "gemma4_text":
        types[-1] = "full_attention"  # Gemma4TextConfig forces it
        own_heads = fields.optional("num_global_key_value_heads") if fields.flag("attention_k_eq_v") else None
        wide = (own_heads or kv_heads, fields.one("global_head_dim"))
    shapes = [wide if kind == "full_attention" else (kv_heads, head_dim) for kind in types]
    said = fields.config.get("per_layer_config") or {}
    for i, (heads, dim) in enumerate(shapes):
        own = said.get(str(i), {})
        shapes[i] = (own.get("num_key_value_heads", heads), own.get("head_dim", dim))
    return ModelLayers(
        family=fields.model_type,
        layers=tuple(
            attention_layer(fields, kind, key_value(*shape)) if i < owners else LayerCache(kind="shared")
            for i, (kind, shape) in enumerate(zip(types, shapes, strict=True))
        ),
    )


def _full(fields: Fields, layers: int, kv_heads: int, head_dim: int) -> ModelLayers:
    layer = LayerCache(kind="full", rows=key_value(kv_heads, head_dim))
    return ModelLayers(family=fields.model_type, layers=(layer,) * layers)
