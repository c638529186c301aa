"""Fused decode in Triton's interpreter against float64."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch

from bottleneck_core.kernels import KINDS, Tuning, decode

from .packed_cases import Case, Fence, build, expected

pytest.importorskip("triton")
from triton import knobs

pytestmark = pytest.mark.skipif(not knobs.runtime.interpret, reason="the interpreter was not chosen before triton")

BOUND = {"bf16": 1e-2, "fp32": 2e-6}  # of the largest output; other kinds meet in fp16
FP16_BOUND = 2e-3
SMALL = Tuning(block_n=16)  # several tiles and spans in few tokens

STANDARD = Case(keys=(("fp16", 16, 0),), value=("fp16", 16, 0))
BOTTLENECK = Case(keys=(("q8_0", 12, 32),), value=("q4_0", 12, 32), heads=8, cached_heads=8)
DECOUPLED = Case(keys=(("q4_0", 4, 32), ("q8_0", 8, 32)), value=("q4_0", 12, 32), heads=8, cached_heads=8)


def error(case: Case, tuning: Tuning | None = SMALL) -> float:
    """Largest error of decode, relative to the largest output."""
    built = build(case)
    out = decode(built.q, built.keys, built.value, tuning=tuning, **built.options)
    assert out.dtype == built.q.dtype
    truth = expected(built)
    assert out.shape == truth.shape
    assert torch.isfinite(out).all()
    return float(np.abs(out.double().numpy() - truth).max() / np.abs(truth).max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passes", [1, 2])
def test_each_kind(kind: str, passes: int) -> None:
    spec = (kind, 16, 32)
    dtype = torch.float32 if kind == "fp32" else torch.float16
    case = Case(keys=(spec,), value=spec, tokens=70, passes=passes, null=True, dtype=dtype)
    assert error(case) < BOUND.get(kind, FP16_BOUND)


@pytest.mark.parametrize("dim", [2, 4, 6, 8, 12, 16, 18, 48, 64, 96, 128])
@pytest.mark.parametrize("kind", ["fp16", "q8_0", "q4_0", "nf4"])
def test_each_head_dim(kind: str, dim: int) -> None:
    case = Case(keys=((kind, dim, 32),), value=(kind, dim, 32), heads=4, cached_heads=4, tokens=37)
    if dim * 4 < 32:
        case = case.but(keys=((kind, dim, dim * 4),), value=(kind, dim, dim * 4))
    assert error(case) < FP16_BOUND


@pytest.mark.parametrize("qblock", [2, 6, 8, 18, 32, 48, 96, 64])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_blocks_cross_heads_and_rows_end_in_a_part_of_one(kind: str, qblock: int) -> None:
    spec = (kind, 12, qblock)
    assert error(Case(keys=(spec,), value=spec, heads=8, cached_heads=8, null=True)) < FP16_BOUND


@pytest.mark.parametrize("group", [16, 32, 64])
@pytest.mark.parametrize("kind", ["fp16", "q8_0", "nf4"])
def test_groups_of_heads_that_do_not_begin_at_blocks(kind: str, group: int) -> None:
    spec = (kind, 12, 32)
    case = Case(keys=(spec, ("q4_0", 6, 10)), value=("q4_0", 12, 14), heads=8, cached_heads=8, null=True, ring=8)
    assert error(case, Tuning(block_n=16, group=group)) < FP16_BOUND


@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize(
    "kinds",
    [
        ("q4_0", "q8_0", "q4_0"),
        ("fp16", "q8_0", "nf4"),
        ("nf4", "fp8", "fp16"),
        ("bf16", "q4_0", "fp8"),
        ("fp32", "fp16", "q8_0"),
    ],
)
def test_two_key_parts_of_mixed_kinds(kinds: tuple[str, str, str], passes: int, null: bool) -> None:
    keys = ((kinds[0], 4, 32), (kinds[1], 8, 32))
    case = DECOUPLED.but(keys=keys, value=(kinds[2], 12, 32), passes=passes, null=null, ring=10, tokens=45)
    assert error(case) < (BOUND["bf16"] if "bf16" in kinds else FP16_BOUND)


@pytest.mark.parametrize(("heads", "cached"), [(4, 2), (8, 1), (6, 6), (12, 4), (32, 2)])
@pytest.mark.parametrize("kind", ["fp16", "q8_0", "q4_0"])
def test_grouped_queries(kind: str, heads: int, cached: int) -> None:
    spec = (kind, 16, 12)
    case = Case(keys=(spec,), value=spec, heads=heads, cached_heads=cached, null=True, batch=2)
    assert error(case) < FP16_BOUND


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize(
    ("tokens", "ring", "ring_from"),
    [
        (5, 16, None),
        (16, 16, None),
        (45, 16, None),
        (45, 16, 40),
        (45, 16, 45),
        (45, 20, 32),
        (64, 33, None),
        (1, 4, 0),
    ],
)
def test_window(tokens: int, ring: int, ring_from: int | None, passes: int) -> None:
    case = BOTTLENECK.but(tokens=tokens, ring=ring, ring_from=ring_from, passes=passes, batch=2, null=True)
    assert error(case) < FP16_BOUND


def test_window_beside_a_tensor_that_has_none() -> None:
    case = Case(keys=(("fp16", 8, 0), ("q8_0", 8, 16)), value=("bf16", 12, 0), tokens=45, ring=20)
    assert error(case) < BOUND["bf16"]


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("null", [False, True])
@pytest.mark.parametrize("first", [(0, 3), (36, 17), (16, 31)])
def test_left_padding(first: tuple[int, int], null: bool, passes: int) -> None:
    case = BOTTLENECK.but(batch=2, first=first, passes=passes, null=null, ring=9, tokens=37)
    assert error(case) < FP16_BOUND


def test_row_without_a_visible_position_sees_the_null_key_alone() -> None:
    built = build(STANDARD.but(batch=2, first=(0, 37), null=True))
    out = decode(built.q, built.keys, built.value, tuning=SMALL, **built.options)
    assert torch.allclose(out[1], built.options["null_v"], atol=1e-3)


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 32, 33, 63, 64, 65])
@pytest.mark.parametrize("passes", [1, 2])
def test_lengths(tokens: int, passes: int) -> None:
    assert error(DECOUPLED.but(tokens=tokens, passes=passes)) < FP16_BOUND


@pytest.mark.parametrize("splits", [1, 2, 3, 100])
def test_number_of_spans_changes_nothing(splits: int) -> None:
    assert error(BOTTLENECK.but(tokens=130, ring=8), Tuning(block_n=16, splits=splits)) < FP16_BOUND


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_query_types(dtype: torch.dtype) -> None:
    assert error(DECOUPLED.but(dtype=dtype, null=True)) < (1e-2 if dtype == torch.bfloat16 else FP16_BOUND)


@pytest.mark.parametrize("size", [1e-3, 3e4])
@pytest.mark.parametrize("kind", ["q8_0", "q4_0"])
def test_values_of_any_size(kind: str, size: float) -> None:
    """Scales join the exponent: weights times tiny or huge scales neither vanish nor overflow in fp16."""
    case = Case(keys=(("q8_0", 16, 32),), value=(kind, 16, 32), tokens=60, value_size=size, dtype=torch.float32)
    assert error(case) < FP16_BOUND


def test_a_head_that_outshines_all_others_by_far() -> None:
    """Scores of hundreds: the maximum is subtracted before anything is raised."""
    built = build(STANDARD.but(tokens=50))
    built.q *= 100
    out = decode(built.q, built.keys, built.value, tuning=SMALL, **built.options).double().numpy()
    truth = expected(built)
    assert np.abs(out - truth).max() < FP16_BOUND * np.abs(truth).max()


def test_strided_queries_and_null() -> None:
    built = build(STANDARD.but(null=True))
    plain = decode(built.q, built.keys, built.value, **built.options)
    for name in ("null_k", "null_v"):
        built.options[name] = built.options[name].T.contiguous().T
    strided = built.q.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(decode(strided, built.keys, built.value, **built.options), plain)


def test_default_tuning() -> None:
    assert error(DECOUPLED.but(tokens=300, page=128, null=True, ring=16), None) < FP16_BOUND


WORDS = {
    "decoupled": DECOUPLED,
    "bottleneck, scales on the codes": BOTTLENECK,
    "nf4": DECOUPLED.but(keys=(("nf4", 12, 32),), value=("nf4", 12, 32)),
    "fp16": Case((("fp16", 12, 0),), ("fp16", 12, 0), heads=8, cached_heads=8),
    "fp8": Case((("fp8", 12, 0),), ("fp8", 6, 0), heads=8, cached_heads=8),
    "fp16 keys": Case((("fp16", 4, 0), ("nf4", 8, 32)), ("q8_0", 12, 32), heads=8, cached_heads=8),
    "grouped queries": Case((("q8_0", 16, 32),), ("q4_0", 16, 32), heads=16, cached_heads=4),
    "groups of heads": Case((("q8_0", 16, 16),), ("nf4", 16, 16), heads=8, cached_heads=8),
}


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", WORDS)
def test_words(name: str, fold: bool) -> None:
    tuning = Tuning(block_n=16, splits=3, fold=fold, kernel="words", group=64 if name == "groups of heads" else 0)
    case = WORDS[name].but(tokens=100, batch=2, first=(0, 45), null=True)
    assert error(case, tuning) < FP16_BOUND


@pytest.mark.parametrize("kernel", ["bytes", "words"])
@pytest.mark.parametrize(("tokens", "ring", "ring_from"), [(45, 16, None), (45, 16, 40), (45, 20, 1), (45, 45, 0)])
@pytest.mark.parametrize("passes", [1, 2])
def test_window_of_either_kernel(kernel, tokens: int, ring: int, ring_from: int | None, passes: int) -> None:
    case = DECOUPLED.but(tokens=tokens, ring=ring, ring_from=ring_from, passes=passes, batch=2, null=True, first=(0, 3))
    assert error(case, Tuning(block_n=16, kernel=kernel)) < FP16_BOUND


@pytest.mark.parametrize(
    ("tuning", "passes"),
    [(SMALL, 2), (SMALL, 1), (Tuning(block_n=16, splits=3), 2), (Tuning(block_n=16, kernel="bytes"), 2)],
)
@pytest.mark.parametrize(("tokens", "ring"), [(33, 0), (150, 0), (33, 20), (150, 20)])
def test_tokens_counted_on_the_device(tokens: int, ring: int, tuning: Tuning, passes: Literal[1, 2]) -> None:
    """A launch for any number of tokens up to 192 cuts them into the spans that a launch for this number has."""
    built = build(DECOUPLED.but(tokens=tokens, ring=ring, passes=passes, batch=2, first=(0, 21), null=True))
    ring_from = tokens - ring
    plain = decode(built.q, built.keys, built.value, tuning=tuning, **built.options)
    counts = torch.tensor([tokens, ring_from, 7, 7], dtype=torch.int32)
    built.options |= {"tokens": 192, "ring_from": 192 - ring}
    counted = decode(built.q, built.keys, built.value, counts=counts, tuning=tuning, **built.options)
    if ring:  # the window's part is merged in another place: the last digit of a sum
        torch.testing.assert_close(counted, plain, rtol=2e-3, atol=1e-4)
    else:
        assert torch.equal(counted, plain)


def test_words_are_refused_where_blocks_have_odd_bytes() -> None:
    case = Case((("q4_0", 12, 6),), ("q4_0", 12, 6), heads=8, cached_heads=8)
    with pytest.raises(ValueError, match="words"):
        error(case, Tuning(kernel="words"))


@pytest.mark.parametrize("kernel", ["bytes", "words"])
@pytest.mark.parametrize("kind", ["fp16", "fp8", "q8_0", "q4_0", "nf4"])
def test_nothing_outside_the_tensors_is_touched(kind: str, kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.interpreter import InterpreterBuilder as Builder

    from bottleneck_core.kernels import triton_decode, triton_words

    fence = Fence()
    load, store = Builder.create_masked_load, Builder.create_masked_store

    def fenced_load(self, pointers, mask, *rest):
        fence.check(pointers.data, mask.data, pointers.get_element_ty().primitive_bitwidth // 8)
        return load(self, pointers, mask, *rest)

    def fenced_store(self, pointers, value, mask, *rest):
        fence.check(pointers.data, mask.data, pointers.get_element_ty().primitive_bitwidth // 8)
        return store(self, pointers, value, mask, *rest)

    monkeypatch.setattr(Builder, "create_masked_load", fenced_load)
    monkeypatch.setattr(Builder, "create_masked_store", fenced_store)
    for module, name in ((triton_decode, "spans"), (triton_decode, "merge"), (triton_words, "word_spans")):
        monkeypatch.setattr(module, name, fence.wrap(getattr(module, name)))
    ring = 0 if kind == "fp16" else 20
    case = DECOUPLED.but(keys=((kind, 12, 32),), value=(kind, 12, 32), tokens=150, ring=ring, null=True)
    built = build(case.but(batch=2, first=(0, 99)))
    fence.admit(*built.alive)
    out = decode(built.q, built.keys, built.value, tuning=Tuning(16, splits=4, kernel=kernel), **built.options)
    assert np.abs(out.double().numpy() - expected(built)).max() < FP16_BOUND * np.abs(expected(built)).max()
    assert fence.accesses > 150 * 96
    counts = torch.tensor([150, 150 - ring], dtype=torch.int32)
    built.options |= {"tokens": 600, "ring_from": 600 - ring, "counts": counts}  # most spans have nothing
    out = decode(built.q, built.keys, built.value, tuning=Tuning(16, splits=16, kernel=kernel), **built.options)
    assert np.abs(out.double().numpy() - expected(built)).max() < FP16_BOUND * np.abs(expected(built)).max()
