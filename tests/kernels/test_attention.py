"""Attention of narrow heads for training, in Triton's interpreter, against explicit products in float64."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

from bottleneck_core.kernels import attention

pytest.importorskip("triton")
from triton import knobs

interpreted = pytest.mark.skipif(not knobs.runtime.interpret, reason="the interpreter was not chosen before triton")

MODULE = importlib.import_module("bottleneck_core.kernels.attention")
TILES = {name: getattr(MODULE, name) for name in ("_FORWARD", "_QUERIES", "_KEYS")}
NAMES = ("out", "q", "k", "v", "null_k", "null_v")


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles in few tokens, whose sizes differ: queries' and keys' do not end together."""
    monkeypatch.setattr(MODULE, "_FORWARD", (32, 16, 4))
    monkeypatch.setattr(MODULE, "_QUERIES", (32, 16, 4))
    monkeypatch.setattr(MODULE, "_KEYS", (16, 32, 4))


def expected(q: Tensor, k: Tensor, v: Tensor, null: tuple[Tensor, Tensor] | None, scale: float) -> Tensor:
    """(B, T, H, V) by explicit products; heads of keys repeated."""
    copies = q.size(2) // k.size(2)
    q, k, v = (x.transpose(1, 2) for x in (q, k.repeat_interleave(copies, 2), v.repeat_interleave(copies, 2)))
    scores = scale * q @ k.transpose(2, 3)  # (B, H, T, T)
    scores = scores.masked_fill(~torch.ones(scores.shape[2:], dtype=torch.bool).tril(), float("-inf"))
    if null is not None:
        null_k, null_v = (x.repeat_interleave(copies, 0) for x in null)
        scores = torch.cat(((scale * q * null_k[:, None]).sum(3, keepdim=True), scores), 3)
        v = torch.cat((null_v[None, :, None].expand(v.size(0), -1, 1, -1), v), 2)
    return (scores.softmax(3) @ v).transpose(1, 2)


def check(
    tokens: int,
    heads: int,
    shared: int,
    K: int,
    V: int,
    *,
    null: bool,
    dtype: torch.dtype,
    bound: float,
    device: str = "cpu",
) -> None:
    """Output and all gradients, by their largest error, relative where values are large."""
    draw = torch.Generator().manual_seed(tokens + K)
    shapes = [(2, tokens, heads, K), (2, tokens, shared, K), (2, tokens, shared, V), (shared, K), (shared, V)]
    made = [torch.randn(shape, generator=draw).to(dtype) for shape in shapes]
    into = torch.randn(2, tokens, heads, V, generator=draw).to(dtype)
    inputs = [x.double().requires_grad_() for x in (made if null else made[:3])]
    truth = expected(inputs[0], inputs[1], inputs[2], (inputs[3], inputs[4]) if null else None, 0.4)
    wanted = [truth, *torch.autograd.grad(truth, inputs, into.double())]
    # The nulls are parameters in float32; queries come as a view whose heads lie before the tokens.
    ours = [made[0].transpose(1, 2).contiguous().transpose(1, 2), *made[1:3], *(x.float() for x in made[3:])]
    ours = [x.detach().to(device).requires_grad_() for x in (ours if null else ours[:3])]
    nulls = (ours[3], ours[4]) if null else (None, None)
    out = attention(ours[0], ours[1], ours[2], *nulls, 0.4)
    assert out.dtype == dtype and out.shape == truth.shape
    found = [x.cpu() for x in (out, *torch.autograd.grad(out, ours, into.to(device)))]
    for name, ours_, theirs in zip(NAMES, found, wanted, strict=False):
        assert torch.isfinite(ours_).all(), name
        assert (ours_.double() - theirs).abs().max() < bound * theirs.abs().max().clamp_min(1), name


@interpreted
@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("tokens", [1, 16, 33, 64, 71])
def test_lengths(tokens: int, null: bool) -> None:
    check(tokens, 2, 2, 12, 12, null=null, dtype=torch.float32, bound=1e-5)


@interpreted
@pytest.mark.parametrize(("K", "V"), [(2, 2), (4, 6), (12, 8), (8, 18), (16, 16), (18, 18), (32, 32)])
def test_head_dims(K: int, V: int) -> None:
    check(37, 2, 2, K, V, null=True, dtype=torch.float32, bound=1e-5)


@interpreted
@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("shared", [1, 2])
def test_shared_keys(shared: int, null: bool) -> None:
    check(40, 4, shared, 12, 12, null=null, dtype=torch.float32, bound=1e-5)


@interpreted
@pytest.mark.parametrize("null", [False, True])
def test_what_a_compiler_is_told_of_it_is_true(null: bool) -> None:
    """Shapes, strides and dtypes of results, of views too."""
    joined = torch.randn(2, 20, 3 * 4 * 12)
    q, k, v = (part.unflatten(2, (4, 12)).requires_grad_() for part in joined.split(48, dim=-1))
    nulls = [torch.randn(4, 12, requires_grad=True) for _ in range(2)] if null else [None, None]
    torch.library.opcheck(torch.ops.bottleneck_core.attention.default, (q, k, v, *nulls, 0.3))
    out, lse = torch.ops.bottleneck_core.attention(q, k, v, *nulls, 0.3)
    given = [x.detach() if x is not None else None for x in (torch.ones_like(out), q, k, v, *nulls, out, lse)]
    torch.library.opcheck(torch.ops.bottleneck_core.attention_backward.default, (*given, 0.3))


@interpreted
def test_half_precision() -> None:
    check(50, 2, 2, 12, 12, null=True, dtype=torch.float16, bound=3e-3)  # the interpreter has no products in bf16


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize(("heads", "shared", "K", "V"), [(8, 8, 12, 12), (8, 2, 18, 18), (4, 4, 4, 6), (8, 8, 32, 16)])
@pytest.mark.parametrize("tokens", [1, 100, 1024])
def test_on_the_gpu(tokens: int, heads: int, shared: int, K: int, V: int, null: bool) -> None:
    with pytest.MonkeyPatch.context() as tiles:
        for name, cut in TILES.items():
            tiles.setattr(MODULE, name, cut)
        for dtype, bound in ((torch.bfloat16, 2e-2), (torch.float16, 3e-3)):
            check(tokens, heads, shared, K, V, null=null, dtype=dtype, bound=bound, device="cuda")
