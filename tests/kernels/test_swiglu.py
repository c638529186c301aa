"""SwiGLU in Triton's interpreter against torch in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bottleneck_core.kernels import swiglu

pytest.importorskip("triton")
from triton import knobs

pytestmark = pytest.mark.skipif(not knobs.runtime.interpret, reason="the interpreter was not chosen before triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 100, 2048, 2100])
def test_value_and_gradient(width: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(width)
    joined = (3 * torch.randn(2, 5, 2 * width, generator=draw)).to(dtype)
    into = torch.randn(2, 5, width, generator=draw).to(dtype)
    exact = joined.double().requires_grad_()
    gate, up = exact.chunk(2, dim=-1)
    truth = F.silu(gate) * up
    (d_truth,) = torch.autograd.grad(truth, exact, into.double())
    joined.requires_grad_()
    out = swiglu(joined)
    (d_joined,) = torch.autograd.grad(out, joined, into)
    assert out.dtype == d_joined.dtype == dtype and out.shape == truth.shape
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for ours, theirs in ((out, truth), (d_joined, d_truth)):
        assert (ours.double() - theirs).norm() < bound * theirs.norm()


def test_what_a_compiler_is_told_of_it_is_true() -> None:
    joined = torch.randn(2, 3, 20, requires_grad=True)
    torch.library.opcheck(torch.ops.bottleneck_core.swiglu.default, (joined,))
    torch.library.opcheck(torch.ops.bottleneck_core.swiglu_backward.default, (joined.detach(), torch.randn(2, 3, 10)))
