"""Muon over all matrices of one shape at a time.

PyTorch's optimiser turns one matrix after another: of the tiny model some 40, with 15 small products each. Matrices of
one shape in one batched product are the same arithmetic in a tenth of the launches.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class BatchedMuon(torch.optim.Muon):
    """`torch.optim.Muon` (its arguments, its state, its results up to bf16's rounding), batched by shape.

    Sharded parameters (DTensor) are left to PyTorch's own step. The learning rate may be a tensor, as a CUDA graph of
    the step wants it.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        parameters = [p for group in self.param_groups for p in group["params"]]
        if any(isinstance(p, DTensor) for p in parameters):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            of_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    of_shape[p.shape].append(p)
            for alike in of_shape.values():
                self._move(alike, group)
        return loss

    def _move(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One update of parameters of one shape."""
        gradients: list[Any] = [p.grad for p in parameters]
        moments = []
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
            moments.append(self.state[p]["momentum_buffer"])
        keep = group["momentum"]
        for moment, gradient in zip(moments, gradients, strict=True):
            moment.lerp_(gradient, 1 - keep)
        updates = torch.stack(moments)
        if group["nesterov"]:
            updates = torch.stack(gradients).lerp_(updates, keep)
        turned = orthogonalized(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = parameters[0].shape
        # AdamW's root mean square (arXiv:2502.16982), or the original rule.
        alike = group["adjust_lr_fn"] == "match_rms_adamw"
        ratio = 0.2 * math.sqrt(max(rows, columns)) if alike else math.sqrt(max(1, rows / columns))
        shrink = 1 - group["lr"] * group["weight_decay"]
        for p, update in zip(parameters, turned, strict=True):
            p.mul_(shrink).sub_(update * (group["lr"] * ratio))


def orthogonalized(x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Matrices x (n, rows, columns) with their singular values near 1, in bf16, by `steps` Newton-Schulz steps."""
    a, b, c = coefficients
    tall = x.size(1) > x.size(2)
    x = x.bfloat16()
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)  # the largest singular value is at most 1
    for _ in range(steps):
        gram = x @ x.mT
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return x.mT if tall else x
