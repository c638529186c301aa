"""torch.compile without graph breaks, and bf16 autocast, in every mode."""

from __future__ import annotations

import shutil

import pytest
import torch
from tiny_models import MODES, scrambled, tiny, tokens
from torch import Tensor

from bottleneck_core.config import ModelConfig
from bottleneck_core.model import GPT

EVERY_MODE = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


def loss_and_gradients(model: GPT, idx: Tensor, targets: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss = model(idx, targets)
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def assert_compiles(config: ModelConfig, backend: str, grad_checkpoint: bool = False) -> None:
    model = scrambled(config)
    model.grad_checkpoint = grad_checkpoint
    idx, targets = tokens(2, 9), tokens(2, 9, seed=2)
    names = list(model.state_dict())
    eager = loss_and_gradients(model, idx, targets)
    model.compile(backend=backend, fullgraph=True)  # in place, so that names keep no `_orig_mod.`
    torch.testing.assert_close(loss_and_gradients(model, idx, targets), eager, rtol=0, atol=1e-9)
    assert list(model.state_dict()) == names


@EVERY_MODE
def test_every_mode_is_one_graph(mode: str) -> None:
    assert_compiles(tiny(mode, n_layer=1, null_attn=True, embed_dim=10), "aot_eager")


def test_gradient_checkpointing_is_one_graph() -> None:
    assert_compiles(tiny("decoupled", n_layer=1, null_attn=True, tie_qk=True), "aot_eager", grad_checkpoint=True)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_computes_the_same() -> None:
    """The forward pass alone: generating C++ takes a good part of a minute, and aot_eager has checked the backward."""
    model = scrambled(tiny("decoupled", n_layer=1, null_attn=True))
    idx, targets = tokens(2, 9), tokens(2, 9, seed=2)
    with torch.no_grad():
        expected = model(idx, targets)
        model.compile(fullgraph=True)
        torch.testing.assert_close(model(idx, targets), expected, rtol=0, atol=1e-12)


def test_new_lengths_do_not_recompile() -> None:
    graphs: list[int] = []

    def counting(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        graphs.append(1)
        return graph

    model = scrambled(tiny("bottleneck", n_layer=1, null_attn=True))
    compiled = torch.compile(model, backend=counting, fullgraph=True)
    seen = []
    with torch.no_grad():
        for length in (16, 9, 5, 12, 40, 50, 64):  # the table has 16 positions, then 64
            torch.testing.assert_close(compiled(tokens(1, length)), model(tokens(1, length)))
            seen.append(len(graphs))
    assert seen[3] <= 2, "one graph for the first length, one for all others"
    assert seen[-1] <= 4, "and two where the rotary table doubles"


@EVERY_MODE
@pytest.mark.parametrize("head_dim", [2, 12])
def test_bf16_autocast_is_close_to_float32(mode: str, head_dim: int) -> None:
    width = 4 * head_dim
    config = tiny(mode, d_model=48, embed_dim=48, attn_dim=width, sem_dim=width, geo_dim=width, null_attn=True)
    model = scrambled(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.2)  # where rounding is not amplified
    idx, targets = tokens(2, 9), tokens(2, 9, seed=2)
    exact = loss_and_gradients(model, idx, targets)
    with torch.autocast("cpu", torch.bfloat16):
        projected = model.blocks[0].attn.project(model.embed_tokens(idx))
        rounded = loss_and_gradients(model, idx, targets)
    assert {projected.q.dtype, projected.k.dtype, projected.v.dtype} == {torch.bfloat16}
    assert rounded[0].dtype == torch.float32
    torch.testing.assert_close(rounded[0], exact[0], rtol=0.01, atol=0)
    for one, other in zip(rounded[1:], exact[1:], strict=True):
        assert (one - other).norm() < 0.1 * other.norm() + 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@EVERY_MODE
def test_cuda_in_bf16_and_float32_equals_the_reference(mode: str) -> None:
    config = tiny(mode, d_model=64, embed_dim=64, attn_dim=48, sem_dim=16, geo_dim=64, null_attn=True)
    idx = tokens(2, 300)
    exact = scrambled(config, "reference")(idx)
    model = scrambled(config, dtype=torch.float32).cuda()
    for enabled, tolerance in ((False, 1e-4), (True, 0.05)):
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            logits = model(idx.cuda())
        assert (logits.cpu() - exact).abs().max() < tolerance * exact.abs().max()
