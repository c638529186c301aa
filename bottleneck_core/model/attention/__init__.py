"""Attention variants, one file each, over one shared noun (`Projected`) and one shared softmax.

`config/attention.py` registers them; a file is loaded when a model of its mode is built.
"""

from __future__ import annotations

import importlib

from bottleneck_core.config import ModelConfig
from bottleneck_core.model.attention.base import Attention, Implementation, Projected
from bottleneck_core.model.rope import Rotary

__all__ = ["Attention", "Implementation", "Projected", "build_attention", "build_rotary"]


def build_attention(config: ModelConfig, rotary: Rotary | None, impl: Implementation = "fast") -> Attention:
    """The attention that `config.attn_mode` names; `rotary` is shared by all layers, None without RoPE."""
    module, _, name = config.attention.module.partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)(config, rotary, impl)


def build_rotary(config: ModelConfig) -> Rotary | None:
    """The rotary table that fits `config`'s rotated head dim: the geometric one in decoupled attention."""
    if not config.rope:
        return None
    return Rotary(config.rotary_head_dim, config.rope_base, config.block_size)
