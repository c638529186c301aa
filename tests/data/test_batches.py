from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bottleneck_core.data.batches import Batches
from bottleneck_core.data.prefetch import Prefetch
from bottleneck_core.errors import UserError

N, T = 1000, 16


def make(**options) -> Batches:
    """Batches over tokens that say where they are: token k is k."""
    defaults = {
        "block_size": T,
        "val_frac": 0.1,
        "batch_size": 8,
        "grad_accum": 3,
        "seed": 1337,
        "eval_iters": 5,
    }
    n = options.pop("n", N)
    return Batches(np.arange(n, dtype=np.uint16), **{**defaults, **options})


calls = st.one_of(
    st.tuples(st.just("train"), st.integers(0, 10**6), st.integers(0, 2)),
    st.tuples(st.just("eval"), st.sampled_from(["train", "val"])),
    st.tuples(st.just("probe"), st.integers(1, 9)),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(calls, max_size=6), st.integers(0, 10**6), st.integers(0, 2), st.integers(-(2**31), 2**63 - 1))
def test_a_batch_does_not_depend_on_what_was_asked_before(history, step: int, micro: int, seed: int) -> None:
    used, fresh = make(seed=seed), make(seed=seed)
    for kind, *arguments in history:
        if kind == "train":
            used.train_batch(*arguments)
        elif kind == "eval":
            next(used.eval_batches(*arguments))
        else:
            used.probe_windows(*arguments)
    torch.manual_seed(seed % 1000)
    np.random.seed(seed % 1000)
    for got, expected in zip(used.train_batch(step, micro), fresh.train_batch(step, micro), strict=True):
        assert torch.equal(got, expected)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(40, 2000),
    val_frac=st.floats(0.2, 0.8),
    block_size=st.integers(1, 7),
    step=st.integers(0, 2**40),
    eval_iters=st.integers(1, 6),
)
def test_targets_are_inputs_moved_by_one_and_windows_stay_in_their_split(
    n: int, val_frac: float, block_size: int, step: int, eval_iters: int
) -> None:
    batches = make(n=n, val_frac=val_frac, block_size=block_size, eval_iters=eval_iters)
    n_train, n_val = batches.split_sizes
    assert n_train + n_val == n
    train = [batches.train_batch(step, micro) for micro in range(3)] + list(batches.eval_batches("train"))
    for first, last, drawn in ((0, n_train - 1, train), (n_train, n - 1, list(batches.eval_batches("val")))):
        for x, y in drawn:
            assert x.shape == y.shape == (8, block_size) and x.dtype == y.dtype == torch.int64
            assert x.is_contiguous() and y.is_contiguous()
            assert torch.equal(y, x + 1) and torch.equal(x, x[:, :1] + torch.arange(block_size))
            assert x.min() >= first and y.max() <= last


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_processes_together_have_the_batch_of_one(world_size: int) -> None:
    alone = make()
    ranks = [make(rank=rank, world_size=world_size) for rank in range(world_size)]
    for micro in range(3):
        parts = [rank.train_batch(7, micro)[0] for rank in ranks]
        assert {len(part) for part in parts} == {8 // world_size}  # equal shares: the mean of means is the mean
        assert torch.equal(torch.cat(parts), alone.train_batch(7, micro)[0])
    for split in ("train", "val"):
        for whole, *parts in zip(alone.eval_batches(split), *(rank.eval_batches(split) for rank in ranks), strict=True):
            assert {len(x) for x, _ in parts} == {8 // world_size}
            assert torch.equal(torch.cat([x for x, _ in parts]), whole[0])
    for rank in ranks:
        assert torch.equal(rank.probe_windows()[0], alone.probe_windows()[0])


def test_accumulation_only_slices_the_step() -> None:
    """24 sequences a step are the same 24, in one batch or in three."""
    whole, _ = make(batch_size=24, grad_accum=1).train_batch(5)
    assert torch.equal(torch.cat([make().train_batch(5, micro)[0] for micro in range(3)]), whole)


def test_steps_micro_steps_and_seeds_differ() -> None:
    starts = {
        tuple(make(seed=seed).train_batch(step, micro)[0][:, 0].tolist())
        for seed in (1, 2)
        for step in range(20)
        for micro in range(3)
    }
    assert len(starts) == 2 * 20 * 3


def test_every_start_is_drawn_and_equally_often() -> None:
    batches = make(n=40, block_size=6, val_frac=0.5, batch_size=100, grad_accum=1)  # starts 0 .. 13
    starts = torch.cat([batches.train_batch(step)[0][:, 0] for step in range(140)])
    counts = torch.bincount(starts, minlength=14)
    assert len(counts) == 14
    assert (counts - 1000).abs().max() < 5 * 1000**0.5  # five standard deviations


def test_the_order_of_the_data_is_the_one_of_older_runs() -> None:
    """Golden: a change of this order makes a resumed run another run."""
    assert make().train_batch(0)[0][:, 0].tolist() == [737, 83, 714, 41, 670, 39, 95, 102]
    assert make().train_batch(1, 2)[0][:, 0].tolist() == [566, 804, 332, 480, 132, 708, 806, 82]


def test_evaluation_windows_are_spread_evenly_over_the_whole_split() -> None:
    for split, first, last in (("train", 0, 899), ("val", 900, 999)):
        batches = list(make().eval_batches(split))
        starts = torch.cat([x[:, 0] for x, _ in batches])
        assert len(batches) == 5 and len(starts) == 40
        assert starts[0] == first and batches[-1][1][-1, -1] == last
        gaps = starts.diff()
        assert gaps.max() - gaps.min() <= 1


def test_evaluation_is_the_same_for_every_seed_and_accumulation() -> None:
    for a, b in zip(make().eval_batches("val"), make(seed=3, grad_accum=1).eval_batches("val"), strict=True):
        assert torch.equal(a[0], b[0])


def test_probe_windows_cover_the_validation_split_and_say_where_they_are() -> None:
    x, positions = make().probe_windows(n=8, length=10)
    assert x.shape == (8, 10) and x.dtype == torch.int64
    assert positions == x[:, 0].tolist()
    assert positions[0] == 900 and x[-1, -1] == 999
    assert make().probe_windows()[0].shape == (8, T)
    assert make().probe_windows(n=3, length=5000)[0].shape == (3, 100)  # no longer than the split
    assert make().probe_windows(n=1, length=5)[1] == [900]


def test_the_shortest_file_that_is_accepted_works() -> None:
    batches = make(n=10, block_size=4, val_frac=0.5)
    assert batches.train_batch(0)[0].tolist() == [[0, 1, 2, 3]] * 8
    assert next(batches.eval_batches("val"))[1].tolist() == [[6, 7, 8, 9]] * 8
    with pytest.raises(UserError, match="needs 6"):
        make(n=10, block_size=5, val_frac=0.5)


def test_a_batch_that_does_not_divide_among_processes_is_refused() -> None:
    with pytest.raises(UserError, match="--batch-size 8 does not divide among 3 processes"):
        make(world_size=3)


def test_callers_mistakes_are_errors() -> None:
    with pytest.raises(ValueError, match="micro"):
        make().train_batch(0, 3)
    with pytest.raises(ValueError, match="'test'"):
        next(make().eval_batches("test"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_asynchronous_copies_arrive_whole() -> None:
    """Many copies in flight before any is read: what was reused too early would show."""
    on_gpu, on_cpu = make(device="cuda"), make()
    flying = [on_gpu.train_batch(step) for step in range(500)]
    for step, (x, y) in enumerate(flying):
        expected_x, expected_y = on_cpu.train_batch(step)
        assert torch.equal(x.cpu(), expected_x) and torch.equal(y.cpu(), expected_y)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_prefetched_batches_are_the_same_in_any_order() -> None:
    places = [(step, micro) for step in range(200) for micro in range(3)] + [(7, 1), (7, 2), (3, 0)]
    ahead, on_cpu = Prefetch(make(grad_accum=3, device="cuda")), make(grad_accum=3)
    flying = [ahead.train_batch(*place) for place in places]
    for place, (x, y) in zip(places, flying, strict=True):
        expected_x, expected_y = on_cpu.train_batch(*place)
        assert torch.equal(x.cpu(), expected_x) and torch.equal(y.cpu(), expected_y)
