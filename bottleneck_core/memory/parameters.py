"""Parameters and training FLOPs of our own models, from a configuration or a plain dict."""

from __future__ import annotations

from typing import Any

from bottleneck_core.memory.layers import cached_widths, setting_of


def _matrices_per_layer(model: Any) -> int:
    """Weights of one block that multiply each token: attention projections and feed-forward matrices."""
    d_model, mode, tied = (
        setting_of(model, "d_model"),
        setting_of(model, "attn_mode"),
        setting_of(model, "tie_qk"),
    )
    widths = cached_widths(model)
    keys = sum(width for name, width in widths.items() if name != "v")
    values = widths["v"]
    queries = setting_of(model, "attn_dim") if mode == "gqa" else keys
    out = setting_of(model, "attn_dim") if mode == "gqa" else values
    attention = d_model * (queries + (0 if tied else keys) + values + out)
    return attention + d_model * setting_of(model, "d_ff") * (3 if setting_of(model, "mlp") == "swiglu" else 2)


def count_parameters(model: Any, vocab_size: int) -> int:
    """Trainable parameters, tied embedding counted once."""
    d_model, embed_dim = setting_of(model, "d_model"), setting_of(model, "embed_dim")
    layer_norms = 4 * d_model
    nulls = sum(cached_widths(model).values()) if setting_of(model, "null_attn") else 0
    temperatures = setting_of(model, "n_head") if setting_of(model, "learned_temp") else 0
    block = _matrices_per_layer(model) + layer_norms + nulls + temperatures
    projections = 2 * d_model * embed_dim if embed_dim != d_model else 0
    return setting_of(model, "n_layer") * block + vocab_size * embed_dim + projections + 2 * d_model


def training_flops_per_token(model: Any, vocab_size: int) -> int:
    """FLOPs of one trained token: 6 per weight that multiplies it, plus causal attention over half the block.

    The count of Kaplan et al. 2020 (appendix B), with the scores' and the weighted sum's own widths in place of
    d_model, and the output embedding counted (it is a matrix product like the others).
    """
    widths = cached_widths(model)
    heads_wide = setting_of(model, "attn_dim") if setting_of(model, "attn_mode") == "gqa" else None
    score_width = heads_wide or sum(width for name, width in widths.items() if name != "v")
    value_width = heads_wide or widths["v"]
    d_model, embed_dim = setting_of(model, "d_model"), setting_of(model, "embed_dim")
    projections = 2 * d_model * embed_dim if embed_dim != d_model else 0
    matrices = setting_of(model, "n_layer") * _matrices_per_layer(model) + vocab_size * embed_dim + projections
    attention = setting_of(model, "n_layer") * (setting_of(model, "block_size") // 2) * (score_width + value_width)
    return 6 * (matrices + attention)
