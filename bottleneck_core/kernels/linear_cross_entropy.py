"""The mean cross-entropy of tokens under an output embedding, without logits that outlive it.

The logits are the largest tensor of a training step: 1.6 GB for 16 x 1,024 tokens of GPT-2's vocabulary in bf16, and
autograd keeps them, their float32 copy and their gradient. Here a chunk of tokens has its logits, which their own
gradient replaces, and both products with it follow at once; after that they are gone. The idea is that of
arXiv:2410.10989; here the chunks are as large as the matrix units like them.

Legend: N tokens, E embedding width, V vocabulary, P the vocabulary padded to a multiple of 128.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

HALF_PRECISION = (torch.bfloat16, torch.float16)
IGNORED = -100  # the target that does not count, as in torch
# Padded rows are aligned, which the fast matrix kernels ask for.
_PADDING = 128
# Parts and columns of a kernel's tile, its warps, and programs a multiprocessor, measured on an H200.
_PARTS, _COLUMNS, _WARPS, _PROGRAMS = 4, 2048, 8, 3


def linear_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype, chunk: int) -> Tensor:
    """Mean of -log softmax(x weight^T)[target] over targets that are not -100: a scalar, float32, in nats.

    x (N, E) and weight (V, E) meet in `dtype`, one of HALF_PRECISION; targets (N,) int64. At most `chunk` tokens have
    logits at a time. Gradients: x's in `dtype`, weight's summed in float32. Needs Triton (`available`). NaN where no
    target counts, as in torch.
    """
    if torch.is_grad_enabled():
        return torch.ops.bottleneck_core.linear_cross_entropy(x.to(dtype), weight, targets, chunk)[0]
    return torch.ops.bottleneck_core.linear_cross_entropy_value(x.to(dtype), weight, targets, chunk)


@torch.library.custom_op("bottleneck_core::linear_cross_entropy_value", mutates_args=())
def _value(x: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
    padded, losses = _padded(weight, x.dtype), x.new_empty(x.size(0), dtype=torch.float32)
    with torch.autocast(x.device.type, enabled=False):
        for part in _parts(x.size(0), chunk):
            _rows(x[part] @ padded.T, targets[part], losses[part], weight.size(0), gradient=False)
    return losses.sum() / _count(targets)


@_value.register_fake
def _(x: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
    return x.new_empty((), dtype=torch.float32)


@torch.library.custom_op("bottleneck_core::linear_cross_entropy", mutates_args=())
def _with_gradients(x: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss; the gradients of the losses' sum to x (N, E) and to weight (V, E), float32; how many targets count."""
    padded, losses = _padded(weight, x.dtype), x.new_empty(x.size(0), dtype=torch.float32)
    dx, dw = torch.empty_like(x), None
    with torch.autocast(x.device.type, enabled=False):
        for part in _parts(x.size(0), chunk):
            gradient = x[part] @ padded.T  # (n, P) logits, and from the next line on their gradient
            _rows(gradient, targets[part], losses[part], weight.size(0), gradient=True)
            torch.mm(gradient, padded, out=dx[part])
            dw = _added_product(dw, gradient.T, x[part])
    assert dw is not None
    count = _count(targets)
    return losses.sum() / count, dx, dw[: weight.size(0)], count


@_with_gradients.register_fake
def _(x: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    loss = x.new_empty((), dtype=torch.float32)
    return loss, torch.empty_like(x), torch.empty_like(weight, dtype=torch.float32), targets.new_empty(())


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    _, dx, dw, count = output
    ctx.mark_non_differentiable(dx, dw, count)
    ctx.save_for_backward(dx, dw, count)
    ctx.weight_dtype = inputs[1].dtype


def _backward(ctx: Any, of_loss: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, None, None]:
    dx, dw, count = ctx.saved_tensors
    # Only here, in float32: in fp16 the gradient of a mean over many tokens would be 0 before a loss scale lifts it.
    scale = of_loss / count
    return (dx * scale).to(dx.dtype), (dw * scale).to(ctx.weight_dtype), None, None


_with_gradients.register_autograd(_backward, setup_context=_keep)


def _padded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(V, E) -> (P, E) in `dtype`, zeros below."""
    vocab, width = weight.shape
    padded = weight.new_empty(vocab + -vocab % _PADDING, width, dtype=dtype)
    padded[:vocab] = weight
    padded[vocab:] = 0
    return padded


def _parts(tokens: int, chunk: int) -> list[slice]:
    """`tokens` cut into as few parts as have at most `chunk` each, as equal as they can be."""
    count = -(-tokens // chunk)
    ends = [tokens * i // count for i in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _rows(logits: Tensor, targets: Tensor, losses: Tensor, vocab: int, gradient: bool) -> None:
    """Fills losses (n,) from logits (n, P), and with `gradient` puts softmax minus one-hot in the logits' place."""
    from bottleneck_core.kernels.triton_cross_entropy import cross_entropy_rows

    rows = logits.size(0)
    programs = rows
    if logits.is_cuda:
        programs = min(rows, _PROGRAMS * torch.cuda.get_device_properties(logits.device).multi_processor_count)
    launch: Any = cross_entropy_rows[(programs,)]
    launch(
        logits, targets, losses, rows, vocab, logits.stride(0), IGNORED,
        GRADIENT=gradient, R=_PARTS, C=_COLUMNS, num_warps=_WARPS,
    )  # fmt: skip


def _added_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """total + a b in float32."""
    if not a.is_cuda:  # float32 products of half precision are CUDA's alone
        product = a.float() @ b.float()
        return product if total is None else total + product
    if total is None:
        return torch.mm(a, b, out_dtype=torch.float32)
    return torch.addmm(total, a, b, out_dtype=torch.float32)


def _count(targets: Tensor) -> Tensor:
    return (targets != IGNORED).sum()
