"""Pack and unpack against llama.cpp's own quantiser, against the formats' definitions, and at the edges."""

from __future__ import annotations

import math

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.kernels.packed import NF4_LEVELS
from bottleneck_core.kvcache.formats import PLAIN, code_bytes, pack, unpack
from bottleneck_core.memory.formats import FORMATS

QUANTISED = ("q8_0", "q5_0", "q4_0", "nf4")
KINDS = (*PLAIN, *QUANTISED)
WIDTHS = (1, 2, 7, 12, 18, 32, 48, 96, 144, 145)

# Largest error in units of the scale that is stored (fp16): half a step, or half the widest gap between levels; q4_0
# and q5_0 lose up to a whole step at the end of the range that the signed scale does not reach (+8 of -8 .. 7).
STEPS = {"q8_0": 0.5, "q5_0": 1.0, "q4_0": 1.0, "nf4": max(np.diff(NF4_LEVELS)) / 2}
LARGEST_CODE = {"q8_0": 127, "q5_0": 16, "q4_0": 8, "nf4": 1}


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Rows of very different sizes, one of them zero."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, width, generator=generator) * torch.logspace(-3, 3, count)[:, None]
    values[count // 2] = 0
    return values


@pytest.mark.parametrize("kind", ["q8_0", "q5_0", "q4_0"])
@pytest.mark.parametrize("width", [32, 96, 512])
def test_block_32_is_llama_cpps(kind: str, width: int) -> None:
    kind_of_gguf = gguf.GGMLQuantizationType[kind.upper()]
    values = rows(500, width)
    # values exactly between two codes show how ties are rounded: code 127 is 127, and the others end in a half
    ties = torch.arange(width).remainder(120) + 0.5
    ties[0] = 127
    values[1] = ties
    values[2] = -ties
    theirs = gguf.quants.dequantize(gguf.quants.quantize(values.numpy(), kind_of_gguf), kind_of_gguf)
    np.testing.assert_array_equal(unpack(pack(values, kind, 32), kind, width, 32).numpy(), theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("qblock", [8, 32, 64])
def test_stored_bytes_are_the_formats_row(kind: str, width: int, qblock: int) -> None:
    packed = pack(rows(3, width), kind, qblock)
    stored = sum(part[0].numel() * part.element_size() for part in packed if part is not None)
    assert stored == FORMATS[kind].row_bytes(width, qblock)


@settings(deadline=None)
@given(
    kind=st.sampled_from(QUANTISED),
    width=st.integers(1, 150),
    qblock=st.sampled_from([2, 6, 16, 32, 64]),
    seed=st.integers(0, 2**16),
    size=st.floats(1e-2, 1e3),
)
def test_no_value_is_further_off_than_its_format_allows(
    kind: str, width: int, qblock: int, seed: int, size: float
) -> None:
    values = size * torch.randn(4, width, generator=torch.Generator().manual_seed(seed))
    packed = pack(values, kind, qblock)
    error = (unpack(packed, kind, width, qblock) - values).abs()
    block = FORMATS[kind].block(width, qblock)
    assert packed.scales is not None
    scale = packed.scales.float().abs().repeat_interleave(block, dim=-1)[:, :width]
    # the scale is rounded to fp16: 2^-11 of the value, or fp16's smallest step
    rounding = LARGEST_CODE[kind] * torch.maximum(scale * 2.0**-10, torch.tensor(2.0**-24))
    assert (error <= scale * STEPS[kind] * 1.001 + rounding).all()


@settings(deadline=None)
@given(kind=st.sampled_from(QUANTISED), width=st.integers(1, 150), seed=st.integers(0, 2**16))
def test_what_was_unpacked_packs_to_itself(kind: str, width: int, seed: int) -> None:
    values = torch.randn(3, width, generator=torch.Generator().manual_seed(seed))
    once = unpack(pack(values, kind, 32), kind, width, 32)
    twice = unpack(pack(once, kind, 32), kind, width, 32)
    torch.testing.assert_close(twice, once, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize(("kind", "bound"), [("fp32", 0.0), ("fp16", 2**-11), ("bf16", 2**-8), ("fp8", 2**-4)])
def test_plain_formats_round_to_their_precision(kind: str, bound: float) -> None:
    values = torch.rand(50, 48, generator=torch.Generator().manual_seed(0)) * 100 + 0.1
    error = (unpack(pack(values, kind, 32), kind, 48, 32) - values).abs() / values
    assert error.max() <= bound
    assert pack(values, kind, 32).scales is None


def test_fp8_saturates() -> None:
    values = torch.tensor([[1e4, -1e4, 448.0, 500.0]])
    assert unpack(pack(values, "fp8", 32), "fp8", 4, 32).tolist() == [[448.0, -448.0, 448.0, 448.0]]


def test_nf4_takes_the_nearest_level() -> None:
    values = torch.linspace(-1, 1, 2001)[:, None].repeat(1, 2)
    values[:, 0] = 1.0  # the block's largest: levels are then themselves
    unpacked = unpack(pack(values, "nf4", 2), "nf4", 2, 2)[:, 1]
    levels = np.array(NF4_LEVELS)
    wanted = levels[np.abs(values[:, 1].numpy()[:, None].astype(np.float64) - levels).argmin(1)]
    np.testing.assert_allclose(unpacked.numpy(), wanted, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [12, 18, 48, 144])
def test_zeros_stay_zeros(kind: str, width: int) -> None:
    zeros = torch.zeros(2, width)
    assert torch.equal(unpack(pack(zeros, kind, 32), kind, width, 32), zeros)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_infinities_are_refused(kind: str, bad: float) -> None:
    values = torch.zeros(2, 48)
    values[1, 7] = bad
    with pytest.raises(ValueError, match=kind):
        pack(values, kind, 32)


@pytest.mark.parametrize("kind", ["fp16", *QUANTISED])
def test_what_fp16_cannot_hold_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="out-of-range"):
        pack(torch.full((1, 4), 7e4), kind, 32)


@pytest.mark.parametrize("kind", ["q4_0", "q5_0", "nf4"])
def test_an_odd_block_of_pairs_is_refused_with_the_fix(kind: str) -> None:
    with pytest.raises(ValueError, match="even block size"):
        pack(torch.zeros(1, 32), kind, 15)


def test_nibbles_lie_as_the_kernels_read_them() -> None:
    values = torch.arange(-8.0, 8.0)[None]  # scale 1: codes 0 .. 15
    packed = pack(values, "q4_0", 16)
    assert packed.codes.tolist() == [[value | (value + 8) << 4 for value in range(8)]]
    assert code_bytes("q5_0", 18) == 12
