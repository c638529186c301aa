"""Parameters and training FLOPs of our own models, from a configuration or a plain dict."""

from __future__ import annotations

from typing import Any

from bottleneck_core.memory.layers import cached_widths, output_width, query_width, setting_of


def _matrices_per_layer(model: Any) -> int:
    """Weights of one block that multiply each token: attention projections and feed-forward matrices."""
    d_model, widths = setting_of(model, "d_model"), cached_widths(model)
    values = widths.pop("v")
    keys = 0 if setting_of(model, "tie_qk") else sum(widths.values())
    attention = d_model * (query_width(model) + keys + values + output_width(model))
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
    d_model, embed_dim = setting_of(model, "d_model"), setting_of(model, "embed_dim")
    projections = 2 * d_model * embed_dim if embed_dim != d_model else 0
    matrices = setting_of(model, "n_layer") * _matrices_per_layer(model) + vocab_size * embed_dim + projections
    widths = query_width(model) + output_width(model)  # of the scores, and of the weighted sum
    attention = setting_of(model, "n_layer") * (setting_of(model, "block_size") // 2) * widths
    return 6 * (matrices + attention)
