"""Row sizes of the KV cache's storage formats.

A row is what one token adds to one cached tensor of one layer: `width` values of all heads together, stored in blocks
along the row (a block may cross heads). Sizes are whole bytes. Sources: the block layouts of llama.cpp's ggml-common.h
for q8_0 and q4_0 (an fp16 scale a block); nf4 with an fp16 absmax a block after QLoRA, appendix E.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Format:
    """A storage format: `bits` per value, and `meta_bytes` per block where the format is quantised."""

    name: str
    bits: int
    meta_bytes: int = 0

    @property
    def quantised(self) -> bool:
        return self.meta_bytes > 0

    def block(self, width: int, qblock: int) -> int:
        """Values a block: a block never outgrows its row, and plain formats have no blocks."""
        return min(qblock, width) if self.quantised else 1

    def row_bytes(self, width: int, qblock: int) -> int:
        """Bytes of a row of `width` values; the last block is stored whole. Raises ValueError for sizes below 1."""
        if width < 1 or qblock < 1:
            raise ValueError(f"width and qblock must be at least 1, got {width} and {qblock}")
        block = self.block(width, qblock)
        blocks = -(-width // block)
        return blocks * (-(-block * self.bits // 8) + self.meta_bytes)


FORMATS = {
    fmt.name: fmt
    for fmt in (
        Format(name="fp32", bits=32),
        Format(name="fp16", bits=16),
        Format(name="q8_0", bits=8, meta_bytes=2),
        Format(name="q4_0", bits=4, meta_bytes=2),
        Format(name="nf4", bits=4, meta_bytes=2),
    )
}
