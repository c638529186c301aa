"""What the kernels take, how work is cut, and that importing them needs no Triton."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.kernels import KINDS, PackedTensor, Tuning, supported, unsupported
from bottleneck_core.kernels.packed import Shape
from bottleneck_core.kernels.plan import plan, refusal

HIDE = "import sys; sys.modules['triton'] = None; "


def test_import_and_question_without_triton() -> None:
    code = (
        HIDE + "import torch; from bottleneck_core.kernels import available, unsupported, PackedTensor as P;"
        "t = P('fp16', 1, 16, 0, torch.zeros(1)); print(available());"
        "print(unsupported(torch.zeros(1, 1, 16), [t], t, page=16))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["the package triton is not installed"] * 2


def test_importing_the_package_imports_no_triton() -> None:
    code = "import sys, bottleneck_core.kernels; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("keys", "value", "heads", "page", "word"),
    [
        ([Shape("q5_0", 4, 16, 32)], Shape("fp16", 4, 16, 0), 4, 64, "q5_0"),
        ([Shape("q4_0", 4, 16, 7)], Shape("fp16", 4, 16, 0), 4, 64, "odd"),
        ([Shape("fp16", 4, 1024, 0)], Shape("fp16", 4, 16, 0), 4, 64, "wider"),
        ([Shape("fp16", 2, 16, 0)], Shape("fp16", 4, 16, 0), 4, 64, "numbers of heads"),
        ([Shape("fp16", 4, 16, 0)], Shape("fp16", 4, 16, 0), 6, 64, "evenly"),
        ([Shape("fp16", 4, 16, 0)], Shape("fp16", 4, 16, 0), 4, 24, "page"),
        ([], Shape("fp16", 4, 16, 0), 4, 64, "one or two"),
    ],
)
def test_refusals_name_their_reason(keys: list[Shape], value: Shape, heads: int, page: int, word: str) -> None:
    assert word in (refusal(tuple(keys), value, heads, page) or "")
    with pytest.raises(ValueError, match=word):
        plan(tuple(keys), value, heads, page, Tuning())


def test_unsupported_looks_at_the_tensors() -> None:
    pytest.importorskip("triton")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    addresses = torch.zeros(1, dtype=torch.int64, device=device)
    plain = PackedTensor("fp16", 2, 16, 0, addresses)
    q = torch.zeros(1, 2, 16, device=device)
    assert unsupported(q, [plain], plain, page=64) is None
    assert "float64" in (unsupported(q.double(), [plain], plain, page=64) or "")
    assert "head dims" in (unsupported(q[..., :8], [plain], plain, page=64) or "")
    ringed = PackedTensor("fp16", 2, 16, 0, addresses, ring=torch.zeros(1, 4, 32, device=device))
    assert "window" in (unsupported(q, [plain], ringed, page=64) or "")


def test_supported() -> None:
    assert all(map(supported, KINDS))
    assert not supported("q5_0")


@given(
    kind=st.sampled_from(KINDS),
    dim=st.integers(1, 128),
    cached=st.integers(1, 16),
    repeats=st.integers(1, 8),
    half_block=st.integers(1, 64),
    width=st.sampled_from([0, 16, 64, 128]),
)
def test_groups_cover_every_head_and_value_once(
    kind: str, dim: int, cached: int, repeats: int, half_block: int, width: int
) -> None:
    shape = Shape(kind, cached, dim, 2 * half_block)
    cut = plan((shape,), shape, cached * repeats, 64, Tuning(group=width))
    assert not cut.words or all(tile.step and tile.words * 2 >= tile.group_elements for tile in (*cut.keys, cut.value))
    pairs = [pair for columns in cut.columns for pair in columns]
    assert sorted({head for head, _ in pairs}) == list(range(cached * repeats))
    assert len(pairs) == len(set(pairs))
    for tile in (*cut.keys, cut.value):
        assert tile.elements >= max(16, tile.group_elements) and tile.elements & (tile.elements - 1) == 0
        for group in range(cut.groups):
            begin, end = group * cut.group * dim, (group + 1) * cut.group * dim
            first = group * tile.step if tile.step else begin // tile.block
            assert first * tile.block <= begin
            assert end <= (first + tile.group_blocks) * tile.block
    if cut.value.scales == "columns":  # each head has a column for every block it reaches into
        wanted = {
            (head, place // cut.value.block)
            for head in range(cached * repeats)
            for place in range(head // repeats * dim, (head // repeats + 1) * dim)
        }
        assert set(pairs) == wanted
