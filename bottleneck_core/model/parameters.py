"""A model's parameters, counted and grouped as gradient norms report them."""

from __future__ import annotations

from torch import nn

from bottleneck_core.model.gpt import GPT


def count_parameters(model: nn.Module) -> int:
    """Number of learned values; the tied embedding counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def parameter_groups(model: GPT) -> dict[str, list[nn.Parameter]]:
    """Parameters by the part of the network they belong to.

    `embed`, `attn` and `ffn` share out all parameters: a block's norms go with the layer they feed, the final
    norm with the tied embedding it feeds. Decoupled models have two more, subsets of `attn`: `attn_sem` and
    `attn_geo`, the projections and null keys of the semantic and of the geometric part.
    """
    group_of = {"attn_norm": "attn", "attn": "attn", "mlp_norm": "ffn", "mlp": "ffn"}
    groups: dict[str, list[nn.Parameter]] = {"embed": [], "attn": [], "ffn": []}
    if "k_sem" in model.config.attention.keys:
        groups |= {"attn_sem": [], "attn_geo": []}
    for name, parameter in model.named_parameters():
        outer, *inner = name.split(".")  # blocks.3.attn.q_sem_proj.weight
        groups[group_of[inner[1]] if outer == "blocks" else "embed"].append(parameter)
        for part in ("sem", "geo"):
            if f"_{part}" in name:
                groups[f"attn_{part}"].append(parameter)
    return groups
