"""Storing and rotating a new token by kernels, against the formats' reference and the model's own rotation."""

from __future__ import annotations

import pytest
import torch

from bottleneck_core.kernels import KINDS, PackedTensor
from bottleneck_core.kernels.append import append, turn
from bottleneck_core.kvcache.tensor import CachedTensor
from bottleneck_core.model.rope import Rotary

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PAGE = 16
ROWS = 5  # already stored, or beyond the page of the new one


def stored(kind: str, heads: int, dim: int, qblock: int, residual: int, batch: int) -> CachedTensor:
    tensor = CachedTensor(
        kind=kind,
        width=heads * dim,
        qblock=qblock,
        residual=residual,
        batch=batch,
        page=PAGE,
        device=torch.device(DEVICE),
        dtype=torch.float32,
    )
    rows = torch.randn(batch, 2 * PAGE + ROWS, heads * dim, generator=torch.Generator().manual_seed(9))
    tensor.write(rows.to(DEVICE), 0)
    return tensor


def described(tensor: CachedTensor, heads: int) -> PackedTensor:
    dim = tensor.width // heads
    codes, scales = tensor.code_addresses(), tensor.scale_addresses()
    return PackedTensor(tensor.kind, heads, dim, tensor.block, codes, scales, tensor.ring)


def contents(tensor: CachedTensor) -> list[torch.Tensor]:
    parts = [part for page in tensor.pages for part in page.parts()]
    parts += [] if tensor.ring is None else [tensor.ring]
    return [part.contiguous().view(torch.uint8) for part in parts]


def check(
    kinds: tuple[str, ...],
    heads: int,
    dims: tuple[int, ...],
    rows: torch.Tensor,
    *,
    qblock: int = 32,
    position: int = PAGE + 3,
) -> torch.Tensor:
    """Append rows (B, G, sum of dims), keys then values, by kernel and reference; the mark of what was unstorable."""
    pairs = [
        [stored(kind, heads, dim, qblock, 7, rows.size(0)) for kind, dim in zip(kinds, dims, strict=True)]
        for _ in range(2)
    ]
    k, v = rows.to(DEVICE).split((sum(dims[:-1]), dims[-1]), dim=-1)  # views, with the strides of a joint tensor
    broken = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    counts = torch.tensor([position + 1, 0], dtype=torch.int32, device=DEVICE)
    *keys, values = [described(tensor, heads) for tensor in pairs[0]]
    append(k, v, keys, values, counts=counts, page=PAGE, broken=broken)
    for tensor, part in zip(pairs[1], (*k.split(dims[:-1], dim=-1), v), strict=True):
        # The reference forgets what follows a row that is written, in the ring too: it is written where it stands.
        tensor.write(part.flatten(1)[:, None], position)
    for ours, theirs in zip(*pairs, strict=True):
        for got, wanted in zip(contents(ours), contents(theirs), strict=True):
            assert torch.equal(got, wanted), ours.kind
    return broken


def new_rows(batch: int, heads: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(batch, heads, width, generator=generator) * 10.0 ** torch.randint(
        -3, 3, (batch, heads, 1), generator=generator
    )
    rows[0, 0] = 0  # a block of zeros has no scale
    return rows.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_stored_bytes_are_the_reference_s(kind: str, dtype: torch.dtype) -> None:
    assert not check((kind, kind), 4, (12, 16), new_rows(3, 4, 28, dtype)).item()


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "nf4"])
@pytest.mark.parametrize(("heads", "dim", "qblock"), [(4, 16, 16), (3, 6, 32), (8, 12, 10), (1, 2, 2), (5, 64, 24)])
def test_blocks_of_any_size(kind: str, heads: int, dim: int, qblock: int) -> None:
    """Blocks that cross heads, and rows whose last block is padded."""
    assert not check((kind, kind), heads, (dim, dim), new_rows(2, heads, 2 * dim), qblock=qblock).item()


@pytest.mark.parametrize("position", [0, PAGE - 1, PAGE, 2 * PAGE + ROWS - 1])
def test_two_key_parts_of_mixed_kinds_anywhere(position: int) -> None:
    rows = new_rows(2, 4, 4 + 8 + 12)
    assert not check(("q4_0", "q8_0", "nf4"), 4, (4, 8, 12), rows, position=position).item()
    assert not check(("fp8", "fp16", "q4_0"), 4, (4, 8, 12), rows, position=position).item()


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "nf4"])
def test_the_first_of_equal_magnitudes_makes_the_scale(kind: str) -> None:
    """Either sign first, in the low nibbles and in the high ones."""
    rows = torch.randn(2, 1, 128, generator=torch.Generator().manual_seed(1))
    rows[..., 16:32] = -rows[..., :16]
    rows[..., 32:64] = -rows[..., 64:96]
    rows[..., 96:104], rows[..., 104:112] = 3.0, -3.0
    assert not check((kind, kind), 1, (64, 64), rows).item()


def test_fp8_rounds_to_even_and_clamps() -> None:
    steps = torch.arange(0, 2**15, 61, dtype=torch.int16)  # fp16 patterns of every exponent
    values = steps.view(torch.float16).float()
    values = values[values < 460]
    rows = torch.cat((values, -values))[: 64 * (len(values) // 32)].view(1, 1, -1)
    for piece in rows.split(256, dim=-1):
        assert not check(("fp8", "fp8"), 1, (piece.size(-1) // 2,) * 2, piece).item()


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(
    ("kind", "value", "wrong"),
    [
        ("fp16", 65504.0, False),
        ("fp16", 65520.0, True),
        ("q8_0", -7e4, True),
        ("q4_0", float("inf"), True),
        ("nf4", float("nan"), True),
        ("fp32", 7e4, False),
        ("fp32", float("nan"), True),
        ("bf16", float("-inf"), True),
        ("fp8", 7e4, True),  # its window is fp16
    ],
)
@pytest.mark.parametrize("part", [0, 1])
def test_what_cannot_be_stored_is_marked(kind: str, value: float, wrong: bool, part: int) -> None:
    rows = torch.ones(2, 2, 16)
    rows[1, 1, 8 * part + 5] = value
    tensors = [stored(kind, 2, 8, 8, 7, 2) for _ in range(2)]
    broken = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    counts = torch.tensor([4, 0], dtype=torch.int32, device=DEVICE)
    key, values = [described(tensor, 2) for tensor in tensors]
    k, v = rows.to(DEVICE).chunk(2, dim=-1)
    append(k, v, [key], values, counts=counts, page=PAGE, broken=broken)
    assert bool(broken) == wrong
    append(k, v, [key], values, counts=counts, page=PAGE, broken=broken.zero_(), checked=False)
    assert not bool(broken)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "dim"), [(8, 64), (12, 12), (3, 2), (4, 10)])
@pytest.mark.parametrize("positions", [[70], [0, 31, 70]])
def test_a_turn_is_the_model_s_rotation(heads: int, dim: int, positions: list[int], dtype: torch.dtype) -> None:
    rotary = Rotary(dim, positions=128).to(DEVICE)
    generator = torch.Generator().manual_seed(0)
    joint = torch.randn(3, 1, heads, 2 * dim, generator=generator).to(DEVICE, dtype)
    x = joint[..., dim:].transpose(1, 2)  # (B, H, 1, D), a view
    position = torch.tensor(positions, device=DEVICE)
    turned = rotary(x, rotary.angles(position))
    assert turned.shape == x.shape and turned.dtype == dtype and turned.is_contiguous()
    # Triton's interpreter cuts bf16 off instead of rounding it: the last of its 8 bits may differ there.
    loose = 2**-7 if dtype == torch.bfloat16 and DEVICE == "cpu" else 0.0
    torch.testing.assert_close(turned, rotary(x, position.expand(3)), rtol=loose, atol=0)
    assert torch.equal(turned, turn(x, *rotary.angles(position)))
