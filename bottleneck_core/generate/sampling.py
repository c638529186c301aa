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
        self._shares = torch.empty(0, batch)  # drawn from the streams and not used yet

    def draw(self, logits: Tensor) -> Tensor:
        """Token ids (B,) int64 drawn from logits (B, N) of any floating dtype."""
        if self.sampling.temperature == 0:
            return pick(logits, self.sampling)
        share = self.shares(1)[0].to(logits.device)
        self.use(1)
        return pick(logits, self.sampling, share)

    def shares(self, count: int) -> Tensor:
        """The uniform numbers (count, B) float32, on the CPU, that decide the next `count` tokens; none is used up."""
        missing = count - self._shares.size(0)
        if missing > 0:
            drawn = [torch.rand(missing, generator=stream) for stream in self.streams]
            self._shares = torch.cat((self._shares, torch.stack(drawn, dim=1)))
        return self._shares[:count]

    def use(self, count: int) -> None:
        """Leave the next `count` numbers behind: their tokens are drawn."""
        self._shares = self._shares[count:]


def pick(logits: Tensor, sampling: Sampling, share: Tensor | None = None) -> Tensor:
    """Token ids (B,) int64 of logits (B, N): the most likely, or those at the place `share` (B,) of the distribution.

    Only operations on the device, so that a CUDA graph can hold them.
    """
    if sampling.temperature == 0 or share is None:
        return logits.argmax(-1)
    kept = _likely(logits.float() / sampling.temperature, sampling.top_k, sampling.top_p)
    # By inverting the cumulative distribution: one uniform number a request.
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
