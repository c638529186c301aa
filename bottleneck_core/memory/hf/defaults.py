"""What transformers fills in where a configuration leaves a field out, by model_type.

Read from transformers 5.23.0, src/transformers/models/<family>/configuration_<family>.py; null has the meaning that the
class gives it: as many key heads as query heads, no window. A field that no class defaults is not here.

transformers writes every size into the top level of a config.json, so a size that is missing there is a file cut short,
and an error. From a nested text_config it leaves out what equals the class (google/gemma-3-4b-it has no head counts).
"""

from __future__ import annotations

from typing import Any

# What says how large this one model is, as against what its family has in common.
SIZES = frozenset(
    {
        *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size"),
        *("n_layer", "n_head", "n_embd", "kv_lora_rank", "qk_rope_head_dim", "num_kv_shared_layers"),
        *("linear_num_key_heads", "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim"),
        "linear_conv_kernel_dim",
    }
)


def _sizes(layers: int, heads: int, kv_heads: int | None, hidden: int) -> dict[str, int | None]:
    return {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_size": hidden,
    }


_QWEN2_WINDOW: dict[str, Any] = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_DELTA = {
    "head_dim": 256,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 4,
}
_LATENT = {"kv_lora_rank": 512, "qk_rope_head_dim": 64}

DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": _sizes(32, 32, None, 4096),
    "mistral": _sizes(32, 32, 8, 4096) | {"sliding_window": 4096},
    "mixtral": _sizes(32, 32, 8, 4096) | {"sliding_window": None},
    "ministral": _sizes(32, 32, 8, 4096) | {"sliding_window": 4096},
    "ministral3": _sizes(34, 32, 8, 4096) | {"head_dim": 128, "sliding_window": None},
    "phi": _sizes(24, 32, None, 2048),
    "phi3": _sizes(32, 32, None, 3072) | {"sliding_window": None},
    "phimoe": _sizes(32, 32, 8, 4096) | {"sliding_window": None},
    "starcoder2": _sizes(30, 24, 2, 3072) | {"sliding_window": None},
    "qwen2": _sizes(32, 32, 32, 4096) | _QWEN2_WINDOW,
    "qwen2_moe": _sizes(24, 16, 16, 2048) | _QWEN2_WINDOW,
    "qwen2_vl_text": _sizes(80, 64, 8, 8192) | _QWEN2_WINDOW | {"max_window_layers": 80},
    "qwen2_5_vl_text": _sizes(80, 64, 8, 8192) | _QWEN2_WINDOW | {"max_window_layers": 80},
    "qwen3": _sizes(32, 32, 32, 4096) | _QWEN2_WINDOW | {"head_dim": 128},
    "qwen3_moe": _sizes(24, 32, 4, 2048) | {"use_sliding_window": False, "sliding_window": 4096},
    "qwen3_vl_text": _sizes(32, 32, 32, 4096) | {"head_dim": 128},
    "qwen3_vl_moe_text": _sizes(24, 16, 16, 2048),
    "gemma": _sizes(28, 16, 16, 3072) | {"head_dim": 256},
    "gemma2": _sizes(26, 8, 4, 2304) | {"head_dim": 256, "sliding_window": 4096},
    "gemma3_text": _sizes(26, 8, 4, 2304) | {"head_dim": 256, "sliding_window": 4096, "sliding_window_pattern": 6},
    "gemma3n_text": _sizes(35, 8, 2, 2048) | {"head_dim": 256, "sliding_window": 512, "num_kv_shared_layers": 15},
    "gemma4_text": _sizes(30, 8, 4, 2304)
    | {"head_dim": 256, "global_head_dim": 512, "sliding_window": 512}
    | {"num_kv_shared_layers": 0, "attention_k_eq_v": False, "num_global_key_value_heads": None},
    "gpt_oss": _sizes(36, 64, 8, 2880) | {"head_dim": 64, "sliding_window": 128},
    "llama4_text": _sizes(48, 40, 8, 5120)
    | {"head_dim": 128, "attention_chunk_size": 8192, "no_rope_layer_interval": 4},
    "cohere": _sizes(40, 64, None, 8192),
    "cohere2": _sizes(40, 64, None, 8192) | {"sliding_window": 4096, "sliding_window_pattern": 4},
    "olmo": _sizes(32, 32, None, 4096),
    "olmo2": _sizes(32, 32, None, 4096),
    "olmo3": _sizes(32, 32, None, 4096) | {"sliding_window": 4096},
    "olmoe": _sizes(16, 16, None, 2048),
    "stablelm": _sizes(32, 32, 32, 2560),
    "granite": _sizes(32, 32, None, 4096),
    "granitemoe": _sizes(32, 32, None, 4096),
    "glm4": _sizes(40, 32, 2, 4096) | {"head_dim": 128},
    "glm4_moe": _sizes(46, 96, 8, 4096),
    "minimax_m2": _sizes(62, 48, 8, 3072) | {"head_dim": 128},
    "smollm3": _sizes(36, 16, 4, 2048)
    | {"use_sliding_window": False, "sliding_window": None, "no_rope_layer_interval": 4},
    "opt": _sizes(12, 12, None, 768),
    "gpt_neox": _sizes(44, 64, None, 6144),
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "gptj": {"n_layer": 28, "n_head": 16, "n_embd": 4096},
    "gpt_bigcode": {"n_layer": 12, "n_head": 12, "n_embd": 768, "multi_query": True},
    "falcon": {"num_hidden_layers": 32, "num_attention_heads": 71, "hidden_size": 4544, "num_kv_heads": None}
    | {"multi_query": True, "new_decoder_architecture": False},
    "deepseek_v2": {"num_hidden_layers": 32, **_LATENT},
    "deepseek_v3": {"num_hidden_layers": 61, **_LATENT},
    "qwen3_next": _sizes(48, 16, 2, 2048) | _DELTA,
    "qwen3_5_text": _sizes(32, 16, 4, 4096) | _DELTA,
    "qwen3_5_moe_text": _sizes(40, 16, 2, 2048) | _DELTA,
    "granitemoehybrid": {"num_key_value_heads": None},
    "zamba2": {"num_key_value_heads": None},
    "nemotron_h": {"head_dim": 128},
}
# Names that a class reads as its own (attribute_map of GPT-2, GPT-J and GPTBigCode).
ALIASES = {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_embd": "hidden_size"}
