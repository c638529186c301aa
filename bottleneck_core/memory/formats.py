"""Row sizes of the KV cache's storage formats.

A row is what one token adds to one cached tensor of one layer: `width` values of all heads together, stored in blocks
along the row (a block may cross heads). Sizes are whole bytes. Sources: the block layouts of llama.cpp's ggml-common.h
for q8_0, q5_0, q4_0 (an fp16 scale a block) and q5_1, q4_1 (an fp16 scale and an fp16 minimum); nf4 with an fp16 absmax
a block after QLoRA, appendix E; fp8 is e4m3 without a scale. int8_per_token_head is vLLM's (kv_cache_interface.py: one
fp32 scale for each token and head); mxfp4 is OCP's Microscaling Formats v1.0 (32 values share an e8m0 byte); nvfp4 has
one e4m3 byte for 16 values, and one fp32 scale a tensor that is part of the weights and not counted here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Format:
    """A storage format: `bits` per value, and `meta_bytes` per block where the format is quantised.

    `fixed_block` formats ignore the block size asked for and store whole blocks only; `per_head` formats have one
    block a head. `packable` ones can be stored by `kvcache`, the others are known to the accounting alone.
    """

    name: str
    bits: int
    meta_bytes: int = 0
    fixed_block: int | None = None
    per_head: bool = False
    packable: bool = True

    @property
    def quantised(self) -> bool:
        """Fewer than 16 bits a value: what a residual window of fp16 rows makes sense for."""
        return self.bits < 16

    def block(self, width: int, qblock: int) -> int:
        """Values a block: a block never outgrows its row, and formats without a scale have no blocks.

        Below 8 bits a block is even: its values are stored in pairs, so an odd row is padded by one value. Raises
        ValueError where an odd `qblock` asks for what is not stored.
        """
        if not self.meta_bytes:
            return 1
        if self.fixed_block:
            return self.fixed_block
        if self.bits >= 8 or min(qblock, width) % 2 == 0:
            return min(qblock, width)
        if qblock < width:
            raise ValueError(f"{self.name} stores values in pairs: give an even block size, got {qblock}")
        return width + 1

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
        Format(name="bf16", bits=16),
        Format(name="fp8", bits=8),
        Format(name="q8_0", bits=8, meta_bytes=2),
        Format(name="q5_0", bits=5, meta_bytes=2),
        Format(name="q4_0", bits=4, meta_bytes=2),
        Format(name="nf4", bits=4, meta_bytes=2),
        Format(name="q5_1", bits=5, meta_bytes=4, packable=False),
        Format(name="q4_1", bits=4, meta_bytes=4, packable=False),
        Format(name="int8_per_token_head", bits=8, meta_bytes=4, per_head=True, packable=False),
        Format(name="nvfp4", bits=4, meta_bytes=1, fixed_block=16, packable=False),
        Format(name="mxfp4", bits=4, meta_bytes=1, fixed_block=32, packable=False),
    )
}
PACKABLE = tuple(fmt.name for fmt in FORMATS.values() if fmt.packable)
