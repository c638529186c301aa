"""The engine with fused kernels against the engine without: on the CPU in Triton's interpreter, on a GPU compiled."""

from __future__ import annotations

import pytest
import torch

from bottleneck_core.generate import Engine, Plan
from bottleneck_core.memory import CachePolicy, kv_memory
from bottleneck_core.model import build_model
from tests.model.tiny_models import MODES, scrambled, tiny

pytest.importorskip("triton")

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
POLICIES = {
    "native": None,
    "fp16": CachePolicy(kind="fp16"),
    "mixed": CachePolicy(kinds={"k": "q8_0", "k_sem": "q4_0", "k_geo": "q8_0", "v": "nf4"}, residual=3, hadamard=True),
    "edges": CachePolicy(kind="q4_0", residual=0, first_layers=1, edge_kind="bf16"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_fused_decoding_is_streamed_decoding(mode: str, policy: CachePolicy | None) -> None:
    """Prompts of different length, null key, a truncation within the window; one and two passes."""
    model = scrambled(tiny(mode, null_attn=True, n_layer=2), dtype=torch.float32).to(DEVICE)
    prompts = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3], [2, 7, 1, 8]]
    logits = {}
    for fused in ("none", "triton1pass", "triton2pass"):
        engine = Engine(model, policy, plan=Plan(fused=fused), page=16)
        engine.prefill(prompts)
        steps = [engine.feed(torch.tensor([[5], [6]], device=DEVICE))]
        engine.cache.truncate(9)
        engine.tokens = [row[: len(row) - 2] for row in engine.tokens]
        for token in (1, 2, 3):
            steps.append(engine.feed(torch.tensor([[token], [token]], device=DEVICE)))
        assert engine.fallback is None
        logits[fused] = torch.cat(steps, dim=1)
    spread = logits["none"].std()
    for fused in ("triton1pass", "triton2pass"):
        # queries, codes and weights meet in fp16
        assert (logits[fused] - logits["none"]).abs().max() < 0.02 * spread


def test_what_no_kernel_reads_falls_back_with_a_reason() -> None:
    engine = Engine(scrambled(tiny("standard")), plan=Plan(fused="triton2pass"))
    engine.prefill([[1, 2]])
    engine.feed(torch.tensor([[1]]))
    assert engine.fallback == "fused decoding does not read float64"
    engine = Engine(
        scrambled(tiny("standard"), dtype=torch.float32),
        CachePolicy(kind="q5_0", residual=0),
        plan=Plan(fused="triton2pass"),
    )
    engine.prefill([[1, 2]])
    engine.feed(torch.tensor([[1]]))
    assert engine.fallback and "q5_0" in engine.fallback


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs CUDA")
@pytest.mark.parametrize("kind", ["fp16", "q8_0", "q4_0", "nf4", "q5_0", "fp8"])
@pytest.mark.parametrize("mode", MODES)
def test_a_long_cache_takes_what_was_accounted(mode: str, kind: str) -> None:
    """131,072 tokens of a model of size tiny's layers; also by the allocator's own count."""
    shape = {"standard": {}, "gqa": {"attn_dim": 512, "kv_head": 2}, "bottleneck": {"attn_dim": 96}}
    dims = shape.get(mode, {"sem_dim": 32, "geo_dim": 64, "attn_dim": 96})
    config = tiny(mode, n_layer=2, d_model=512, n_head=8, block_size=1024, embed_dim=512, **{"kv_head": None, **dims})
    model = build_model(config, device="cuda", dtype=torch.bfloat16)
    policy = CachePolicy(kind=kind)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    engine = Engine(model, policy, page=1024)
    generator = torch.Generator("cuda").manual_seed(0)
    for tensors in engine.cache.layers:
        for begin in range(0, 131_072, 8192):
            rows = {
                name: torch.randn(1, 8192, tensor.width, device="cuda", generator=generator, dtype=torch.bfloat16)
                for name, tensor in tensors.items()
            }
            for name, tensor in tensors.items():
                tensor.write(rows[name], begin)
        del rows
    engine.cache.length = 131_072
    predicted = kv_memory(config, 131_072, 1, policy, page=1024).bytes
    assert engine.cache.allocated_bytes == predicted
    taken = torch.cuda.memory_allocated() - before
    assert predicted <= taken <= predicted * 1.02 + 2**20, "the allocator rounds each page to 512 bytes"
