"""Small models with weights far from their start, and comparison at the accuracy that the probe promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bottleneck_core.config import MODES, ModelConfig
from bottleneck_core.model import GPT, Attention, build_model


def small_config(mode: str = "bottleneck", **changes: Any) -> ModelConfig:
    """Three layers, four heads; the widths of queries and values differ in decoupled attention."""
    fields: dict[str, Any] = {
        "vocab_size": 31,
        "n_layer": 3,
        "d_model": 32,
        "n_head": 4,
        "d_ff": 48,
        "block_size": 24,
        "embed_dim": 32,
        "attn_mode": mode,
        "kv_head": 2 if MODES[mode].grouped else None,
        "attn_dim": 24,
        "sem_dim": 8,
        "geo_dim": 16,
    }
    return ModelConfig(**(fields | changes))


def peaked_model(config: ModelConfig, dtype: torch.dtype = torch.float64, seed: int = 0) -> GPT:
    """Random weights, temperatures and nulls large enough that some heads attend to few keys."""
    model = build_model(config, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            if "norm.weight" in name:
                parameter.copy_(1 + 0.2 * noise)
            elif "temperature" in name:  # heads from nearly even to nearly one-hot
                parameter.copy_(torch.linspace(-2.0, 1.0, parameter.numel()) + 0.2 * noise)
            elif "null" in name:
                parameter.copy_(1.5 * noise)
            else:
                parameter.copy_(0.25 * noise)
    return model


def attentions(model: GPT) -> list[Attention]:
    """The attention of each layer."""
    return [module for module in model.modules() if isinstance(module, Attention)]


def tokens(config: ModelConfig, windows: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random token ids (windows, length)."""
    assert config.vocab_size is not None
    return torch.randint(config.vocab_size, (windows, length), generator=torch.Generator().manual_seed(seed))


def assert_close(actual: Any, expected: Any, what: str) -> None:
    """Within 1e-5, absolute below 1 and relative above; NaN where NaN is expected."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape, what
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), err_msg=what)
    excess = np.nan_to_num(np.abs(actual - expected) / np.maximum(1, np.abs(expected)))
    assert excess.max(initial=0) <= 1e-5, f"{what}: off by {excess.max():.2e}"
