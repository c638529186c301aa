"""What there is to choose from: lists in flags, one tensor of keys or two, budgets, plans that read the same."""

from __future__ import annotations

import itertools

import pytest
import torch

from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError
from bottleneck_core.generate import Plan
from bottleneck_core.kernels import Tuning
from bottleneck_core.kvcache import KVCache
from bottleneck_core.memory import CachePolicy, cached_widths, kv_memory
from bottleneck_core.memory.policy_text import parse_policy
from bottleneck_core.tune.space import budget_bytes, decode_plans, policies, within
from bottleneck_core.tune.spelling import plan_of, plan_settings, policy_name, policy_settings, simplified

DECOUPLED = RunConfig.resolve(size="tiny", exp="paper_decoupled", vocab_size=64)
ONE_KEY = RunConfig.resolve(size="tiny", exp="paper_bottleneck", vocab_size=64)


def test_every_way_to_store_is_there_once() -> None:
    found, rejected = policies(DECOUPLED, DECOUPLED, CachePolicy())
    kinds = itertools.product(("q4_0", "nf4", "q8_0", "fp16"), ("q8_0", "q4_0", "fp16"), ("q4_0", "q8_0", "fp16"))
    wanted = {
        (sem, geo, v, block if {sem, geo, v} - {"fp16"} else 0, residual if {sem, geo, v} - {"fp16"} else 0)
        for (sem, geo, v), block, residual in itertools.product(kinds, (16, 32, 64), (0, 32, 64, 128))
    }
    # sem_dim is 32: where only k_sem has blocks, 64 is 32.
    wanted = {row for row in wanted if not (row[3] == 64 and row[1] == row[2] == "fp16")}
    assert len(found) == len(wanted)
    assert found[0] == CachePolicy()
    names = [policy_name(policy, cached_widths(DECOUPLED)) for policy in found]
    assert len(set(names)) == len(names)
    assert {each.reason for each in rejected} == {"stored the same"}


def test_a_single_key_tensor_tries_both_lists() -> None:
    found, _ = policies(ONE_KEY, ONE_KEY, CachePolicy())
    assert {policy.kind_of("k") for policy in found} == {"q4_0", "nf4", "q8_0", "fp16"}
    assert {policy.kind_of("v") for policy in found} == {"q4_0", "q8_0", "fp16"}


def test_edges_and_rotation_stay_as_the_base_has_them() -> None:
    base = CachePolicy(kind="q8_0", qblocks={"k": 16}, first_layers=1, edge_kind="q8_0", hadamard=True)
    found, _ = policies(ONE_KEY, ONE_KEY, base)
    assert found[0] is base
    for policy in found[1:]:
        assert (policy.first_layers, policy.edge_kind, policy.hadamard, policy.qblocks) == (1, "q8_0", True, {})


def test_the_budget_is_the_base_and_a_share_or_megabytes() -> None:
    base = CachePolicy()
    taken = kv_memory(ONE_KEY, 1000, 3, base, page=256).bytes
    assert budget_bytes(ONE_KEY, ONE_KEY, base, 1000, 3, 256) == int(taken * 1.1)
    given = ONE_KEY.model_copy(update={"self_opt_mem_budget_mb": 2.5})
    assert budget_bytes(ONE_KEY, given, base, 1000, 3, 256) == 2_500_000


def test_sizes_are_those_of_allocated_caches() -> None:
    model = RunConfig.resolve(size="nano", exp="paper_decoupled", layers=2, vocab_size=64)
    found, _ = policies(model, model, CachePolicy())
    sized, rejected = within(model, found, 40_000, 100, 2, 16)
    assert sized and rejected and len(sized) + len(rejected) == len(found)
    assert all("of 40,000 B" in each.detail for each in rejected)
    for each in sized[:: len(sized) // 5]:
        cache = KVCache(model, each.policy, batch=2, page=16)
        for layer, tensors in enumerate(cache.layers):
            cache.write(layer, {name: torch.zeros(2, 100, tensor.width) for name, tensor in tensors.items()})
        cache.advance(100)
        assert cache.allocated_bytes == each.bytes <= 40_000


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"self_opt_v_kinds": "q4_0,q3"}, "--self-opt-v-kinds names q3"),
        ({"self_opt_v_kinds": "q4_1"}, "--self-opt-v-kinds names q4_1"),
        ({"self_opt_qblocks": "16,x"}, "--self-opt-qblocks must list whole numbers >= 1, got x"),
        ({"self_opt_qblocks": "0"}, "--self-opt-qblocks must list whole numbers >= 1, got 0"),
        ({"self_opt_residuals": " , "}, "--self-opt-residuals is empty"),
    ],
)
def test_lists_that_make_no_sense(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        policies(ONE_KEY, ONE_KEY.model_copy(update=settings), CachePolicy())


def test_odd_blocks_of_four_bits_are_rejected_with_the_reason() -> None:
    found, rejected = policies(ONE_KEY, ONE_KEY.model_copy(update={"self_opt_qblocks": "15"}), CachePolicy())
    assert {kind for policy in found for kind in map(policy.kind_of, ("k", "v"))} == {"q8_0", "fp16"}
    assert any(each.reason == "cannot be stored" and "even" in each.detail for each in rejected)


def test_streaming_plans_once_for_each_reading() -> None:
    base = Plan(block=1024)
    found, rejected = decode_plans(DECOUPLED, base, prefix=700, cuda=False)
    assert [plan.block for plan in found] == [1024, 256, 512]
    assert {each.reason for each in rejected} == {"reads the same"}
    assert len(rejected) == 1  # 2,048; the base itself is not rejected
    assert [plan.block for plan in decode_plans(DECOUPLED, base, 5000, False)[0]] == [1024, 256, 512, 2048]


def test_plans_on_cuda_try_tilings_of_the_kernels_that_may_run() -> None:
    found, _ = decode_plans(DECOUPLED, Plan(), prefix=5000, cuda=True)
    fused = [plan for plan in found if plan.tuning is not None]
    assert len(fused) == 2 * 1 * 2 * 2
    assert fused[0].tuning == Tuning(block_n=128, num_warps=4, num_stages=2)
    assert {plan.fused for plan in found} == {"auto", "none", "triton1pass", "triton2pass"}
    forced, _ = decode_plans(DECOUPLED, Plan(fused="triton1pass"), prefix=5000, cuda=True)
    assert {plan.fused for plan in forced} == {"triton1pass"} and len(forced) == 5
    plain, _ = decode_plans(DECOUPLED, Plan(fused="none"), prefix=5000, cuda=True)
    assert all(plan.tuning is None and plan.fused == "none" for plan in plain)
    with pytest.raises(UserError, match="powers of two, got 100"):
        decode_plans(DECOUPLED.model_copy(update={"self_opt_block_n": "100"}), Plan(), 5000, True)


@pytest.mark.parametrize(
    "text",
    ["fp16", "q4_0", "q8_0,residual=0,qblock=16", "k=q8_0,v=q4_0,residual=64", "q8_0,qblock_k=16,qblock_v=64",
     "fp16,first=1,edge=q8_0", "q4_0,hadamard"],
)  # fmt: skip
def test_names_and_settings_bring_a_policy_back(text: str) -> None:
    policy = parse_policy(text)
    assert CachePolicy.of(policy_settings(policy)) == policy
    name = policy_name(policy, ("k", "v"))
    stored = [kv_memory(ONE_KEY, 500, policy=each).tensors for each in (policy, parse_policy(name))]
    assert stored[0] == stored[1]


def test_what_has_no_effect_has_no_name() -> None:
    policy = CachePolicy(kinds={"k": "fp16", "v": "fp16"}, qblock=16, residual=5)
    assert policy_name(policy, ("k", "v")) == "fp16"
    # q4_0 said for all tensors at once would keep k_geo at q8_0: the kinds have to be named.
    four = CachePolicy(kinds=dict.fromkeys(("k_sem", "k_geo", "v"), "q4_0"))
    assert simplified(four, ("k_sem", "k_geo", "v")).kind_of("k_geo") == "q4_0"


def test_plans_come_back_from_plain_values() -> None:
    for plan in (Plan(block=7, fused="none"), Plan(fused="triton1pass", tuning=Tuning(block_n=64, num_warps=8))):
        assert plan_of(plan_settings(plan)) == plan
