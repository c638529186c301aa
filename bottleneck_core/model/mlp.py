"""Feed-forward layers, bias-free. Both kinds are d_ff wide, so SwiGLU has half as many weights again as GELU.

Legend: B batch, T tokens, C residual width (d_model), F feed-forward width (d_ff).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bottleneck_core import kernels
from bottleneck_core.config import ModelConfig

_KERNELS = kernels.available() is None


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), arXiv:2002.05202, without that paper's 2/3 reduction of the width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C); dropout on the output."""
        if x.size(1) == 1:  # a single token reads little, and the weights would be copied for it
            gate, up = self.gate_proj(x), self.up_proj(x)
        else:
            weight = torch.cat((self.gate_proj.weight, self.up_proj.weight))  # (2 F, C)
            joined = F.linear(x, weight)  # (B, T, 2 F)
            if _KERNELS and joined.is_cuda and joined.dtype in kernels.HALF_PRECISION:
                return self.dropout(self.down_proj(kernels.swiglu(joined)))
            if not torch.compiler.is_compiling():
                return self.dropout(self.down_proj(_Gated.apply(joined)))
            gate, up = joined.chunk(2, dim=-1)
        hidden = F.silu(gate) * up  # (B, T, F)
        return self.dropout(self.down_proj(hidden))


class _Gated(torch.autograd.Function):
    """silu(gate) * up of both joined, (..., 2 F). Autograd alone keeps two tensors more and copies the gradients."""

    @staticmethod
    def forward(ctx: Any, joined: Tensor) -> Tensor:
        ctx.save_for_backward(joined)
        gate, up = joined.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (joined,) = ctx.saved_tensors
        gate, up = joined.chunk(2, dim=-1)
        d_joined = torch.empty_like(joined)
        d_gate, d_up = d_joined.chunk(2, dim=-1)
        torch.ops.aten.silu.out(gate, out=d_up).mul_(grad)
        torch.mul(grad, up, out=d_gate)
        torch.ops.aten.silu_backward.grad_input(d_gate, gate, grad_input=d_gate)
        return d_joined


class GELU(nn.Module):
    """down(gelu(up(x))) with the exact (erf) GELU, arXiv:1606.08415."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.down_proj = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C); dropout on the output."""
        return self.dropout(self.down_proj(F.gelu(self.up_proj(x))))


def build_mlp(config: ModelConfig) -> nn.Module:
    """The feed-forward layer that `config.mlp` names."""
    return {"swiglu": SwiGLU, "gelu": GELU}[config.mlp](config)
