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
    qblock=st.integers(1, 100).map(lambda half: 2 * half),  # below 8 bits a block is even
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


def test_edges_and_single_layers_make_rows_of_their_own() -> None:
    # tiny bottleneck: 6 layers of width 96; layers 0 and 5 at the edges in fp16 (192 B), layer 2's k in q4_0 (54 B),
    # the others in q8_0 (102 B) and 3 residual tokens of 192 B beside every quantised one.
    config = RunConfig.resolve(size="tiny", exp="paper_bottleneck")
    policy = CachePolicy(kind="q8_0", residual=3, first_layers=1, last_layers=1, layer_kinds={2: {"k": "q4_0"}})
    size = kv_memory(config, 10, policy=policy)
    assert [(t.name, t.kind, t.layers, t.bytes) for t in size.tensors] == [
        ("k", "fp16", 2, 2 * 10 * 192),
        ("v", "fp16", 2, 2 * 10 * 192),
        ("k", "q8_0", 3, 3 * (10 * 102 + 3 * 192)),
        ("v", "q8_0", 4, 4 * (10 * 102 + 3 * 192)),
        ("k", "q4_0", 1, 10 * 54 + 3 * 192),
    ]
    whole = kv_memory(config, 10, policy=CachePolicy(kind="q8_0", first_layers=6))
    assert whole.bytes == kv_memory(config, 10).bytes


def test_the_residual_ring_is_not_paged() -> None:
    config = RunConfig.resolve(size="tiny", exp="paper_bottleneck")
    size = kv_memory(config, 17, policy=CachePolicy(kind="q8_0", residual=20), page=16)
    assert size.bytes == 2 * 6 * (32 * 102 + 17 * 192)
    assert size.tensors[0].tokens == 32


@given(
    exp=st.sampled_from(MODES),
    context=st.integers(1, 3000),
    batch=st.integers(1, 5),
    kind=st.sampled_from(sorted(FORMATS)),
    page=st.integers(1, 300),
)
def test_sizes_never_shrink_and_totals_are_ordered(exp, context, batch, kind, page) -> None:
    config = RunConfig.resolve(size="nano", exp=exp)
    policy = CachePolicy(kind=kind)
    size = kv_memory(config, context, batch, policy)
    paged = kv_memory(config, context, batch, policy, page)
    assert paged.bytes >= size.bytes
    assert paged.bytes == sum(tensor.bytes for tensor in paged.tensors)
    assert kv_memory(config, context + 1, batch, policy, page).bytes >= paged.bytes
    assert kv_memory(config, context, batch + 1, policy, page).bytes == paged.bytes // batch * (batch + 1)
    assert size.totals["engine_reserved"] >= size.totals["logical"] == size.totals["conservative"]
    own = kv_memory(config, context, batch, policy, config.kv_page)
    assert own.bytes == size.totals["engine_reserved"]


def test_the_derivation_holds_every_number_of_its_sum() -> None:
    config = RunConfig.resolve(size="tiny", exp="paper_bottleneck")
    lines = kv_memory(config, 1000, 2, CachePolicy(kind="q8_0", residual=10)).derivation
    assert lines[0] == "k: a row of 96 values in 3 blocks of 32 x (32 B codes + 2 B scale) (q8_0) = 102 B"
    assert lines[1] == "k: 6 layers x 1,000 tokens x 102 B x batch 2 = 1,224,000 B"
    assert lines[2] == "k: residual 6 layers x 10 tokens x 96 values x 2 B x batch 2 = 23,040 B"
    assert "logical: 1,247,040 + 1,247,040 = 2,494,080 B" in lines
    assert "compression: 24,576,000 / 2,494,080 = 9.8537" in lines


@pytest.mark.parametrize("wrong", [{"qblock": 0}, {"residual": -1}, {"first_layers": -1}, {"kind": "q3"}])
def test_policies_that_mean_nothing_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"must be at least|unknown cache kind"):
        CachePolicy(**wrong)


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
