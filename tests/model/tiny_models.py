"""Models small enough to check in float64, with every learned scalar away from zero so that no toggle is idle."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from bottleneck_core.config import MODES, ModelConfig
from bottleneck_core.model import GPT, Implementation, build_model

SHAPE: dict[str, Any] = {
    "vocab_size": 23,
    "n_layer": 2,
    "d_model": 16,
    "n_head": 4,
    "d_ff": 12,
    "block_size": 16,
    "embed_dim": 16,
    "kv_head": 2,
    "attn_dim": 8,
    "sem_dim": 4,
    "geo_dim": 16,
}


def tiny(mode: str, **changes: Any) -> ModelConfig:
    return ModelConfig(**{**SHAPE, "attn_mode": mode, **changes})


def all_toggles() -> list[ModelConfig]:
    """Every registered mode under every combination of toggles that it allows: 224 configurations of the four."""
    configs = []
    switches = itertools.product(MODES, *[(False, True)] * 4, ("swiglu", "gelu"), (16, 10))
    names = ("attn_mode", "rope", "null_attn", "learned_temp", "tie_qk", "mlp", "embed_dim")
    for values in switches:
        changes: dict[str, Any] = dict(zip(names, values, strict=True))
        if not (MODES[changes["attn_mode"]].grouped and changes["tie_qk"]):
            configs.append(ModelConfig(**SHAPE | changes))
    return configs


def toggle_id(config: ModelConfig) -> str:
    names = [name for name in ("rope", "null_attn", "learned_temp", "tie_qk") if getattr(config, name)]
    return "-".join([config.attn_mode, config.mlp, f"embed{config.embed_dim}", *names])


def scrambled(
    config: ModelConfig, impl: Implementation = "fast", dtype: torch.dtype = torch.float64, seed: int = 0
) -> GPT:
    """A model whose parameters, nulls and temperatures included, are all random and large enough to matter."""
    model = build_model(config, impl=impl, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.5 * drawn)
    return model


def tokens(batch: int, length: int, vocab: int = SHAPE["vocab_size"], seed: int = 1) -> Tensor:
    return torch.randint(0, vocab, (batch, length), generator=torch.Generator().manual_seed(seed))
