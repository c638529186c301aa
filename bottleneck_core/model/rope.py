"""Rotary position embedding (RoFormer, arXiv:2104.09864), half-split layout.

Column i of a head is paired with column i + D/2 and the pair is turned by position * base^(-2i/D). Only the
difference of two positions enters q.k, so a table of angles is all the state there is.

Legend: B batch, H heads, T tokens, D head dim, P positions in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bottleneck_core.kernels.append import turn


class Rotary(nn.Module):
    """Turns queries and keys of head dim `dim` by their positions.

    One table serves every length: it starts at `positions` and doubles when a longer sequence comes, so
    lengths neither pile up in a cache nor make a compiled model recompile, except when it doubles. The
    table is float32, or float64 in a float64 model, is never saved, and is computed anew after every move or
    cast of the model.
    """

    cos: Tensor  # (P, D/2)
    sin: Tensor  # (P, D/2)

    def __init__(self, dim: int, base: float = 10000.0, positions: int = 1024) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"a rotary head dim must be even, got {dim}")
        self.dim = dim
        self.base = base
        cos, sin = self._table(positions, torch.get_default_device(), torch.get_default_dtype())
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        """Rotates x (B, H, T, D), whose first token stands at position `start`; same shape and dtype.

        `start` may be (B,), one position a request; whoever gives it reserves the positions, and those below 0, which
        are padding, count as 0. For single tokens it may also be their `angles`: one kernel then does it all.
        """
        if isinstance(start, Tensor) and start.is_floating_point():
            return turn(x, *start)
        if isinstance(start, Tensor):
            position = (start[:, None] + torch.arange(x.size(-2), device=x.device)).clamp_min(0)  # (B, T)
            cos, sin = self.cos[position][:, None], self.sin[position][:, None]  # (B, 1, T, D/2)
        else:
            end = start + x.size(-2)
            self.reserve(end)
            cos, sin = self.cos[start:end], self.sin[start:end]  # (T, D/2)
        if x.requires_grad and x.dtype == cos.dtype and not torch.compiler.is_compiling():
            return _Turned.apply(x, cos, sin)  # pyright: ignore[reportReturnType]
        left, right = x.chunk(2, dim=-1)  # (B, H, T, D/2) each
        turned = torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)
        # bf16 was turned in float32. Halves of one column (D = 2) come out of cat with H innermost, which no
        # fused attention kernel takes; for any other D `contiguous` has nothing to do.
        return turned.contiguous().to(x.dtype)

    def angles(self, position: Tensor) -> Tensor:
        """Cosines and sines (2, B, D/2) at reserved positions (B,), for all layers of a decoding step at once."""
        return torch.stack((self.cos.index_select(0, position), self.sin.index_select(0, position)))

    def reserve(self, positions: int) -> None:
        """Makes the table reach at least `positions`; done before compiling, it saves recompilations later."""
        if positions <= self.cos.size(0):
            return
        size = self.cos.size(0)
        while size < positions:
            size *= 2
        # A table made under inference_mode could not be saved for backward by the next training step.
        with torch.inference_mode(False):
            self.cos, self.sin = self._table(size, self.cos.device, self.cos.dtype)

    def _table(self, positions: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        # Angles in float64 on the CPU: in float32 the angle at position 131,072 is off by up to 0.008 rad,
        # and Apple's GPUs have no float64.
        exponent = torch.arange(0, self.dim, 2, dtype=torch.float64, device="cpu") / self.dim
        position = torch.arange(positions, dtype=torch.float64, device="cpu")
        angle = position[:, None] * self.base**-exponent  # (P, D/2)
        dtype = torch.float64 if dtype == torch.float64 else torch.float32
        return angle.cos().to(device, dtype), angle.sin().to(device, dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # `.bfloat16()` would round the table, `.double()` keep float32's rounding, `to_empty()` leave
        # garbage.
        super()._apply(fn, recurse)
        self.cos, self.sin = self._table(self.cos.size(0), self.cos.device, self.cos.dtype)
        return self


class _Turned(torch.autograd.Function):
    """x (..., T, D) turned by angles (..., T, D/2): two passes over memory, and two back. Autograd alone takes nine."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(grad, cos, sin, -1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, direction: int) -> Tensor:
    out = x * torch.cat((cos, cos), dim=-1)
    (left, right), (out_left, out_right) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    out_left.addcmul_(right, sin, value=-direction)
    out_right.addcmul_(left, sin, value=direction)
    return out
