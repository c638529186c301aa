"""The loss that reuses its logits: the value and gradients of F.cross_entropy, whatever the chunks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bottleneck_core.model import loss as losses
from bottleneck_core.model.loss import cross_entropy

N, E, V = 11, 6, 29


def inputs(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = (scale * torch.randn(N, E, dtype=dtype)).requires_grad_()
    weight = torch.randn(V, E, dtype=dtype, requires_grad=True)
    return hidden, weight, torch.randint(0, V, (N,))


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(hidden @ weight.T, targets)


@pytest.mark.parametrize("tokens", [1, 3, 4, N, 100])
@pytest.mark.parametrize("ignored", [(), (0, 5, 10)])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_value_and_gradients(monkeypatch: pytest.MonkeyPatch, tokens: int, ignored: tuple[int, ...], factor: float):
    monkeypatch.setattr(losses, "_BUFFER_BYTES", tokens * V * 8)
    hidden, weight, targets = inputs()
    targets[list(ignored)] = losses.IGNORED
    expected = plain(hidden, weight, targets)
    wanted = torch.autograd.grad(factor * expected, (hidden, weight))
    loss = cross_entropy(hidden, weight, targets)
    found = torch.autograd.grad(factor * loss, (hidden, weight))
    torch.testing.assert_close((loss, *found), (expected, *wanted), rtol=1e-12, atol=1e-14)
    with torch.no_grad():
        torch.testing.assert_close(cross_entropy(hidden, weight, targets), expected.detach(), rtol=1e-12, atol=0)


def test_gradients_numerically() -> None:
    hidden, weight, targets = inputs()
    assert torch.autograd.gradcheck(lambda h, w: cross_entropy(h, w, targets), (hidden, weight))


def test_logits_far_apart_neither_overflow_nor_vanish() -> None:
    hidden, weight, targets = inputs(torch.float32, scale=1e4)
    expected = plain(hidden.double(), weight.double(), targets)
    loss = cross_entropy(hidden, weight, targets)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    loss.backward()
    assert hidden.grad is not None and torch.isfinite(hidden.grad).all()


def test_no_target_that_counts_is_nan_as_in_torch() -> None:
    hidden, weight, targets = inputs()
    targets[:] = losses.IGNORED
    assert torch.isnan(plain(hidden, weight, targets)) and torch.isnan(cross_entropy(hidden, weight, targets))


def test_a_second_backward_pass_finds_what_the_first_did() -> None:
    hidden, weight, targets = inputs()
    loss = cross_entropy(hidden, weight, targets)
    first = torch.autograd.grad(0.5 * loss, (hidden, weight), retain_graph=True)
    again = torch.autograd.grad(0.5 * loss, (hidden, weight))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
