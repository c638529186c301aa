"""How fast a plain PyTorch GPT trains: the reference that the other training benchmarks measure beside ours.

    python -m benchmarks.reference_gpt --data tokens.bin [--size tiny] [--batch-size 16] [--steps 150] [--mlp gelu]

What an experienced person writes in a day: joined QKV, learned positions, SDPA with is_causal, SwiGLU, tied head, the
vocabulary as it is, F.cross_entropy on all logits, bf16 autocast, torch.compile, fused AdamW, clipping, batches from
pinned memory; nothing padded, chunked or fused by hand. Width and depth are nanoGPT's of size tiny, which it stands in
for (`--mlp gelu` is nanoGPT's layer; SwiGLU makes the work that of our baseline). Prints one JSON line.

Legend: B sequences, T tokens of one, C residual width, H heads, D head dim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZES = {"nano": (128, 4, 4, 512, 256), "tiny": (512, 6, 8, 2048, 1024)}  # width, layers, heads, d_ff, block


class Block(nn.Module):
    def __init__(self, width: int, heads: int, d_ff: int, mlp: str) -> None:
        super().__init__()
        self.heads, self.gated = heads, mlp == "swiglu"
        self.attn_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * d_ff if self.gated else d_ff, bias=False)
        self.down = nn.Linear(d_ff, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.attn_norm(x)).chunk(3, dim=-1)  # (B, T, C) each
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # (B, H, T, D)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))  # (B, T, C)
        hidden = self.up(self.mlp_norm(x))
        if self.gated:
            gate, up = hidden.chunk(2, dim=-1)
            return x + self.down(F.silu(gate) * up)
        return x + self.down(F.gelu(hidden))


class ReferenceGPT(nn.Module):
    def __init__(self, vocab: int, size: str = "tiny", mlp: str = "swiglu", block: int | None = None) -> None:
        super().__init__()
        width, layers, heads, d_ff, preset_block = SIZES[size]
        self.block_size = block or preset_block
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(self.block_size, width)
        self.blocks = nn.ModuleList(Block(width, heads, d_ff, mlp) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab, bias=False)
        self.head.weight = self.tokens.weight
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, idx: Tensor, targets: Tensor) -> Tensor:
        x = self.tokens(idx) + self.positions(torch.arange(idx.size(1), device=idx.device))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class ReferenceTrainer:
    """The model with its optimiser. `fast`: bf16 autocast, TF32 for the rest, and torch.compile."""

    def __init__(self, model: ReferenceGPT, device: torch.device, fast: bool) -> None:
        self.model, self.device, self.fast = model.to(device), device, fast
        if fast:
            torch.set_float32_matmul_precision("high")
            model.compile()
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.1, fused=True)

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One optimiser step on (B, T) ids and targets; the loss, on the device."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast):
            loss = self.model(x, y)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def batch(tokens: np.ndarray, size: int, block: int, draws: np.random.Generator, device: torch.device) -> list[Tensor]:
    """x and y, (B, T) each, from random places."""
    starts = draws.integers(0, len(tokens) - block - 1, size)
    window = torch.from_numpy(np.stack([tokens[start : start + block + 1].astype(np.int64) for start in starts]))
    pair = [window[:, :-1].contiguous(), window[:, 1:].contiguous()]
    return [part.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else part for part in pair]


def train(words: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second over ten stretches of the run, losses and peak memory."""
    device = torch.device(words.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(1337)
    model = ReferenceGPT(words.vocab_size, words.size, words.mlp)
    trainer = ReferenceTrainer(model, device, fast=words.speed == "auto" and device.type == "cuda")
    tokens, draws = np.memmap(words.data, np.uint16, "r"), np.random.default_rng(1337)
    tokens = tokens[: int(0.9 * len(tokens))]
    every, rates, losses, since = max(1, words.steps // 10), [], [], time.perf_counter()
    following = batch(tokens, words.batch_size, model.block_size, draws, device)
    for step in range(words.steps):
        (x, y), logged = following, step % every == every - 1
        loss = trainer.step(x, y)
        following = batch(tokens, words.batch_size, model.block_size, draws, device)  # while the GPU computes
        if logged or step == 0:
            losses.append(loss.item())  # waits for the device
        if logged:
            now = time.perf_counter()
            rates.append(every * words.batch_size * model.block_size / (now - since))
            since = now
    late = rates[len(rates) // 2 :]
    tok_s = statistics.median(late)
    return {
        "batch": [words.batch_size, model.block_size],
        "tok_s": round(tok_s),
        "tok_s_all_late": [round(rate) for rate in late],
        "step_ms": round(1e3 * words.batch_size * model.block_size / tok_s, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.type == "cuda" else None,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Training throughput of a plain PyTorch GPT.")
    parser.add_argument("--data", type=Path, required=True, help="token file of uint16 ids")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--mlp", choices=["swiglu", "gelu"], default="swiglu")
    parser.add_argument("--vocab-size", type=int, default=50257)
    parser.add_argument("--speed", choices=["auto", "off"], default="auto", help="off: float32, not compiled")
    parser.add_argument("--device")
    print(json.dumps(train(parser.parse_args())))


if __name__ == "__main__":
    main()
