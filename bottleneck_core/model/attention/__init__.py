"""Attention variants, one file each, over one shared noun (`Projected`) and one shared softmax."""

from __future__ import annotations

from bottleneck_core.config import ModelConfig
from bottleneck_core.model.attention.base import Attention, Implementation, Projected
from bottleneck_core.model.attention.bottleneck import BottleneckAttention
from bottleneck_core.model.attention.decoupled import DecoupledAttention
from bottleneck_core.model.attention.gqa import GroupedQueryAttention
from bottleneck_core.model.attention.standard import StandardAttention
from bottleneck_core.model.rope import Rotary

__all__ = ["VARIANTS", "Attention", "Implementation", "Projected", "build_attention", "build_rotary"]

VARIANTS = {
    "standard": StandardAttention,
    "gqa": GroupedQueryAttention,
    "bottleneck": BottleneckAttention,
    "decoupled": DecoupledAttention,
}


def build_attention(config: ModelConfig, rotary: Rotary | None, impl: Implementation = "fast") -> Attention:
    """The attention that `config.attn_mode` names; `rotary` is shared by all layers, None without RoPE."""
    return VARIANTS[config.attn_mode](config, rotary, impl)


def build_rotary(config: ModelConfig) -> Rotary | None:
    """The rotary table that fits `config`'s rotated head dim: the geometric one in decoupled attention."""
    if not config.rope:
        return None
    width = {
        "standard": config.d_model,
        "gqa": config.attn_dim,
        "bottleneck": config.attn_dim,
        "decoupled": config.geo_dim,
    }[config.attn_mode]
    return Rotary(width // config.n_head, config.rope_base, config.block_size)
