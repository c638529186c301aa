"""Grouped-query attention (arXiv:2305.13245); with one key head, multi-query attention (arXiv:1911.02150)."""

from __future__ import annotations

from bottleneck_core.config import ModelConfig
from bottleneck_core.model.attention.base import Implementation
from bottleneck_core.model.attention.standard import StandardAttention
from bottleneck_core.model.rope import Rotary


class GroupedQueryAttention(StandardAttention):
    """`attn_dim` wide queries in H heads over keys and values in `kv_head` heads of the same head dim.

    Consecutive query heads share a key head: head h reads key head h // (H / G).
    """

    def __init__(self, config: ModelConfig, rotary: Rotary | None, impl: Implementation = "fast") -> None:
        super().__init__(config, rotary, impl, width=config.attn_dim)
