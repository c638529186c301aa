"""Bottleneck attention: all of attention happens in a space narrower than the residual stream."""

from __future__ import annotations

from bottleneck_core.config import ModelConfig
from bottleneck_core.model.attention.base import Implementation
from bottleneck_core.model.attention.standard import StandardAttention
from bottleneck_core.model.rope import Rotary


class BottleneckAttention(StandardAttention):
    """Queries, keys and values of `attn_dim` values each; `out_proj` leads from there back to d_model.

    Each head's score matrix and output map have at most rank attn_dim / H, and the cache holds 2 attn_dim
    values a token instead of 2 d_model.
    """

    def __init__(self, config: ModelConfig, rotary: Rotary | None, impl: Implementation = "fast") -> None:
        super().__init__(config, rotary, impl, width=config.attn_dim)
