"""Families with layers whose state does not grow: gated delta rule, lightning attention, Mamba and its hybrids.

A layer keeps a recurrent state and, where a short convolution precedes it, the last kernel - 1 inputs of each of its
channels in bf16 (vLLM, model_executor/layers/mamba/mamba_utils.py; llama.cpp, src/llama-hparams.cpp, n_embd_r;
transformers keeps kernel of them, src/transformers/cache_utils.py). The default dtype of recurrent states is fp32 for
the delta rule and lightning attention, as their reference kernels have it, and for Nemotron-H, whose checkpoints say
mamba_ssm_cache_dtype float32; for other Mamba models it is the model's own, as in vLLM. llama.cpp has fp32 throughout.
Fields are those of transformers 5.23.0, src/transformers/models/<family>/configuration_<family>.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from bottleneck_core.memory.hf.attention import key_value
from bottleneck_core.memory.hf.fields import Fields, divided
from bottleneck_core.memory.layers import LayerCache, ModelLayers, Row, State, StateKind

_ATTENTION = ("full_attention", "attention")
_RECURRENT = ("linear_attention", "mamba")


def read_delta(fields: Fields) -> ModelLayers:
    """Qwen3-Next and Qwen3.5: the state is value heads x key dim x value dim; the convolution runs over q, k and v."""
    layers, _, kv_heads, head_dim, key_heads, value_heads, key_dim, value_dim, kernel = fields.shape(
        "head_dim",
        "linear_num_key_heads",
        "linear_num_value_heads",
        "linear_key_head_dim",
        "linear_value_head_dim",
        "linear_conv_kernel_dim",
    )
    types = fields.names("layer_types", layers)
    if types is None:
        interval = fields.one("full_attention_interval")
        types = ["linear_attention" if (i + 1) % interval else "full_attention" for i in range(layers)]
    channels = 2 * key_heads * key_dim + value_heads * value_dim
    states = _states(value_heads * key_dim * value_dim, channels, kernel)
    return _hybrid(fields, types, key_value(kv_heads, head_dim), states)


def read_lightning(fields: Fields) -> ModelLayers:
    """MiniMax-Text-01: linear layers keep heads x head dim x head dim and no convolution."""
    layers, heads, kv_heads = fields.shape()
    head_dim = fields.head_dim()
    types = fields.names("layer_types", layers)
    if types is None:
        raise ValueError("the minimax configuration lacks layer_types: give the word of each layer")
    states = (State(name="state", values=heads * head_dim * head_dim),)
    return _hybrid(fields, types, key_value(kv_heads, head_dim), states)


def read_jamba(fields: Fields) -> ModelLayers:
    """Mamba-1 layers, attention where layer % attn_layer_period is attn_layer_offset."""
    layers, _, kv_heads, hidden, period, expand, state, kernel = fields.shape(
        "hidden_size", "attn_layer_period", "mamba_expand", "mamba_d_state", "mamba_d_conv"
    )
    if fields.config.get("attn_layer_offset") is None:
        raise ValueError("the jamba configuration lacks attn_layer_offset: give the first attention layer")
    offset = fields.config["attn_layer_offset"]
    types = ["attention" if i % period == offset else "mamba" for i in range(layers)]
    states = _states(expand * hidden * state, expand * hidden, kernel)
    return _hybrid(fields, types, key_value(kv_heads, fields.head_dim()), states, "bf16")


def read_mamba(fields: Fields) -> ModelLayers:
    """Mamba-1 throughout: no token adds anything."""
    layers, hidden, state, kernel = fields.need("num_hidden_layers", "hidden_size", "state_size", "conv_kernel")
    inner = fields.optional("intermediate_size") or fields.one("expand") * hidden
    return _hybrid(fields, ["mamba"] * layers, (), _states(inner * state, inner, kernel), "bf16")


def read_mamba2(fields: Fields) -> ModelLayers:
    """Mamba-2 throughout."""
    layers, heads, head_dim = fields.need("num_hidden_layers", "num_heads", "head_dim")
    state, groups, kernel = fields.need("state_size", "n_groups", "conv_kernel")
    return _hybrid(fields, ["mamba"] * layers, (), _mamba2(heads, head_dim, state, groups, kernel), "bf16")


def read_bamba(fields: Fields) -> ModelLayers:
    """Mamba-2 layers but for the attention of attn_layer_indices."""
    layers, _, kv_heads = fields.shape()
    if "attn_layer_indices" not in fields.config:
        raise ValueError("the bamba configuration lacks attn_layer_indices: give the attention layers")
    attention = fields.config["attn_layer_indices"] or ()
    types = ["attention" if i in attention else "mamba" for i in range(layers)]
    return _hybrid(fields, types, key_value(kv_heads, fields.head_dim()), _named_mamba2(fields), "bf16")


def read_granite_hybrid(fields: Fields) -> ModelLayers:
    """Granite 4: `layer_types` (once layers_block_type) says mamba or attention."""
    layers, _, kv_heads = fields.shape()
    types = fields.names("layer_types", layers) or fields.names("layers_block_type", layers)
    if types is None:
        raise ValueError("the granitemoehybrid configuration lacks layer_types: give the word of each layer")
    rows = key_value(kv_heads, fields.head_dim())
    states = _named_mamba2(fields) if any(kind in _RECURRENT for kind in types) else ()
    return _hybrid(fields, types, rows, states, "bf16")


def read_falcon_h1(fields: Fields) -> ModelLayers:
    """Attention and Mamba-2 side by side in every layer; the inner width is mamba_d_ssm where it is given."""
    layers, _, kv_heads = fields.shape()
    rows = key_value(kv_heads, fields.head_dim())
    return _hybrid(fields, ["hybrid"] * layers, rows, _named_mamba2(fields, inner="mamba_d_ssm"), "bf16")


def read_zamba2(fields: Fields) -> ModelLayers:
    """Mamba-2 in every layer, and before those named hybrid shared attention on 2 hidden_size values.

    The attention weights are shared, its caches are not: each use has its own.
    """
    layers, heads, kv_heads, hidden = fields.shape("hidden_size")
    types = fields.names("layers_block_type", layers) or fields.names("layer_types", layers)
    if types is None:
        raise ValueError("the zamba2 configuration lacks layers_block_type: give mamba or hybrid for each layer")
    rows = key_value(kv_heads, divided("zamba2", 2 * hidden, heads))
    mamba_heads, expand, state, groups, kernel = fields.need(
        "n_mamba_heads", "mamba_expand", "mamba_d_state", "mamba_ngroups", "mamba_d_conv"
    )
    states = _mamba2(mamba_heads, divided("zamba2", expand * hidden, mamba_heads), state, groups, kernel)
    return _hybrid(fields, types, rows, states, "bf16")


def read_nemotron_h(fields: Fields) -> ModelLayers:
    """One mixer a layer, by the letter of hybrid_override_pattern: M Mamba-2, * attention, - and E no cache."""
    letters = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
    types = fields.names("layers_block_type") or fields.names("layer_types")
    if types is None:
        pattern = fields.config.get("hybrid_override_pattern")
        if not isinstance(pattern, str) or set(pattern) - set(letters):
            raise ValueError("the nemotron_h configuration lacks hybrid_override_pattern: give one of M * - E a layer")
        types = [letters[letter] for letter in pattern]
    kv_heads = fields.one("num_key_value_heads")
    name = (
        "attention_head_dim"
        if "head_dim" not in fields.config and "attention_head_dim" in fields.config
        else "head_dim"
    )
    heads, head_dim, state, groups, kernel = fields.need(
        "mamba_num_heads", "mamba_head_dim", "ssm_state_size", "n_groups", "conv_kernel"
    )
    return _hybrid(
        fields, types, key_value(kv_heads, fields.one(name)), _mamba2(heads, head_dim, state, groups, kernel)
    )


def _hybrid(
    fields: Fields,
    types: Sequence[str],
    rows: tuple[Row, ...],
    states: tuple[State, ...],
    state_kind: StateKind = "fp32",
) -> ModelLayers:
    layers = []
    for kind in types:
        if kind in _ATTENTION:
            layers.append(LayerCache(kind="full", rows=rows))
        elif kind in _RECURRENT:
            layers.append(LayerCache(kind="recurrent", states=states))
        elif kind == "hybrid":
            layers.append(LayerCache(kind="hybrid", rows=rows, states=states))
        elif kind in ("mlp", "moe"):
            layers.append(LayerCache(kind="none"))
        else:
            raise ValueError(f"unknown layer type {kind} of the {fields.model_type} configuration")
    return ModelLayers(family=fields.model_type, layers=tuple(layers), state_kind=state_kind)


def _named_mamba2(fields: Fields, inner: str | None = None) -> tuple[State, ...]:
    """Mamba-2 under the names of Bamba, Granite 4 and Falcon-H1; mamba_d_head may be the word auto."""
    heads, groups, state, kernel = fields.need("mamba_n_heads", "mamba_n_groups", "mamba_d_state", "mamba_d_conv")
    if fields.config.get("mamba_d_head") in (None, "auto"):
        if inner and inner not in fields.config:
            raise ValueError(
                f"the {fields.model_type} configuration lacks {inner}: give it, null for the expanded width"
            )
        hidden = (inner and fields.optional(inner)) or fields.one("mamba_expand") * fields.one("hidden_size")
        head_dim = divided(fields.model_type, hidden, heads)
    else:
        head_dim = fields.one("mamba_d_head")
    return _mamba2(heads, head_dim, state, groups, kernel)


def _mamba2(heads: int, head_dim: int, state: int, groups: int, kernel: int) -> tuple[State, ...]:
    return _states(heads * head_dim * state, heads * head_dim + 2 * groups * state, kernel)


def _states(values: int, channels: int, kernel: int) -> tuple[State, ...]:
    recurrent = State(name="state", values=values)
    return (recurrent, State(name="conv", values=channels * (kernel - 1), kind="bf16")) if kernel > 1 else (recurrent,)
