"""From logits to the next token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is drawn: temperature 0 takes the most likely one; `top_k` and `top_p` (nucleus sampling,
    arXiv:1904.09751) keep only the likely ones, in this order. Raises ValueError for values out of range."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or (self.top_k is not None and self.top_k < 1):
            raise ValueError("temperature must be at least 0, top_k at least 1, and top_p above 0 and at most 1")


class Sampler:
    """Draws tokens for a batch; every request has its own random stream, so that its neighbours do not matter.

    Requests are numbered from 0: request i of seed s draws the same, alone or in any batch where it is the i-th.
    """

    def __init__(self, sampling: Sampling, seed: int, batch: int) -> None:
        self.sampling = sampling
        # On the CPU: the numbers then do not depend on the device.
        self.streams = [torch.Generator("cpu").manual_seed((seed * 1_000_003 + row) % 2**63) for row in range(batch)]

    def draw(self, logits: Tensor) -> Tensor:
        """Token ids (B,) int64 drawn from logits (B, N) of any floating dtype."""
        sampling = self.sampling
        if sampling.temperature == 0:
            return logits.argmax(-1)
        kept = _likely(logits.float() / sampling.temperature, sampling.top_k, sampling.top_p)
        # By inverting the cumulative distribution: one uniform number a request.
        share = torch.cat([torch.rand(1, generator=stream) for stream in self.streams]).to(logits.device)
        cumulative = kept.softmax(-1).double().cumsum(-1)
        token = torch.searchsorted(cumulative, (share * cumulative[:, -1])[:, None], right=True).squeeze(-1)
        # Rounding may place the number at the very end, behind the last token that is possible.
        last = kept.shape[-1] - 1 - kept.isfinite().flip(-1).int().argmax(-1)
        return torch.minimum(token, last)


def _likely(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """Logits (B, N) with -inf at tokens that may not be drawn; the most likely one always may."""
    if top_k is not None and top_k < logits.size(-1):
        least = logits.topk(top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        share = ordered.softmax(-1)
        outside = share.cumsum(-1) - share >= top_p  # all that stands before it is enough already
        logits = logits.masked_fill(outside.scatter(-1, order, outside), float("-inf"))
    return logits
