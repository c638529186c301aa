"""The network: a pre-norm GPT whose attention is one of the variants in `attention/`.

Legend: B batch, T tokens, C residual width (d_model), E embedding width (embed_dim), N vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bottleneck_core.config import ModelConfig
from bottleneck_core.kernels import HALF_PRECISION, available, linear_cross_entropy
from bottleneck_core.model.attention import Implementation, build_attention, build_rotary
from bottleneck_core.model.attention.base import LayerCache, linear
from bottleneck_core.model.loss import cross_entropy
from bottleneck_core.model.mlp import build_mlp
from bottleneck_core.model.rope import Rotary


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, rotary: Rotary | None, impl: Implementation = "fast") -> None:
        super().__init__()
        self.attn_norm = nn.LayerNorm(config.d_model)
        self.attn = build_attention(config, rotary, impl)
        self.mlp_norm = nn.LayerNorm(config.d_model)
        self.mlp = build_mlp(config)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.attn_norm(x), cache)
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """Decoder-only transformer with a tied output embedding.

    Where embed_dim differs from d_model, one bias-free projection leads in and another out. Sequences may be
    longer than `block_size`: nothing but the rotary table knows positions, and that grows. `grad_checkpoint`
    makes the backward pass recompute each block instead of keeping its activations. `loss_chunk` tokens have logits at
    a time where loss and output embedding are fused (CUDA, half precision, Triton). `impl="reference"` computes
    attention by explicit matrix products. `build_model` gives the first weights; constructed bare, the layers have
    torch's. Raises ValueError where the configuration has no vocabulary size.
    """

    def __init__(self, config: ModelConfig, impl: Implementation = "fast") -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("the model needs a vocabulary: give vocab_size, or data whose tokenizer tells it")
        self.config = config
        self.grad_checkpoint = False
        self.loss_chunk = 16384
        self.can_fuse_loss = available() is None
        projected = config.embed_dim != config.d_model
        self.rotary = build_rotary(config)  # one table, shared by all layers
        self.embed = nn.Embedding(config.vocab_size, config.embed_dim)
        self.in_proj = linear(config.embed_dim, config.d_model) if projected else None
        self.dropout = nn.Dropout(config.dropout)
        layers = nn.ModuleList(Block(config, self.rotary, impl) for _ in range(config.n_layer))
        self.blocks = cast("Sequence[Block]", layers)  # typed by what it holds: ModuleList's items are Modules
        self.norm = nn.LayerNorm(config.d_model)
        self.out_proj = linear(config.d_model, config.embed_dim) if projected else None
        self.register_load_state_dict_pre_hook(_unwrap_names)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Tensor:
        """Logits (B, T, N) of token ids idx (B, T) int64; given targets (B, T), the mean cross-entropy instead.

        The loss is a scalar in nats, float32, or float64 in a float64 model; targets of -100 do not count.
        """
        x = self.embed_tokens(idx)
        for block in self.blocks:
            if self.grad_checkpoint and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.unembed(x) if targets is None else self.loss(x, targets)

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of targets (B, T) after the last block's residual stream x (B, T, C)."""
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        if self.can_fuse_loss and x.is_cuda and dtype in HALF_PRECISION:
            hidden, weight = self.unembedded(x).flatten(0, 1), self.embed.weight
            return linear_cross_entropy(hidden, weight, targets.flatten(), dtype, self.loss_chunk)
        if x.device.type == "cpu" and dtype not in HALF_PRECISION and not torch.compiler.is_compiling():
            return cross_entropy(self.unembedded(x).flatten(0, 1), self.embed.weight, targets.flatten())
        logits = self.unembed(x)
        precise = logits if logits.dtype == torch.float64 else logits.float()
        return F.cross_entropy(precise.flatten(0, 1), targets.flatten())

    def continue_from(self, caches: Sequence[LayerCache], idx: Tensor, last_only: bool = False) -> Tensor:
        """Logits (B, T, N) of tokens idx (B, T) that follow what each layer's cache holds, which grows by them.

        `last_only`: the last token's alone, (B, 1, N), all that the next token is drawn from.
        """
        x = self.embed_tokens(idx)
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, cache)
        return self.unembed(x[:, -1:] if last_only else x)

    def embed_tokens(self, idx: Tensor) -> Tensor:
        """Token ids (B, T) -> the residual stream before the first block, (B, T, C)."""
        x = self.embed(idx)  # (B, T, E)
        return self.dropout(x if self.in_proj is None else self.in_proj(x))

    def unembedded(self, x: Tensor) -> Tensor:
        """The residual stream after the last block (B, T, C) -> what meets the output embedding, (B, T, E)."""
        x = self.norm(x)
        return x if self.out_proj is None else self.out_proj(x)

    def unembed(self, x: Tensor) -> Tensor:
        """The residual stream after the last block (B, T, C) -> logits (B, T, N)."""
        x = self.unembedded(x)
        weight, vocab = self.embed.weight, self.embed.num_embeddings
        if weight.is_cuda and x.size(1) > 1:
            # Rows of 50257 bf16 logits start unaligned: padded to a multiple of 64, and cut again as a view. For a
            # single token the copy of the weight would cost more than the product.
            weight = F.pad(weight, (0, 0, 0, -vocab % 64))
        return F.linear(x, weight)[..., :vocab]


def _unwrap_names(model: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """Drops what torch.compile and DDP put before names, so that their checkpoints load into a bare model."""
    for name in list(state):
        bare = name.replace("_orig_mod.", "").removeprefix("module.")
        if bare != name:
            state[bare] = state.pop(name)
