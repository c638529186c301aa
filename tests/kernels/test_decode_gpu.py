"""Fused decode compiled, on a GPU: the cases of the interpreter, a long cache, and no compilation as it grows."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from bottleneck_core.kernels import Tuning, decode

from .packed_cases import Case, build, expected, varied

pytest.importorskip("triton")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]

BOUND = 2e-3  # of the norm; bf16 keys or values: 1e-2


def error(case: Case, tuning: Tuning | None = None) -> float:
    """||out - truth|| / ||truth||."""
    built = build(case, "cuda")
    out = decode(built.q, built.keys, built.value, tuning=tuning, **built.options)
    truth = expected(built)
    return float(np.linalg.norm(out.double().cpu().numpy() - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("name", varied())
@pytest.mark.parametrize("tuning", [None, Tuning(block_n=32, num_warps=8, num_stages=2, splits=3, kernel="bytes")])
def test_against_float64(name: str, tuning: Tuning | None) -> None:
    case = varied()[name]
    loose = case.dtype == torch.bfloat16 or "bf16" in (case.value[0], *(key[0] for key in case.keys))
    assert error(case, tuning) < (1e-2 if loose else BOUND)


WORDS = ("fp16 12", "fp8", "q8_0", "q4_0 6", "nf4", "decoupled", "decoupled, left padding", "grouped queries")


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize(
    "tuning",
    [
        Tuning(32, 1, 2, splits=3, kernel="words"),
        Tuning(64, 2, 2, registers=128, fold=False, kernel="words"),
        Tuning(64, 4, 3, kernel="words"),
    ],
)
def test_words_against_float64(name: str, tuning: Tuning) -> None:
    assert error(varied()[name], tuning) < BOUND


@pytest.mark.parametrize("kernel", ["bytes", ""])
@pytest.mark.parametrize("name", ["decoupled", "standard", "nf4"])
def test_long_cache(name: str, kernel: Literal["", "bytes"]) -> None:
    """131,072 tokens, where a sum in fp16 or a wrong span would show."""
    case = {
        "decoupled": varied()["decoupled"].but(first=(0, 100_000)),
        "standard": Case((("fp16", 64, 0),), ("fp16", 64, 0), heads=8, cached_heads=8),
        "nf4": Case((("nf4", 12, 32),), ("nf4", 12, 32), heads=8, cached_heads=8, ring=128),
    }[name]
    assert error(case.but(tokens=131_072, page=1024), Tuning(kernel=kernel)) < BOUND


def test_nothing_is_compiled_as_the_cache_grows() -> None:
    from bottleneck_core.kernels import triton_decode, triton_words

    case = varied()["decoupled"]
    error(case.but(tokens=200))  # more than the window, and more than one span
    kernels = triton_decode.spans, triton_decode.merge, triton_words.word_spans
    before = [len(kernel.device_caches[torch.cuda.current_device()][0]) for kernel in kernels]
    for tokens in (201, 208, 256, 512, 999, 5000):
        assert error(case.but(tokens=tokens)) < BOUND
    assert [len(kernel.device_caches[torch.cuda.current_device()][0]) for kernel in kernels] == before


def test_a_captured_graph_repeats_the_result() -> None:
    built = build(varied()["decoupled"], "cuda")
    plain = decode(built.q, built.keys, built.value, **built.options)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = decode(built.q, built.keys, built.value, **built.options)
    out.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, plain)
