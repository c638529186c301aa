"""The fused linear cross-entropy, in Triton's interpreter, against torch's own in float64."""

from __future__ import annotations

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bottleneck_core.kernels import linear_cross_entropy

pytest.importorskip("triton")
from triton import knobs

pytestmark = pytest.mark.skipif(not knobs.runtime.interpret, reason="the interpreter was not chosen before triton")

WIDTH = 16
MODULE = importlib.import_module("bottleneck_core.kernels.linear_cross_entropy")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 64 columns: a vocabulary of 300 has several whole ones and a part of one."""
    monkeypatch.setattr(MODULE, "_PARTS", 2)
    monkeypatch.setattr(MODULE, "_COLUMNS", 32)


def data(tokens: int, vocab: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    """x (tokens, WIDTH) and weight (vocab, WIDTH), values that `dtype` holds exactly, and targets."""
    draw = torch.Generator().manual_seed(7)
    x = torch.randn(tokens, WIDTH, generator=draw).to(dtype).float()
    weight = torch.randn(vocab, WIDTH, generator=draw).to(dtype).float()
    return x, weight, torch.randint(vocab, (tokens,), generator=draw)


def expected(x: Tensor, weight: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients in float64."""
    x, weight = x.double().requires_grad_(), weight.double().requires_grad_()
    loss = F.cross_entropy(x @ weight.T, targets)
    dx, dw = torch.autograd.grad(loss, (x, weight))
    return loss, dx, dw


def relative(ours: Tensor, truth: Tensor) -> float:
    return float((ours.double() - truth).norm() / truth.norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk", [1, 5, 9, 100])
@pytest.mark.parametrize("vocab", [3, 128, 300])
def test_loss_and_gradients(dtype: torch.dtype, chunk: int, vocab: int) -> None:
    x, weight, targets = data(9, vocab, dtype)
    truth, dx, dw = expected(x, weight, targets)
    x.requires_grad_()
    weight.requires_grad_()
    loss = linear_cross_entropy(x, weight, targets, dtype, chunk)
    (3 * loss).backward()
    assert x.grad is not None and weight.grad is not None
    assert loss.dtype == weight.grad.dtype == torch.float32 and weight.grad.shape == weight.shape
    bound = 2e-2 if dtype == torch.bfloat16 else 3e-3  # logits and their gradients are rounded to `dtype`
    assert abs(loss.item() - truth.item()) < bound
    assert relative(x.grad, 3 * dx) < bound and relative(weight.grad, 3 * dw) < bound


def test_without_gradients_no_gradient_is_computed_and_the_loss_is_the_same() -> None:
    x, weight, targets = data(9, 300)
    weight.requires_grad_()
    with_gradients = linear_cross_entropy(x, weight, targets, torch.bfloat16, 4)
    with torch.no_grad():
        without = linear_cross_entropy(x, weight, targets, torch.bfloat16, 4)
    assert not without.requires_grad and without == with_gradients


def test_ignored_targets_count_nowhere() -> None:
    x, weight, targets = data(9, 300)
    targets[2], targets[8] = -100, -100
    truth, dx, dw = expected(x, weight, targets)
    x.requires_grad_()
    weight.requires_grad_()
    loss = linear_cross_entropy(x, weight, targets, torch.bfloat16, 4)
    loss.backward()
    assert x.grad is not None and weight.grad is not None
    assert abs(loss.item() - truth.item()) < 2e-2
    assert relative(x.grad, dx) < 2e-2 and relative(weight.grad, dw) < 2e-2
    assert (x.grad[[2, 8]] == 0).all()


def test_large_logits_overflow_nothing() -> None:
    x, weight, targets = data(5, 300)
    truth, *_ = expected(60 * x, weight, targets)
    loss = linear_cross_entropy(60 * x, weight, targets, torch.bfloat16, 5)
    assert abs(loss.item() / truth.item() - 1) < 1e-2


def test_a_mean_over_many_tokens_does_not_vanish_in_half_precision() -> None:
    x, weight, targets = data(64, 300, torch.float16)
    _, dx, _ = expected(x, weight, targets)
    x.requires_grad_()
    loss = linear_cross_entropy(x, weight, targets, torch.float16, 64)
    (loss * 2.0**16).backward()  # what a loss scaler does
    assert x.grad is not None
    assert relative(x.grad, 2.0**16 * dx) < 5e-3


def test_what_a_compiler_is_told_of_it_is_true() -> None:
    x, weight, targets = data(9, 300)
    x, weight = x.bfloat16().requires_grad_(), weight.requires_grad_()
    torch.library.opcheck(torch.ops.bottleneck_core.linear_cross_entropy.default, (x, weight, targets, 4))
    inputs = (x.detach(), weight.detach(), targets, 4)
    torch.library.opcheck(torch.ops.bottleneck_core.linear_cross_entropy_value.default, inputs)
