"""Longest context, largest batch and cheapest policy: what is found fits, one more does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.config import RunConfig
from bottleneck_core.memory import (
    GPUS,
    QUALITY_ORDER,
    Budget,
    cheapest_policy,
    kv_memory,
    largest_batch,
    longest_context,
)
from bottleneck_core.memory.budget import device_memory, weights_bytes
from bottleneck_core.memory.zoo import zoo

TOTALS = ("logical", "engine_reserved", "conservative")
WITH_LENGTH = sorted(set(zoo()) - {"mamba-2.8b"})


@given(
    name=st.sampled_from(WITH_LENGTH),
    space=st.integers(0, 2**38),
    batch=st.integers(1, 9),
    kind=st.sampled_from(["fp16", "q8_0", "q4_0"]),
    page=st.sampled_from([1, 256]),
    total=st.sampled_from(TOTALS),
)
def test_the_longest_context_fits_and_one_more_does_not(name, space, batch, kind, page, total) -> None:
    model, policy = zoo()[name].config, {"kv_cache": kind}
    longest = longest_context(model, space, batch, policy, page, total)

    def size(context: int) -> int:
        return kv_memory(model, context, batch, policy, page).totals[total]

    if longest is None:  # every layer is windowed, and the windows fit
        assert size(2**30) == size(2**31) <= space
    else:
        assert longest == 0 or size(longest) <= space
        assert size(longest + 1) > space


@given(
    exp=st.sampled_from(["paper_baseline", "paper_decoupled"]),
    space=st.integers(0, 2**34),
    context=st.integers(1, 200_000),
    total=st.sampled_from(TOTALS),
)
def test_the_largest_batch_fits_and_one_more_does_not(exp, space, context, total) -> None:
    config = RunConfig.resolve(size="tiny", exp=exp, kv_cache="q8_0")
    batch = largest_batch(config, space, context, total=total)
    assert batch is not None
    assert batch == 0 or kv_memory(config, context, batch).totals[total] <= space
    assert kv_memory(config, context, batch + 1).totals[total] > space


def test_a_length_that_costs_nothing_has_no_end() -> None:
    model = zoo()["mamba-2.8b"].config
    fixed = kv_memory(model, 1).bytes
    assert longest_context(model, fixed) is None
    assert longest_context(model, fixed - 1) == 0
    assert largest_batch(model, 3 * fixed + 5, 100) == 3


@given(name=st.sampled_from(WITH_LENGTH), context=st.integers(1, 10**6), share=st.floats(0.285, 1.2))
def test_the_chosen_policy_is_the_first_that_fits(name, context, share) -> None:
    model = zoo()[name].config
    fixed = kv_memory(model, context).fixed_bytes_per_request
    space = int(share * kv_memory(model, context).bytes) + fixed + 2**20
    choice = cheapest_policy(model, space, context)
    assert choice.memory.bytes <= space
    assert [settings["kv_cache"] for settings, _ in choice.rejected] == [
        settings["kv_cache"] for settings in QUALITY_ORDER[: choice.rank]
    ]
    assert all(size > space for _, size in choice.rejected)
    assert choice.settings["kv_residual"] == 0


def test_the_order_of_expected_loss_is_of_falling_size() -> None:
    model = zoo()["llama-3.1-8b"].config
    sizes = [kv_memory(model, 1000, policy=settings).bytes for settings in QUALITY_ORDER]
    assert sizes[0] == max(sizes) and sizes[-1] == min(sizes)
    assert sizes[1] > sizes[2] > sizes[5] > sizes[7]


def test_our_models_keep_their_own_window_and_blocks() -> None:
    config = RunConfig.resolve(size="tiny", exp="paper_bottleneck", kv_residual=7, kv_qblock=16)
    half = kv_memory(config, 1000).bytes // 2
    choice = cheapest_policy(config, half, 1000)
    assert choice.settings["kv_residual"] == 7 and choice.settings["kv_qblock"] == 16
    assert choice.memory.tensors[0].qblock in (1, 16)


def test_no_policy_that_fits_is_a_sentence() -> None:
    model = zoo()["llama-2-7b"].config
    with pytest.raises(ValueError, match=r"no policy fits 1,000 B at 4,096 tokens .* the smallest \(.*q4_0\) takes"):
        cheapest_policy(model, 1000, 4096)


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"page": 0}, {"total": "physical"}])
def test_sizes_and_names_are_checked(wrong) -> None:
    with pytest.raises(ValueError, match=r"at least 1|unknown total"):
        longest_context(zoo()["gpt2"].config, 10**9, **wrong)


def test_a_budget_is_what_is_left() -> None:
    budget = Budget(total=100, weights=30, activations=20, reserve=10)
    assert budget.cache == 40
    assert budget.lines() == ("for the cache: 100 - 30 weights - 20 activations - 10 reserve = 40 B",)
    assert Budget(total=10, weights=30).cache == 0


def test_weights() -> None:
    assert weights_bytes(1000, "bf16") == 2000
    assert weights_bytes(64, "q8_0") == 2 * 34
    assert weights_bytes(64, "q4_0") == 2 * 18
    assert weights_bytes(64, "mxfp4") == 2 * 17
    assert weights_bytes(3, "int4") == 2
    with pytest.raises(ValueError, match="unknown dtype of weights int3"):
        weights_bytes(1, "int3")


def test_gpus_by_name() -> None:
    assert device_memory("h100-80gb") == device_memory("NVIDIA H100 80GB") == device_memory("h100") == GPUS["H100 80GB"]
    assert device_memory("A100 40GB") < device_memory("a100 80gb")
    with pytest.raises(ValueError, match="unknown GPU a100: choose one of A100 40GB, A100 80GB"):
        device_memory("a100")  # two of them
    with pytest.raises(ValueError, match=r"unknown GPU RTX 4900: choose one of .*RTX 4090"):
        device_memory("RTX 4900")
    with pytest.raises(ValueError, match="unknown GPU"):
        device_memory("")
    assert all(2**33 < size < 2**38 for size in GPUS.values())
