"""The cache against plain lists of rows, and its bytes against the accounting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.config import MODES
from bottleneck_core.errors import UserError
from bottleneck_core.kvcache import KVCache, pack, unpack
from bottleneck_core.memory import CachePolicy, cached_widths, kv_memory

SHAPES = {
    "gqa": {"kv_head": 2, "attn_dim": 72},
    "decoupled": {"sem_dim": 12, "geo_dim": 24, "attn_dim": 36},
}
KINDS = ("fp32", "fp16", "bf16", "fp8", "q8_0", "q5_0", "q4_0", "nf4")


def model(mode: str) -> dict[str, Any]:
    shape = {"n_layer": 3, "d_model": 72, "n_head": 6, "kv_head": None, "attn_dim": 72, "sem_dim": 12, "geo_dim": 24}
    return {**shape, "attn_mode": mode, **SHAPES.get(mode, {"attn_dim": 36})}


def new_rows(shape: dict[str, Any], tokens: int, batch: int = 1, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(batch, tokens, width, generator=generator) for name, width in cached_widths(shape).items()
    }


def fill(cache: KVCache, tokens: int, seed: int = 0) -> None:
    for layer in range(len(cache.layers)):
        cache.write(layer, new_rows(cache.shape, tokens, cache.batch, seed=seed + layer))
    cache.advance(tokens)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_allocated_is_accounted_to_the_byte(mode: str, kind: str) -> None:
    """Odd lengths, pages, residual windows, batches and block sizes, growing token by token and in pieces."""
    shape = model(mode)
    for page, residual, qblock, batch in [(1, 0, 32, 1), (5, 3, 32, 2), (7, 128, 10, 1), (64, 8, 8, 3)]:
        policy = CachePolicy(kind=kind, residual=residual, qblock=qblock)
        cache = KVCache(shape, policy, batch=batch, page=page)
        for piece in (1, 1, 2, 5, 1, 13, 6):
            fill(cache, piece)
            predicted = kv_memory(shape, cache.length, batch, policy, page=page)
            assert cache.allocated_bytes == predicted.bytes, (cache.length, page, residual)


MIXED = [
    CachePolicy(kind="q4_0", residual=4),
    CachePolicy(kinds={"k_sem": "q4_0", "k_geo": "q8_0", "v": "nf4", "k": "q5_0"}, qblocks={"v": 12}, residual=5),
    CachePolicy(kind="nf4", first_layers=1, last_layers=1, edge_kind="fp16", residual=2),
    CachePolicy(kind="q8_0", layer_kinds={1: {"v": "fp8"}, 2: {"k": "fp32", "v": "q4_0"}}, residual=3, qblock=16),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", MIXED, ids=["alone", "tensors", "edges", "layers"])
def test_mixed_policies_are_accounted_to_the_byte(mode: str, policy: CachePolicy) -> None:
    shape = model(mode)
    cache = KVCache(shape, policy, batch=2, page=4)
    for piece in (1, 2, 3, 7, 11):
        fill(cache, piece)
        assert cache.allocated_bytes == kv_memory(shape, cache.length, 2, policy, page=4).bytes


def test_each_tensor_of_each_layer_has_its_own_kind() -> None:
    policy = CachePolicy(kind="q4_0", first_layers=1, layer_kinds={2: {"v": "nf4"}})
    kinds = [{name: t.kind for name, t in layer.items()} for layer in KVCache(model("decoupled"), policy).layers]
    assert kinds == [
        {"k_sem": "fp16", "k_geo": "fp16", "v": "fp16"},
        {"k_sem": "q4_0", "k_geo": "q8_0", "v": "q4_0"},
        {"k_sem": "q4_0", "k_geo": "q8_0", "v": "nf4"},
    ]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    page=st.integers(1, 9),
    residual=st.integers(0, 12),
    deeds=st.lists(
        st.tuples(st.sampled_from(["write", "truncate", "fork"]), st.integers(1, 11)), min_size=1, max_size=8
    ),
)
def test_it_remembers_what_a_list_would(kind: str, page: int, residual: int, deeds: list[tuple[str, int]]) -> None:
    """Rows come back as their format gives them; forks and their origins do not disturb each other."""
    shape = model("bottleneck")
    policy = CachePolicy(kind=kind, residual=residual)
    cache, held = KVCache(shape, policy, page=page), torch.empty(1, 0, 36)
    origins: list[tuple[KVCache, torch.Tensor]] = []
    for number, (deed, size) in enumerate(deeds):
        if deed == "write":
            fill(cache, size, seed=10 * number)
            held = torch.cat((held, new_rows(shape, size, seed=10 * number)["k"]), dim=1)  # layer 0
        elif deed == "truncate":
            length = min(size, cache.length)
            cache.truncate(length)
            held = held[:, :length]
        else:
            length = min(size, cache.length)
            origins.append((cache, held))
            cache, held = cache.fork(length), held[:, :length]
    for each, rows in [(cache, held), *origins]:
        assert each.length == rows.size(1)
        tensor = each.layers[0]["k"]
        stored = unpack(pack(rows, kind, 32), kind, 36, 32)
        torch.testing.assert_close(tensor.read(0, each.length, torch.float32), stored, rtol=0, atol=0)
        newest = max(each.length - each.residual, each.ring_from)
        if tensor.ring is not None:
            recent = tensor.read_recent(newest, each.length, torch.float32)
            torch.testing.assert_close(recent, rows[:, newest:].half().float(), rtol=0, atol=0)
        assert each.allocated_bytes <= kv_memory(shape, max(each.length, 1), 1, policy, page=page).bytes


def test_growth_moves_no_page() -> None:
    cache = KVCache(model("standard"), CachePolicy(kind="q8_0"), page=4)
    fill(cache, 8)
    before = [page.codes.data_ptr() for page in cache.layers[0]["k"].pages]
    fill(cache, 9)
    assert [page.codes.data_ptr() for page in cache.layers[0]["k"].pages][:2] == before


def test_a_prefix_is_shared_until_written() -> None:
    cache = KVCache(model("standard"), CachePolicy(kind="q4_0", residual=2), page=4)
    fill(cache, 10)
    fork = cache.fork(8)
    ours, theirs = cache.layers[0]["k"].pages, fork.layers[0]["k"].pages
    assert [a is b for a, b in zip(ours, theirs, strict=False)] == [True, True]
    fork.truncate(6)
    fill(fork, 1, seed=99)
    assert theirs[0] is ours[0] and fork.layers[0]["k"].pages[1] is not ours[1]
    with pytest.raises(ValueError, match="11"):
        cache.fork(11)


def test_one_prompt_many_continuations() -> None:
    cache = KVCache(model("decoupled"), CachePolicy(kind="q8_0", residual=3), page=4)
    fill(cache, 6)
    many = cache.fork(requests=[0, 0, 0])
    assert many.batch == 3 and many.layers[0]["v"].read(0, 6, torch.float32).shape == (3, 6, 36)
    fill(many, 3)
    policy = many.policy
    assert many.allocated_bytes == kv_memory(many.shape, 9, 3, policy, page=4).bytes


def test_truncation_frees_memory_and_forgets_the_window() -> None:
    shape, policy = model("bottleneck"), CachePolicy(kind="q4_0", residual=4)
    cache = KVCache(shape, policy, page=4)
    fill(cache, 20)
    cache.truncate(10)
    assert cache.allocated_bytes == kv_memory(shape, 10, 1, policy, page=4).bytes
    assert cache.ring_from == 10, "positions 6 to 9 were overwritten in the ring"
    fill(cache, 3)
    assert cache.ring_from == 10
    with pytest.raises(ValueError, match="14"):
        cache.truncate(14)


@pytest.mark.parametrize("policy", [None, *MIXED], ids=["native", "alone", "tensors", "edges", "layers"])
def test_a_snapshot_comes_back_whole(policy: CachePolicy | None, tmp_path: Any) -> None:
    cache = KVCache(model("decoupled"), policy, batch=2, page=4)
    cache.first = torch.tensor([0, 3], dtype=torch.int32)
    fill(cache, 9)
    cache.truncate(7)
    cache.save(tmp_path / "cache.pt", [[1, 2], [3]])
    back, tokens = KVCache.load(tmp_path / "cache.pt")
    assert tokens == [[1, 2], [3]] and back.policy == policy
    assert (back.length, back.ring_from, back.page) == (cache.length, cache.ring_from, cache.page)
    assert back.first is not None and back.first.tolist() == [0, 3]
    assert back.allocated_bytes == cache.allocated_bytes
    for cache_layer, back_layer in zip(cache.layers, back.layers, strict=True):
        for ours, theirs in zip(cache_layer.values(), back_layer.values(), strict=True):
            torch.testing.assert_close(ours.read(0, 7, torch.float32), theirs.read(0, 7, torch.float32))
    fill(cache, 2)
    fill(back, 2)
    assert torch.equal(cache.layers[0]["v"].read(0, 9, torch.float32), back.layers[0]["v"].read(0, 9, torch.float32))


@pytest.mark.parametrize("content", [b"", b"no snapshot", None])
def test_what_is_no_snapshot_is_a_sentence(content: bytes | None, tmp_path: Any) -> None:
    path = tmp_path / "cache.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cache\.pt"):
        KVCache.load(path)


@pytest.mark.parametrize("kind", ["fp32", "fp16", "q4_0"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_undefined_keys_are_refused(kind: str, bad: float) -> None:
    cache = KVCache(model("standard"), CachePolicy(kind=kind))
    rows = new_rows(cache.shape, 2)
    rows["k"][0, 1, 5] = bad
    cache.write(0, rows)
    with pytest.raises(UserError, match="infinite"):
        cache.check()
    cache.check()


@pytest.mark.parametrize(("batch", "page"), [(0, 1), (1, 0)])
def test_sizes_below_one_are_refused(batch: int, page: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        KVCache(model("standard"), batch=batch, page=page)
