"""KV bytes and parameter counts against published values, and the formulas' own properties."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bottleneck_core as bc
from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError
from bottleneck_core.memory import FORMATS, CachePolicy, count_parameters, kv_memory

MODES = ("paper_baseline", "paper_bottleneck", "paper_decoupled", "paper_gqa")


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict:
    return json.loads((shared / "kv_golden.json").read_text(encoding="utf-8"))


def test_parameter_counts(golden: dict) -> None:
    for size, counts in golden["param_counts_vocab_50257"].items():
        for exp, count in counts.items():
            assert count_parameters(RunConfig.resolve(size=size, exp=exp), 50257) == count, (size, exp)


def test_seed_run(golden: dict) -> None:
    seed, config = golden["seed_run"], RunConfig.resolve(size="tiny", exp="paper_bottleneck")
    at_block = kv_memory(config, 1024)
    assert at_block.baseline_fp16_bytes == seed["baseline_fp16_at_1024_bytes"]
    assert at_block.bytes == seed["policy_at_1024_bytes"]
    assert at_block.compression == pytest.approx(seed["compression"], abs=1e-6)
    assert kv_memory(config, 128_000).bytes == seed["policy_at_128000_bytes"]


def test_llama_cpp_sizes_of_a_row_of_4096(golden: dict) -> None:
    row = golden["quantized"][0]
    for kind in ("fp16", "q8_0", "q4_0"):
        assert 32 * 4096 * FORMATS[kind].row_bytes(4096, 32) == row[kind] * 2**20


@pytest.mark.parametrize(
    ("kind", "width", "qblock", "expected"),
    [
        ("fp16", 96, 32, 192),
        ("fp32", 96, 32, 384),
        ("q8_0", 96, 32, 3 * 34),
        ("q4_0", 96, 32, 3 * 18),
        ("q4_0", 12, 32, 6 + 2),  # the block is the row
        ("nf4", 48, 32, 2 * 18),  # the last block is stored whole
        ("q4_0", 3, 32, 2 + 2),  # three nibbles take two bytes
        ("q8_0", 144, 64, 3 * 66),
    ],
)
def test_row_bytes(kind: str, width: int, qblock: int, expected: int) -> None:
    assert FORMATS[kind].row_bytes(width, qblock) == expected


def test_residual_rows_come_on_top_of_quantised_tensors_only() -> None:
    config = RunConfig.resolve(size="tiny", exp="paper_bottleneck", kv_cache_k="q8_0", kv_residual=128)
    k, v = kv_memory(config, 1000).tensors
    assert k.bytes == 6 * (1000 * 102 + 128 * 192)
    assert v.bytes == 6 * 1000 * 192
    short = kv_memory(config, 10)
    assert short.tensors[0].bytes == 6 * (10 * 102 + 10 * 192)
    assert short.slope_bytes_per_token == 6 * (102 + 192 + 192)
    assert kv_memory(config, 1000).slope_bytes_per_token == 6 * (102 + 192)


def test_q4_alone_keeps_geometric_keys_at_eight_bits() -> None:
    alone = RunConfig.resolve(size="tiny", exp="paper_decoupled", kv_cache="q4_0")
    assert {t.name: t.kind for t in kv_memory(alone, 8).tensors} == {
        "k_sem": "q4_0",
        "k_geo": "q8_0",
        "v": "q4_0",
    }
    named = RunConfig.resolve(size="tiny", exp="paper_decoupled", kv_cache="q4_0", kv_cache_k_geo="q4_0")
    assert {t.kind for t in kv_memory(named, 8).tensors} == {"q4_0"}


def test_page_storage_counts_whole_pages() -> None:
    config = RunConfig.resolve(size="tiny", exp="paper_bottleneck")
    assert kv_memory(config, 17, page=16).bytes == kv_memory(config, 32).bytes
    assert kv_memory(config, 32, page=16).bytes == kv_memory(config, 32).bytes


@given(
    exp=st.sampled_from(MODES),
    context=st.integers(1, 5000),
    batch=st.integers(1, 9),
    kind=st.sampled_from(sorted(FORMATS)),
    qblock=st.integers(1, 200),
    residual=st.integers(0, 300),
)
def test_bytes_are_what_the_tokens_add_up_to(exp, context, batch, kind, qblock, residual) -> None:
    config = RunConfig.resolve(size="nano", exp=exp)
    policy = CachePolicy(kind=kind, qblock=qblock, residual=residual)
    size = kv_memory(config, context, batch, policy)
    assert size.bytes == sum(tensor.bytes for tensor in size.tensors) == size.totals["logical"]
    longer = kv_memory(config, context + 1, batch, policy)
    assert longer.bytes - size.bytes == size.slope_bytes_per_token * batch
    assert kv_memory(config, 1, 1, policy).bytes == size.bytes_per_token


def test_sources_and_mistakes_of_the_public_function() -> None:
    config = RunConfig.resolve(size="nano", exp="paper_gqa")
    as_dict = {"attn_mode": "gqa", "n_layer": 4, "d_model": 128, "n_head": 4, "kv_head": 1, "attn_dim": 128}
    assert bc.kv_memory(as_dict, 100) == bc.kv_memory(config, 100)
    assert bc.kv_memory(config, 100, policy={"kv_cache": "q8_0"}).tensors[0].kind == "q8_0"
    for bad in (
        lambda: bc.kv_memory(config, 0),
        lambda: bc.kv_memory({"attn_mode": "gqa"}, 5),
        lambda: bc.kv_memory(config, 5, policy={"kv_cache": "q3"}),
        lambda: bc.kv_memory(as_dict | {"attn_mode": "mamba"}, 5),
    ):
        with pytest.raises(UserError):
            bad()
