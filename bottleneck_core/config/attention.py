"""The attention modes: the one place where a mode is registered.

Each names the settings that hold its widths, and what it is named after follows: what can be built, what is cached, how
many parameters and bytes a model has, which class makes it. The class is named as text, so that nothing here loads
torch. docs/attention_modes.md adds a mode step by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AttentionMode:
    """A mode in terms of settings; widths are totals over all heads, and a head has a share of 1 / `n_head`.

    A query is as wide as all key tensors together. `grouped`: keys and values have `kv_head` heads, which share the
    head dim of the queries, instead of `n_head`.
    """

    module: str  # file in bottleneck_core/model/attention and class in it, as "gqa:GroupedQueryAttention"
    keys: Mapping[str, str]  # cached key tensors in the order of their columns: name -> setting of its width
    values: str  # setting of the width of the values, the cached tensor `v`
    rotated: str  # setting of the width that rotary embedding turns
    grouped: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that this mode reads its widths from."""
        return tuple(dict.fromkeys((*self.keys.values(), self.values)))


MODES: dict[str, AttentionMode] = {
    "standard": AttentionMode(
        module="standard:StandardAttention", keys={"k": "d_model"}, values="d_model", rotated="d_model"
    ),
    "bottleneck": AttentionMode(
        module="bottleneck:BottleneckAttention", keys={"k": "attn_dim"}, values="attn_dim", rotated="attn_dim"
    ),
    "decoupled": AttentionMode(
        module="decoupled:DecoupledAttention",
        keys={"k_sem": "sem_dim", "k_geo": "geo_dim"},
        values="attn_dim",
        rotated="geo_dim",
    ),
    "gqa": AttentionMode(
        module="gqa:GroupedQueryAttention",
        keys={"k": "attn_dim"},
        values="attn_dim",
        rotated="attn_dim",
        grouped=True,
    ),
}
