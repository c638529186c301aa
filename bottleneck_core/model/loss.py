"""The mean cross-entropy under an output embedding, on the CPU: logits that become their own gradient.

F.cross_entropy keeps the logits' log-softmax and makes their gradient anew; each is the largest tensor of a step, and a
CPU's allocator gives such back to the system every time, which clears its pages again. Here a chunk of tokens has one
buffer: logits, exponentials, gradient, and both products with it follow at once.

Legend: N tokens, n those of a chunk, E embedding width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bottleneck_core.kernels import IGNORED

# Fewer tokens at a time would read and write the weight's gradient more often than the logits.
_BUFFER_BYTES = 256 << 20


def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log softmax(hidden weight^T)[target] over targets that are not -100: a scalar in nats.

    hidden (N, E) and weight (V, E) of one dtype, float32 or float64; targets (N,) int64. NaN where no target counts, as
    in torch. Differentiable once.
    """
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        return _CrossEntropy.apply(hidden, weight, targets)  # pyright: ignore[reportReturnType]
    losses = [_exponentials(part, weight, chosen)[0] for part, chosen in _chunks(hidden, weight, targets)]
    return torch.cat(losses).sum() / _count(targets)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        count, losses, d_hidden, d_weight = _count(targets), [], [], None
        for part, chosen in _chunks(hidden, weight, targets):
            loss, exponentials, total = _exponentials(part, weight, chosen)
            counts = chosen != IGNORED
            # softmax - one-hot, both times `total`: divided out of what is narrower, (n, E).
            exponentials.scatter_add_(1, chosen.clamp_min(0)[:, None], -total)
            share = counts[:, None] / (total * count)  # (n, 1)
            d_hidden.append((exponentials @ weight).mul_(share))
            scaled = part * share
            if d_weight is None:
                d_weight = exponentials.T @ scaled
            else:
                d_weight.addmm_(exponentials.T, scaled)
            losses.append(loss)
        ctx.save_for_backward(torch.cat(d_hidden), d_weight)
        return torch.cat(losses).sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_loss: Tensor) -> tuple[Tensor, Tensor, None]:
        d_hidden, d_weight = ctx.saved_tensors
        if of_loss.item() != 1:  # no gradient is accumulated: nothing to do for the largest of all parameters
            d_hidden, d_weight = d_hidden * of_loss, d_weight * of_loss
        return d_hidden, d_weight, None


def _chunks(hidden: Tensor, weight: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs of (n, E) and (n,) whose logits fit the buffer, as equal as they can be."""
    count = -(-hidden.size(0) * weight.size(0) * hidden.element_size() // _BUFFER_BYTES)
    return list(zip(hidden.tensor_split(count), targets.tensor_split(count), strict=True))


def _exponentials(hidden: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses (n,), 0 where none counts; exp(logits - the largest) (n, V) and its sums (n, 1)."""
    logits = hidden @ weight.T
    chosen = logits.gather(1, targets.clamp_min(0)[:, None])  # (n, 1)
    largest = logits.amax(1, keepdim=True)
    exponentials = logits.sub_(largest).exp_()
    total = exponentials.sum(1, keepdim=True)
    losses = (total.log() + largest - chosen)[:, 0]
    return losses.masked_fill_(targets == IGNORED, 0), exponentials, total


def _count(targets: Tensor) -> Tensor:
    return (targets != IGNORED).sum()
