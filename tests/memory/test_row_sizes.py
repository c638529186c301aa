"""Bytes of one row, by format: hand-computed, llama.cpp's published tables, and the rules of blocks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.memory import FORMATS, PACKABLE, kv_memory


@pytest.mark.parametrize(
    ("kind", "width", "qblock", "expected"),
    [
        ("fp16", 96, 32, 192),
        ("bf16", 96, 32, 192),
        ("fp32", 96, 32, 384),
        ("fp8", 96, 32, 96),
        ("q8_0", 96, 32, 3 * 34),
        ("q8_0", 144, 64, 3 * 66),
        ("q5_0", 96, 32, 3 * (20 + 2)),
        ("q5_1", 96, 32, 3 * (20 + 4)),
        ("q4_0", 96, 32, 3 * 18),
        ("q4_1", 96, 32, 3 * 20),
        ("q4_0", 12, 32, 6 + 2),  # the block is the row
        ("nf4", 48, 32, 2 * 18),  # the last block is stored whole
        ("q4_0", 3, 32, 2 + 2),  # three values are padded to four
        ("q5_0", 3, 32, 3 + 2),  # four values of five bits are 20 bits
        ("nf4", 145, 32, 5 * 18),
        ("nvfp4", 96, 64, 6 * (8 + 1)),  # blocks of 16, whatever is asked
        ("nvfp4", 12, 64, 8 + 1),
        ("mxfp4", 96, 64, 3 * (16 + 1)),
        ("int8_per_token_head", 1024, 128, 8 * (128 + 4)),
    ],
)
def test_row_bytes(kind: str, width: int, qblock: int, expected: int) -> None:
    assert FORMATS[kind].row_bytes(width, qblock) == expected


def test_llama_cpp_sizes_of_the_k_cache_of_llama_2_7b() -> None:
    # llama.cpp, pull request 6183: 32 layers x 4,096 tokens x one row of 4,096 values, in MiB.
    published = {"fp16": 1024, "q8_0": 544, "q5_1": 384, "q5_0": 352, "q4_1": 320, "q4_0": 288}
    for kind, mib in published.items():
        assert 32 * 4096 * FORMATS[kind].row_bytes(4096, 32) == mib * 2**20, kind


def test_the_reference_file_agrees(shared: Path) -> None:
    first, second = json.loads((shared / "kv_golden.json").read_text(encoding="utf-8"))["quantized"]
    for kind in first.keys() & FORMATS.keys():
        assert 32 * 4096 * FORMATS[kind].row_bytes(4096, 32) == first[kind] * 2**20
    model = {"model_type": "llama", "num_hidden_layers": 40, "num_attention_heads": 8, "hidden_size": 1024}
    for kinds in second.keys() - {"what", "source"}:
        k, v = kinds.split("/")
        size = kv_memory(model, 6656, policy={"kv_cache_k": k, "kv_cache_v": v})
        assert size.bytes == second[kinds] * 2**20, kinds


@given(kind=st.sampled_from(sorted(FORMATS)), width=st.integers(1, 700), half=st.integers(1, 100))
def test_a_row_holds_its_values_and_no_more_than_a_block_on_top(kind: str, width: int, half: int) -> None:
    fmt, qblock = FORMATS[kind], 2 * half
    block = fmt.block(width, qblock)
    blocks = -(-width // block)
    payload = fmt.row_bytes(width, qblock) - blocks * fmt.meta_bytes
    assert 8 * payload >= width * fmt.bits
    assert 8 * payload < (width + block) * fmt.bits + 8 * blocks
    assert block <= max(width + width % 2, fmt.fixed_block or 1)


def test_an_odd_block_below_the_width_is_refused_where_values_are_stored_in_pairs() -> None:
    for kind in ("q5_0", "q4_0", "nf4", "q5_1", "q4_1"):
        with pytest.raises(ValueError, match="even block size, got 31"):
            FORMATS[kind].row_bytes(96, 31)
        assert FORMATS[kind].block(31, 31) == 32
    assert FORMATS["q8_0"].block(96, 31) == 31


@pytest.mark.parametrize(("width", "qblock"), [(0, 32), (8, 0)])
def test_sizes_below_one_are_refused(width: int, qblock: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FORMATS["q8_0"].row_bytes(width, qblock)


def test_what_can_be_stored_and_what_is_only_counted() -> None:
    assert set(PACKABLE) == {"fp32", "fp16", "bf16", "fp8", "q8_0", "q5_0", "q4_0", "nf4"}
    assert set(FORMATS) - set(PACKABLE) == {"q5_1", "q4_1", "int8_per_token_head", "nvfp4", "mxfp4"}


def test_a_scale_a_head_follows_the_heads_and_not_the_block_size() -> None:
    # 2 layers, 3 heads of 64: K and V rows of 3 x (64 + 4) bytes.
    model = {"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 192}
    size = kv_memory(model, 10, policy={"kv_cache": "int8_per_token_head", "kv_qblock": 32})
    assert size.bytes == 2 * 2 * 10 * 3 * 68
    assert size.tensors[0].qblock == 64
