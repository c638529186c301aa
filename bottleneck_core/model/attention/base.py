"""What all attention variants share: `Projected`, and the road from it to the output.

A variant only says how it makes queries, keys and values of x. Everything after that (causal mask, null key,
softmax, dropout) is the same for all of them and written twice: `reference.py` is the specification,
`sdpa.py` the fast path.

Legend: B batch, T tokens, C residual width, H heads, G key and value heads (G divides H), K head dim of
queries and keys, V head dim of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bottleneck_core.config import ModelConfig
from bottleneck_core.model.attention import reference, sdpa
from bottleneck_core.model.rope import Rotary

Implementation = Literal["fast", "reference"]


@dataclass
class Projected:
    """What a variant makes of x, before any softmax. The score of query i on key j is `scale * q_i . k_j`."""

    q: Tensor  # (B, H, T, K) times exp(temperature), rotated
    k: Tensor  # (B, G, S, K) rotated; S = T, or more where earlier tokens come from a cache
    v: Tensor  # (B, G, S, V)
    scale: float  # decoupled: each part of q carries its own scale already, and this is 1
    null_k: Tensor | None  # (G, K) the key that every query sees, never rotated
    null_v: Tensor | None  # (G, V)
    sem_width: int = 0  # decoupled: so many leading columns of K are semantic, the rest geometric


class LayerCache(Protocol):
    """What a layer remembers of the tokens before: the model's whole view of a KV cache."""

    @property
    def start(self) -> int | Tensor:
        """Position of the next token: one for the batch, or (B,) where requests differ in length."""
        ...

    def attend(self, projected: Projected) -> Tensor:
        """Remember the new keys and values, and return the queries' attention over all of them, (B, T, H * V)."""
        ...


class Attention(nn.Module):
    """Causal self-attention, (B, T, C) -> (B, T, C), over queries, keys and values that a subclass makes.

    The temperature is one number a head, t, starting at 0: queries are multiplied by exp(t), and with them
    every score of the head, the null key's too.
    """

    def __init__(self, config: ModelConfig, value_width: int, rotary: Rotary | None, impl: Implementation) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.kv_heads = config.kv_heads
        self.dropout = config.dropout
        self.rotary = rotary
        self.kernel = {"fast": sdpa.attend, "reference": reference.attend}[impl]
        self.temperature = zeros(config.n_head) if config.learned_temp else None
        value_dim = value_width // config.n_head
        self.v_proj = linear(config.d_model, self.kv_heads * value_dim)
        self.null_v = zeros(self.kv_heads, value_dim) if config.null_attn else None
        self.out_proj = linear(value_width, config.d_model)

    def project(self, x: Tensor, start: int | Tensor = 0) -> Projected:
        """Queries, keys and values of x (B, T, C), whose first token stands at position `start` (one, or (B,))."""
        raise NotImplementedError

    def query_key_weights(self) -> dict[str, Tensor]:
        """Weights [out, in] of the query and key projections by name; tied, k's is the same tensor as q's."""
        raise NotImplementedError

    def attend(self, projected: Projected) -> Tensor:
        """Causal softmax attention, heads merged: (B, T, H * V). The last query stands at the last key."""
        return self.kernel(projected, self.dropout if self.training else 0.0)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        if cache is None:
            return self.out_proj(self.attend(self.project(x)))
        return self.out_proj(cache.attend(self.project(x, cache.start)))

    def project_jointly(self, x: Tensor, projections: Sequence[tuple[nn.Linear, Tensor | None]]) -> list[Tensor]:
        """The outputs of several projections of x (B, T, C), each (B, T, its own width) times its gain (H,) by heads.

        One product over the joined weights reads x once: 4 to 6 % of a training step of the tiny model on an
        H200. A single token reads little and the weights would be copied for it: there each has its own. Amplified
        weights save a pass over the tokens, which a compiler has for nothing: it multiplies on the way to the rotation.
        """
        gains = [gain for _, gain in projections]
        if x.size(1) == 1:
            outputs = [projection(x) for projection, _ in projections]
            return [amplified(output, gain) for output, gain in zip(outputs, gains, strict=True)]
        weights = [projection.weight for projection, _ in projections]
        if not torch.compiler.is_compiling():
            weights = [amplified(weight, gain, dim=0) for weight, gain in zip(weights, gains, strict=True)]
            gains = [None] * len(weights)
        outputs = F.linear(x, torch.cat(weights)).split([weight.size(0) for weight in weights], dim=-1)
        return [amplified(output, gain) for output, gain in zip(outputs, gains, strict=True)]

    def split(self, x: Tensor, heads: int) -> Tensor:
        """(B, T, heads * D) -> (B, heads, T, D), a view."""
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    def rotate(self, x: Tensor, start: int | Tensor) -> Tensor:
        """Rotary embedding of (B, heads, T, D), or x itself where it is switched off."""
        return x if self.rotary is None else self.rotary(x, start)

    def gain(self, scale: float = 1.0) -> Tensor | None:
        """What each head's queries are multiplied by, exp(t) * scale (H,); None where that is 1."""
        if self.temperature is not None:
            return self.temperature.exp() * scale
        return None if scale == 1.0 else self.v_proj.weight.new_full((self.n_head,), scale)


def amplified(x: Tensor, gain: Tensor | None, dim: int = -1) -> Tensor:
    """x times gain (H,), one number for each H-th of its last dimension, or of its first (`dim` 0).

    Under autocast the product is float32: to be cast back after the rotation.
    """
    if gain is None:
        return x
    heads = x.unflatten(dim, (len(gain), -1))
    return (heads * (gain[:, None] if dim else gain[:, None, None])).flatten(*((-2, -1) if dim else (0, 1)))


def linear(width_in: int, width_out: int) -> nn.Linear:
    """A bias-free projection, the only kind in this model."""
    return nn.Linear(width_in, width_out, bias=False)


def zeros(*shape: int) -> nn.Parameter:
    """A learned tensor that starts at zero: temperatures, null keys and null values."""
    return nn.Parameter(torch.zeros(*shape))
