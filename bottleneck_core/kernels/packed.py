"""One packed cached tensor as the kernels see it, and what of it they can read.

A row is all heads of one token, W = heads x head_dim values, in blocks of b values along the row; a block may cross
heads, and the last one is padded. Storage is by page: codes (B, page, blocks * code_bytes) and scales fp16
(B, page, blocks), or for the kinds without a scale the values themselves (B, page, W). The kernels get the addresses
of the pages, so that a growing cache is never copied.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

VALUE_KINDS = ("fp32", "fp16", "bf16", "fp8")  # a value a code, no scale
NIBBLE_KINDS = ("q4_0", "nf4")  # byte j of a block holds values j and j + b / 2
KINDS = (*VALUE_KINDS, "q8_0", *NIBBLE_KINDS)

# The 16 levels of QLoRA (Dettmers et al. 2023), appendix E.
NF4_LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def supported(kind: str) -> bool:
    """Whether the fused kernels read this storage format."""
    return kind in KINDS


@dataclass(frozen=True)
class Shape:
    """What is fixed about a packed tensor as its cache grows: everything but the addresses."""

    kind: str
    heads: int
    head_dim: int
    qblock: int
    ring: int = 0  # rows of the fp16 window, 0 without one

    @property
    def width(self) -> int:
        """Values a row."""
        return self.heads * self.head_dim

    @property
    def block(self) -> int:
        """Values a block; for kinds without a scale one head is as good a unit as any."""
        return self.head_dim if self.kind in VALUE_KINDS else self.qblock

    @property
    def blocks(self) -> int:
        """Blocks a row."""
        return -(-self.width // self.block)

    @property
    def code_width(self) -> int:
        """Stored elements a block: bytes, or values for the kinds without a scale."""
        return self.block // 2 if self.kind in NIBBLE_KINDS else self.block

    @property
    def row(self) -> int:
        """Stored elements a row."""
        return self.blocks * self.code_width

    @property
    def row_bytes(self) -> int:
        """Bytes a row, scales included."""
        element = {"fp32": 4, "fp16": 2, "bf16": 2}.get(self.kind, 1)
        return self.row * element + (0 if self.kind in VALUE_KINDS else 2 * self.blocks)


@dataclass(frozen=True)
class PackedTensor:
    """One cached tensor of one layer. Positions are read from `ring` where the call says so, else from the pages."""

    kind: str
    heads: int
    head_dim: int
    qblock: int  # the real block b along the row; ignored for the kinds without a scale
    codes: Tensor  # (pages,) int64 addresses of codes (B, page, row), on the device
    scales: Tensor | None = None  # (pages,) int64 addresses of scales (B, page, blocks) fp16
    ring: Tensor | None = None  # (B, R, W) fp16, position p at slot p % R

    @property
    def shape(self) -> Shape:
        """The part of the description that does not change as the cache grows."""
        ring = 0 if self.ring is None else self.ring.size(1)
        return Shape(self.kind, self.heads, self.head_dim, self.qblock, ring)
