"""The reference pack and unpack of every storage format that a cache can hold.

A row is all heads of one cached tensor for one token, W values. It is cut into blocks of b values (`Format.block`),
the last one padded with zeros, and each block is stored as codes and one fp16 scale:

- q8_0, q5_0 and q4_0 mean what llama.cpp means by them (`quantize_row_*_ref` in ggml-quants.c): q8_0 scales the largest
  magnitude to 127 and rounds half away from zero; q4_0 and q5_0 scale the *signed* value of largest magnitude to -8
  and -16, so that one of the two ends of the code's range is met exactly.
- nf4 stores the nearest of 16 quantiles of a normal distribution (QLoRA, arXiv:2305.14314, appendix E) times the
  block's largest magnitude.
- fp8 is e4m3 without a scale; larger magnitudes become 448, its largest.

Two values share a byte where they are 4 bits wide: value i sits in the low half of byte i, value i + b/2 in its high
half. q5_0 stores its fifth bits after these, value i in bit i of a little-endian field.

Legend: B batch, T tokens, W row width, N blocks a row, b values a block, c bytes a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bottleneck_core.kernels.packed import NF4_LEVELS
from bottleneck_core.memory.formats import FORMATS

PLAIN = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float8_e4m3fn,
}
FP8_LARGEST = 448.0
FP16_LARGEST = 65504.0


class Packed(NamedTuple):
    """Rows as they are stored: values in the format's own dtype, or uint8 codes with one fp16 scale a block."""

    codes: Tensor  # (..., W) of a plain format, else (..., N * c) uint8
    scales: Tensor | None  # (..., N) fp16


def code_bytes(kind: str, block: int) -> int:
    """Bytes of one block's codes, its scale left out."""
    return -(-block * FORMATS[kind].bits // 8)


def pack(rows: Tensor, kind: str, qblock: int) -> Packed:
    """Rows (..., W) of any floating dtype as they are stored. Raises ValueError where `storable` says no."""
    if not bool(storable(rows, kind)):
        raise ValueError(f"the cache kind {kind} cannot hold infinite, undefined or out-of-range values")
    return pack_unchecked(rows, kind, qblock)


def storable(rows: Tensor, kind: str) -> Tensor:
    """A boolean scalar on the rows' device: finite, and within fp16's range where values or scales are fp16."""
    largest = rows.abs().amax() if rows.numel() else rows.new_zeros(())
    fp16 = kind == "fp16" or kind not in PLAIN
    return largest <= FP16_LARGEST if fp16 else largest.isfinite()


def pack_unchecked(rows: Tensor, kind: str, qblock: int) -> Packed:
    """`pack` without the look at the values, which costs a synchronisation on a GPU."""
    if kind == "fp8":
        rows = rows.clamp(-FP8_LARGEST, FP8_LARGEST)
    if kind in PLAIN:
        return Packed(rows.to(PLAIN[kind]), None)
    width = rows.size(-1)
    block = FORMATS[kind].block(width, qblock)
    blocks = F.pad(rows.float(), (0, -width % block)).unflatten(-1, (-1, block))  # (..., N, b)
    codec = _CODECS[kind]
    codes, scale = codec.quantise(blocks)  # (..., N, b) uint8, (..., N, 1) float32
    return Packed(codec.join(codes).flatten(-2), scale.squeeze(-1).half())


def unpack(packed: Packed, kind: str, width: int, qblock: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows (..., W) in `dtype`: what the cache says that it was given. The products run in float32."""
    if packed.scales is None:
        return packed.codes.to(dtype)
    block = FORMATS[kind].block(width, qblock)
    stored = packed.codes.unflatten(-1, (-1, code_bytes(kind, block)))  # (..., N, c)
    values = _CODECS[kind].values(stored, block) * packed.scales.float()[..., None]  # (..., N, b)
    return values.flatten(-2)[..., :width].to(dtype)


def _quantise_q8_0(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scale = blocks.abs().amax(-1, keepdim=True) / 127
    scaled = blocks * _inverse(scale)
    rounded = scaled.sign() * (scaled.abs() + 0.5).floor()  # half away from zero; torch.round goes to even
    return rounded.to(torch.int8).view(torch.uint8), scale


def _quantise_signed(levels: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def quantise(blocks: Tensor) -> tuple[Tensor, Tensor]:
        at_largest = blocks.abs().argmax(-1, keepdim=True)
        scale = blocks.gather(-1, at_largest) / -(levels // 2)
        # Product and sum each round to float32, as in gguf-py; where a C compiler fuses them, one in millions differs.
        shifted = blocks * _inverse(scale) + (levels // 2 + 0.5)
        return shifted.trunc().clamp(0, levels - 1).to(torch.uint8), scale

    return quantise


def _quantise_nf4(blocks: Tensor) -> tuple[Tensor, Tensor]:
    scale = blocks.abs().amax(-1, keepdim=True)
    levels = torch.tensor(NF4_LEVELS, device=blocks.device)
    scaled = (blocks * _inverse(scale)).contiguous()  # bucketize warns where it has to copy
    return torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2).to(torch.uint8), scale


def _inverse(scale: Tensor) -> Tensor:
    """1 / scale, and 0 for a block of zeros; a scale so small that its inverse overflows counts as zero."""
    inverse = 1 / scale
    return torch.where(inverse.isfinite(), inverse, torch.zeros_like(inverse))


def _join_bytes(codes: Tensor) -> Tensor:
    return codes


def _join_pairs(codes: Tensor) -> Tensor:
    """(..., N, b) codes below 16 -> (..., N, b / 2) bytes."""
    low, high = codes.chunk(2, dim=-1)
    return low | (high << 4)


def _join_pairs_and_fifth_bits(codes: Tensor) -> Tensor:
    """(..., N, b) codes below 32 -> (..., N, b / 2 + ceil(b / 8)) bytes."""
    fifth = codes >> 4
    octets = F.pad(fifth, (0, -fifth.size(-1) % 8)).unflatten(-1, (-1, 8))  # (..., N, ceil(b / 8), 8)
    field = (octets << _bit_places(codes.device)).sum(-1, dtype=torch.uint8)
    return torch.cat((_join_pairs(codes & 15), field), dim=-1)


def _values_q8_0(stored: Tensor, block: int) -> Tensor:
    return stored.view(torch.int8).float()


def _values_q4_0(stored: Tensor, block: int) -> Tensor:
    return _nibbles(stored).float() - 8


def _values_q5_0(stored: Tensor, block: int) -> Tensor:
    pairs, field = stored.split((block // 2, stored.size(-1) - block // 2), dim=-1)
    fifth = ((field[..., None] >> _bit_places(stored.device)) & 1).flatten(-2)[..., :block]
    return (_nibbles(pairs) | (fifth << 4)).float() - 16


def _values_nf4(stored: Tensor, block: int) -> Tensor:
    return torch.tensor(NF4_LEVELS, device=stored.device)[_nibbles(stored).int()]


def _nibbles(stored: Tensor) -> Tensor:
    return torch.cat((stored & 15, stored >> 4), dim=-1)


def _bit_places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)


class _Codec(NamedTuple):
    quantise: Callable[[Tensor], tuple[Tensor, Tensor]]  # (..., N, b) float32 -> codes, and scales (..., N, 1)
    join: Callable[[Tensor], Tensor]  # codes (..., N, b) -> bytes (..., N, c)
    values: Callable[[Tensor, int], Tensor]  # bytes (..., N, c) and b -> values (..., N, b) at scale 1


_CODECS = {
    "q8_0": _Codec(_quantise_q8_0, _join_bytes, _values_q8_0),
    "q5_0": _Codec(_quantise_signed(32), _join_pairs_and_fifth_bits, _values_q5_0),
    "q4_0": _Codec(_quantise_signed(16), _join_pairs, _values_q4_0),
    "nf4": _Codec(_quantise_nf4, _join_pairs, _values_nf4),
}
