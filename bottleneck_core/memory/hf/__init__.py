"""From a Hugging Face configuration to what each layer of the model caches: one reader a family, none is guessed."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from bottleneck_core.memory.hf import attention, recurrent
from bottleneck_core.memory.hf.fields import Fields
from bottleneck_core.memory.layers import ModelLayers

READERS: dict[str, Callable[[Fields], ModelLayers]] = {
    **dict.fromkeys(attention.FAMILIES, attention.read_family),
    "gpt2": attention.read_gpt2,
    "gptj": attention.read_gpt2,
    "gpt_bigcode": attention.read_gpt_bigcode,
    "falcon": attention.read_falcon,
    "deepseek_v2": attention.read_latent,
    "deepseek_v3": attention.read_latent,
    "kimi_k2": attention.read_latent,
    "gemma3n_text": attention.read_shared,
    "gemma4_text": attention.read_shared,
    "qwen3_next": recurrent.read_delta,
    "qwen3_5_text": recurrent.read_delta,
    "qwen3_5_moe_text": recurrent.read_delta,
    "minimax": recurrent.read_lightning,
    "jamba": recurrent.read_jamba,
    "mamba": recurrent.read_mamba,
    "falcon_mamba": recurrent.read_mamba,
    "mamba2": recurrent.read_mamba2,
    "bamba": recurrent.read_bamba,
    "granitemoehybrid": recurrent.read_granite_hybrid,
    "falcon_h1": recurrent.read_falcon_h1,
    "zamba2": recurrent.read_zamba2,
    "nemotron_h": recurrent.read_nemotron_h,
}
# Models with a picture part keep the language model under text_config; some text parts go by the whole model's name.
_TEXT_TYPES = {
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
}


def is_hf_config(config: Mapping[str, Any]) -> bool:
    """Whether a dict is a Hugging Face configuration and not one of ours."""
    return "attn_mode" not in config and any(key in config for key in ("model_type", "text_config", "architectures"))


def hf_layers(config: Mapping[str, Any]) -> ModelLayers:
    """The layers of a Hugging Face configuration dict, nested `text_config` included.

    Fields that are absent have the default of transformers' class, as far as `defaults` says; `assumed` names them.
    Raises ValueError, one sentence, for an architecture that is not known and for fields that are missing: the cache
    of a model is never guessed.
    """
    text = text_config(config)
    model_type = text.get("model_type")
    if model_type is None:
        raise ValueError("the configuration lacks model_type: give the model's own config.json")
    if model_type not in READERS:
        near = difflib.get_close_matches(str(model_type), READERS, n=1)
        hint = f"; the nearest is {near[0]}" if near else ""
        raise ValueError(f"unknown architecture {model_type}: no rule says what its layers cache{hint}")
    fields = Fields(text, nested=isinstance(config.get("text_config"), Mapping))
    return dataclasses.replace(READERS[model_type](fields), assumed=fields.lines())


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the language model, under a model_type of its own."""
    nested = config.get("text_config")
    text = dict(nested) if isinstance(nested, Mapping) else dict(config)
    if text.get("model_type") is None and "model_type" in config:
        text["model_type"] = config["model_type"]
    if text.get("model_type") in _TEXT_TYPES:
        text["model_type"] = _TEXT_TYPES[text["model_type"]]
    return text
