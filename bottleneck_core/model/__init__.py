"""The network: GPT, its layers, and one file per attention variant. Needs torch."""

from __future__ import annotations

from bottleneck_core.model.attention import Attention, Implementation, Projected
from bottleneck_core.model.build import build_model, init_weights
from bottleneck_core.model.gpt import GPT, Block
from bottleneck_core.model.parameters import count_parameters, parameter_groups

__all__ = [
    "GPT",
    "Attention",
    "Block",
    "Implementation",
    "Projected",
    "build_model",
    "count_parameters",
    "init_weights",
    "parameter_groups",
]
