"""How a decode over packed tensors is cut into programs: groups of heads, columns of the score matrix, tile sizes.

Depends on shapes only, never on the number of tokens. Legend in `triton_decode`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Literal, NamedTuple

from bottleneck_core.kernels.packed import KINDS, VALUE_KINDS, Shape

GROUP_WIDTH = 256  # values of one tensor that a program reads a row, unless one head is wider
WORD_GROUP_WIDTH = 128  # the same for words of quantised values: half the time of 256 at a width of 512 on an H200
WORD_REGISTERS = 128  # a thread of two warps; eight such programs share a multiprocessor
MOST_COLUMNS = 64  # above, a value's scales multiply the codes
MOST_REACH = 2  # blocks that a key head may span before its scales multiply the codes
WORD_KINDS = ("q8_0", "q4_0", "nf4")  # quantised kinds that `triton_words` reads
MOST_WORD_BLOCKS = 8  # a group's, each a load of its own
NARROW_FP16 = 128  # values a row: up to there, words are 5 % faster than the plain kernel at a width of 96 on an H200
NARROW_ROW = 96  # words; one warp holds 64 tokens of it in registers and never waits at a barrier
PROGRAMS = 8  # a multiprocessor
NARROW_PROGRAMS = 6  # where narrow fp16 rows are words: 107 us against 112 with 8 at a width of 96 on an H200
WIDEST_HEAD = 512
TILE_BYTES = 40 * 1024  # of keys and values a tile, as fp16: two or three tiles in flight fit a Hopper SM


@dataclass(frozen=True)
class Tuning:
    """What the kernels leave open; 0 takes the default of the case."""

    block_n: int = 0  # tokens a tile, a power of two
    num_warps: int = 0
    num_stages: int = 0  # tiles in flight
    splits: int = 0  # spans of tokens a batch row and group
    group: int = 0  # values of one tensor a program reads a row
    registers: int = 0  # most a thread
    fold: bool = True  # words: a key's code keeps the offset of its packing, which leaves with the score
    kernel: Literal["", "bytes", "words"] = ""  # the matrix element; words are refused where they do not fit


class Tile(NamedTuple):
    """What the kernels know of one cached tensor at compile time. `triton_tile` names the fields in this order."""

    kind: str
    head_dim: int
    block: int  # values
    code: int  # stored elements a block
    width: int  # values a row
    row: int  # stored elements a row
    blocks: int  # a row
    step: int  # blocks a group, 0 where groups do not begin at blocks
    group_elements: int  # stored elements that a group may touch
    group_blocks: int
    elements: int  # padded to a power of two of at least 16
    scale_columns: int
    scales: Literal["none", "columns", "codes"]
    reach: int  # blocks that one head may span, where the scales stand on the columns
    ring: int  # rows, 0 without
    offset: int  # keys: first column of q
    words: int  # 16-bit words that a group may touch, padded as `elements`


@dataclass(frozen=True)
class Plan:
    """Everything about a launch but addresses, tokens and spans."""

    keys: tuple[Tile, ...]
    value: Tile
    group: int  # cached heads a program
    groups: int
    columns: tuple[tuple[tuple[int, int], ...], ...]  # by group: (query head, value block or -1)
    padded_columns: int
    block_n: int
    num_warps: int
    num_stages: int
    registers: int | None
    words: bool  # `triton_words` takes it, else `triton_decode`
    programs: int  # wanted on each multiprocessor: several run at once, and uneven ends even out


def refusal(keys: tuple[Shape, ...], value: Shape, heads: int, page: int) -> str | None:
    """Why the kernels cannot read these tensors, in words, or None."""
    for shape in (*keys, value):
        if shape.kind not in KINDS:
            return f"the fused kernels do not read {shape.kind}"
        if shape.kind not in VALUE_KINDS and (shape.qblock < 1 or shape.block % (shape.block // shape.code_width)):
            return f"{shape.kind} stores values in pairs, a block of {shape.qblock} is odd"
        if shape.head_dim > WIDEST_HEAD:
            return f"a head of {shape.head_dim} values is wider than the fused kernels take ({WIDEST_HEAD})"
    if not 1 <= len(keys) <= 2:
        return f"the fused kernels take one or two key tensors, not {len(keys)}"
    if len({shape.heads for shape in (*keys, value)}) > 1:
        return "keys and values have different numbers of heads"
    if heads % value.heads:
        return f"{heads} query heads do not share {value.heads} cached heads evenly"
    if page % 16:
        return f"a page of {page} tokens is not a multiple of 16"
    return None


@lru_cache(maxsize=256)
def plan(keys: tuple[Shape, ...], value: Shape, heads: int, page: int, tuning: Tuning) -> Plan:
    """Cut the work. Raises ValueError where `refusal` has a reason."""
    reason = refusal(keys, value, heads, page)
    if reason:
        raise ValueError(reason)
    repeats = heads // value.heads
    widths = (WORD_GROUP_WIDTH, GROUP_WIDTH) if value.kind in WORD_KINDS else (GROUP_WIDTH,)
    for width in (tuning.group,) if tuning.group else widths:
        group = _group(keys, value, repeats, width)
        words = tuning.kernel != "bytes" and _fits_words((*keys, value), group)
        if words:
            break
    groups = value.heads // group
    if tuning.kernel == "words" and not words:
        raise ValueError("these tensors cannot be read as 16-bit words")
    narrow_fp16 = value.width <= NARROW_FP16 and {shape.kind for shape in (*keys, value)} == {"fp16"}
    words = words and (tuning.kernel == "words" or value.kind in WORD_KINDS or narrow_fp16)
    by_column = not words and value.kind not in VALUE_KINDS and _most_columns(value, group, repeats) <= MOST_COLUMNS
    columns = tuple(_columns(value, group, index, repeats, by_column) for index in range(groups))
    offset = 0
    tiles = []
    for shape in keys:
        reach = max(_span(shape, head) for head in range(shape.heads))
        scales = "columns" if reach <= (1 if words else MOST_REACH) else "codes"
        tiles.append(_tile(shape, group, scales, offset))
        offset += shape.head_dim
    value_tile = _tile(value, group, "columns" if by_column else "codes", 0)
    padded = max(8 if words else 16, power_of_two(max(map(len, columns))))
    block_n = min(tuning.block_n or (64 if words else _block_n((*tiles, value_tile))), page & -page)
    narrow = sum(tile.words for tile in (*tiles, value_tile)) <= NARROW_ROW
    warps, registers = 4, None
    if words and value.kind in WORD_KINDS:
        warps, registers = (1, None) if narrow else (2, WORD_REGISTERS)
    if tuning.block_n or tuning.num_warps:
        registers = None
    return Plan(
        keys=tuple(tiles),
        value=value_tile,
        group=group,
        groups=groups,
        columns=columns,
        padded_columns=padded,
        block_n=block_n,
        num_warps=tuning.num_warps or warps,
        num_stages=tuning.num_stages or (2 if words else 3),
        registers=tuning.registers or registers,
        words=words,
        programs=NARROW_PROGRAMS if words and narrow_fp16 else PROGRAMS,
    )


def _fits_words(shapes: tuple[Shape, ...], group: int) -> bool:
    """Whether `triton_words` can read these tensors: pairs of bytes in blocks, and few blocks, each group's its own."""
    for shape in shapes:
        if shape.kind not in (*WORD_KINDS, "fp8", "fp16") or (shape.kind != "fp16" and shape.code_width % 2):
            return False
        values = group * shape.head_dim
        if group != shape.heads and values % shape.block:
            return False
        if shape.kind in WORD_KINDS and -(-values // shape.block) > MOST_WORD_BLOCKS:
            return False
    return True


def _group(keys: tuple[Shape, ...], value: Shape, repeats: int, width: int) -> int:
    """Cached heads a program: as many as fit the width and the columns, whole blocks where that is possible."""
    divisors = [count for count in range(value.heads, 0, -1) if value.heads % count == 0]
    fitting = [
        count
        for count in divisors
        if count * max(shape.head_dim for shape in (*keys, value)) <= width
        and _most_columns(value, count, repeats) <= max(16, MOST_COLUMNS // 2)
    ]
    aligned = [count for count in fitting if all(count * shape.head_dim % shape.block == 0 for shape in (*keys, value))]
    return (fitting[:1] if value.heads in fitting else aligned[:1] or fitting[:1] or [1])[0]


def _span(shape: Shape, head: int) -> int:
    """Blocks that a head of a row reaches into."""
    if shape.kind in VALUE_KINDS:
        return 1
    return ((head + 1) * shape.head_dim - 1) // shape.block - head * shape.head_dim // shape.block + 1


def _most_columns(value: Shape, group: int, repeats: int) -> int:
    starts = range(0, value.heads, group)
    return max(repeats * sum(_span(value, head) for head in range(start, start + group)) for start in starts)


def _columns(value: Shape, group: int, index: int, repeats: int, by_column: bool) -> tuple[tuple[int, int], ...]:
    """(query head, value block) of each column of a group; one a head, block -1, where scales are on the codes."""
    pairs = []
    for head in range(index * group, (index + 1) * group):
        block = head * value.head_dim // value.block
        blocks = range(block, block + _span(value, head)) if by_column else [-1]
        pairs += [(head * repeats + r, b) for r in range(repeats) for b in blocks]
    return tuple(pairs)


def _tile(shape: Shape, group: int, scales: Literal["columns", "codes"], offset: int) -> Tile:
    values = group * shape.head_dim
    if group == shape.heads or values % shape.block == 0:
        step, blocks = max(1, values // shape.block), -(-values // shape.block)
    else:  # a group begins at most block - gcd values into its first block
        step, blocks = 0, -(-(values + shape.block - gcd(values, shape.block)) // shape.block)
        blocks = min(blocks, shape.blocks)
    elements = blocks * shape.code_width
    plain = shape.kind in VALUE_KINDS
    return Tile(
        kind=shape.kind,
        head_dim=shape.head_dim,
        block=shape.block,
        code=shape.code_width,
        width=shape.width,
        row=shape.row,
        blocks=shape.blocks,
        step=step,
        group_elements=elements,
        group_blocks=blocks,
        elements=max(16, power_of_two(elements)),
        scale_columns=max(16, power_of_two(blocks)),
        scales="none" if plain else scales,
        reach=1 if plain or scales == "codes" else max(_span(shape, head) for head in range(shape.heads)),
        ring=shape.ring,
        offset=offset,
        words=max(16, power_of_two(elements if shape.kind == "fp16" else -(-elements // 2))),
    )


def _block_n(tiles: tuple[Tile, ...]) -> int:
    """Tokens a tile: as many as TILE_BYTES holds, 32 to 128."""
    row = sum(tile.elements * (4 if tile.kind == "fp32" else 2) * (tile.block // tile.code) for tile in tiles)
    return max(32, min(128, power_of_two(TILE_BYTES // row + 1) // 2))


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()
