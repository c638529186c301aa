"""The fast path against the reference, both against NumPy, and causality, in float64 on the CPU."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import MODES, all_toggles, scrambled, tiny, toggle_id, tokens

from bottleneck_core.config import ModelConfig
from bottleneck_core.model import Attention, Implementation, Projected
from bottleneck_core.model.attention import reference, sdpa

EVERY_TOGGLE = pytest.mark.parametrize("config", all_toggles(), ids=toggle_id)
EVERY_MODE = pytest.mark.parametrize("mode", MODES)
TIEABLE_MODE = pytest.mark.parametrize("mode", [name for name, mode in MODES.items() if not mode.grouped])
WITH_AND_WITHOUT_NULL = pytest.mark.parametrize("null_attn", [False, True], ids=["plain", "null"])
EVERY_IMPL = pytest.mark.parametrize("impl", ["fast", "reference"])


def first_attention(config: ModelConfig, impl: Implementation = "fast") -> Attention:
    attention = scrambled(config, impl).blocks[0].attn
    assert isinstance(attention, Attention)
    return attention


def assert_paths_agree(config: ModelConfig, length: int) -> None:
    fast, slow = scrambled(config), scrambled(config, "reference")
    idx, targets = tokens(2, length), tokens(2, length, seed=2)
    torch.testing.assert_close(fast(idx), slow(idx), rtol=0, atol=1e-10)
    fast(idx, targets).backward()
    slow(idx, targets).backward()
    for (name, one), (_, other) in zip(fast.named_parameters(), slow.named_parameters(), strict=True):
        assert one.grad is not None and other.grad is not None, name
        assert one.grad.abs().max() > 0, f"{name} takes no part"
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-10, msg=name)


@EVERY_TOGGLE
def test_fast_path_equals_reference_in_values_and_gradients(config: ModelConfig) -> None:
    assert_paths_agree(config, length=9)


@WITH_AND_WITHOUT_NULL
@pytest.mark.parametrize(
    "shape",
    [
        {"attn_mode": "bottleneck", "attn_dim": 48},  # head dim 12
        {"attn_mode": "decoupled", "attn_dim": 32},  # values wider than keys
        {"attn_mode": "decoupled", "attn_dim": 4},  # and narrower
        {"attn_mode": "gqa", "kv_head": 1},
        {"attn_mode": "gqa", "kv_head": None},
        {"attn_mode": "standard", "block_size": 4},  # the rotary table grows on the way
    ],
    ids=lambda shape: "-".join(str(value) for value in shape.values()),
)
@pytest.mark.parametrize("length", [1, 2, 37])
def test_paths_agree_in_unusual_shapes(shape: dict[str, Any], null_attn: bool, length: int) -> None:
    config = tiny(shape["attn_mode"], **shape | {"null_attn": null_attn, "rope": length > 1})
    fast, slow = scrambled(config), scrambled(config, "reference")
    torch.testing.assert_close(fast(tokens(2, length)), slow(tokens(2, length)), rtol=0, atol=1e-10)


@EVERY_TOGGLE
@EVERY_IMPL
def test_a_token_changes_no_logit_before_it(config: ModelConfig, impl: Implementation) -> None:
    model = scrambled(config, impl)
    idx = tokens(2, 12)
    with torch.no_grad():
        before = model(idx)
        for t in (1, 6, 11):
            changed = idx.clone()
            changed[:, t] = (idx[:, t] + 7) % 23
            after = model(changed)
            assert torch.equal(after[:, :t], before[:, :t]), f"token {t} is seen too early"
            assert not torch.equal(after[:, t], before[:, t])


@EVERY_MODE
@EVERY_IMPL
def test_the_null_key_is_seen_by_every_query(mode: str, impl: Implementation) -> None:
    model = scrambled(tiny(mode, null_attn=True), impl)
    idx = tokens(1, 6)
    before = model(idx)
    with torch.no_grad():
        first_layer_null = dict(model.named_parameters())["blocks.0.attn.null_v"]
        first_layer_null.add_(1.0)
    assert ((model(idx) - before).abs().amax(-1) > 1e-3).all()


@EVERY_MODE
@WITH_AND_WITHOUT_NULL
@EVERY_IMPL
@pytest.mark.parametrize("new", [1, 3])
def test_new_queries_over_cached_keys(mode: str, null_attn: bool, impl: Implementation, new: int) -> None:
    """What a cache does: project only the new tokens, at their positions, and attend over all keys."""
    attention = first_attention(tiny(mode, null_attn=null_attn), impl)
    x = torch.randn(2, 10, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    past, latest = attention.project(x[:, :-new]), attention.project(x[:, -new:], start=10 - new)
    joined = dataclasses.replace(latest, k=torch.cat((past.k, latest.k), dim=2), v=torch.cat((past.v, latest.v), dim=2))
    whole = attention.attend(attention.project(x))
    torch.testing.assert_close(attention.attend(joined), whole[:, -new:], rtol=0, atol=1e-12)


def test_reference_weights_are_causal_rows_that_sum_to_one() -> None:
    projected = first_attention(tiny("gqa", null_attn=True)).project(torch.ones(1, 5, 16, dtype=torch.float64))
    weights = reference.weights(projected)
    assert weights.shape == (1, 4, 5, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 4, 5, dtype=torch.float64))
    assert torch.equal(weights > 0, torch.ones(5, 6).tril(1).bool().expand(1, 4, 5, 6))


@EVERY_MODE
def test_temperature_scales_every_score_of_its_head_by_exp_t(mode: str) -> None:
    attention = first_attention(tiny(mode, null_attn=True))
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    t = torch.tensor([0.0, 1.0, -0.5, 0.3], dtype=torch.float64)
    assert attention.temperature is not None
    with torch.no_grad():
        attention.temperature.zero_()
        plain = reference.scores(attention.project(x))
        attention.temperature.copy_(t)
        tempered = reference.scores(attention.project(x))
    torch.testing.assert_close(tempered, plain * t.exp()[:, None, None])


def test_one_key_head_is_standard_attention_with_repeated_keys() -> None:
    shared = first_attention(tiny("gqa", attn_dim=16, kv_head=1, null_attn=True))
    full = first_attention(tiny("standard", null_attn=True))
    state = shared.state_dict()
    for name in ("k_proj.weight", "v_proj.weight", "null_k", "null_v"):
        state[name] = state[name].repeat(4, 1)
    full.load_state_dict(state)
    x = torch.randn(2, 7, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(shared(x), full(x))


def test_query_heads_share_key_heads_in_consecutive_groups() -> None:
    attention = first_attention(tiny("gqa", kv_head=2))
    x = torch.randn(1, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    before = attention.attend(attention.project(x)).unflatten(-1, (4, 2))  # (B, T, H, V)
    with torch.no_grad():
        attention.v_proj.weight[:2] += 1.0  # values of key head 0
    changed = (attention.attend(attention.project(x)).unflatten(-1, (4, 2)) - before).abs().amax((0, 1, 3))
    assert (changed > 1e-6).tolist() == [True, True, False, False]


@pytest.mark.parametrize("tie_qk", [False, True])
@TIEABLE_MODE
def test_query_key_weights_name_what_projects(mode: str, tie_qk: bool) -> None:
    weights = first_attention(tiny(mode, tie_qk=tie_qk)).query_key_weights()
    parts = ("_sem", "_geo") if mode == "decoupled" else ("",)
    assert set(weights) == {f"{side}{part}" for side in "qk" for part in parts}
    for part in parts:
        assert (weights[f"k{part}"] is weights[f"q{part}"]) == tie_qk
        assert weights[f"q{part}"].shape[1] == 16


@TIEABLE_MODE
def test_tied_keys_are_the_queries_before_temperature_and_rotation(mode: str) -> None:
    attention = first_attention(tiny(mode, tie_qk=True, rope=False))
    projected = attention.project(torch.randn(2, 6, 16, dtype=torch.float64))
    scale = torch.ones(projected.q.size(-1), dtype=torch.float64)
    if mode == "decoupled":  # semantic head dim 1, geometric head dim 4
        scale = torch.tensor([1.0, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
        assert (projected.sem_width, projected.scale) == (1, 1.0)
    assert attention.temperature is not None
    torch.testing.assert_close(projected.q, projected.k * scale * attention.temperature.exp()[:, None, None])


@pytest.mark.parametrize("attend", [sdpa.attend, reference.attend], ids=["fast", "reference"])
@WITH_AND_WITHOUT_NULL
def test_dropout_falls_on_attention_weights(attend: Any, null_attn: bool) -> None:
    """With values of one, a query's output is the sum of its dropped weights over 1 - p: 1 on average, not always."""
    generator = torch.Generator().manual_seed(7)
    q, k = (torch.randn(64, 4, 16, 8, generator=generator) for _ in range(2))
    null = torch.ones(4, 8) if null_attn else None
    projected = Projected(q, k, torch.ones(64, 4, 16, 8), 8**-0.5, null, null)
    with torch.random.fork_rng():
        torch.manual_seed(8)
        sums = attend(projected, 0.25).unflatten(-1, (4, 8))[..., 0]  # (B, T, H)
    assert sums.mean().item() == pytest.approx(1.0, abs=0.02)
    assert sums.std() > 0.1
    if not null_attn:  # the first query sees one key, whose weight is dropped or divided by 1 - p
        torch.testing.assert_close(sums[:, 0].unique(), torch.tensor([0.0, 4 / 3]))
    torch.testing.assert_close(attend(projected, 0.0), torch.ones(64, 16, 32))


def numpy_decoupled_gpt(weights: dict[str, np.ndarray], config: ModelConfig, idx: np.ndarray) -> np.ndarray:
    """A whole one-block decoupled model with null key and rotated geometry for one sequence, pair by pair."""
    H, T = config.n_head, len(idx)
    Ks, Kg, V = config.sem_dim // H, config.geo_dim // H, config.attn_dim // H

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weights[f"{name}.weight"]
            + weights[f"{name}.bias"]
        )

    def turn(vector: np.ndarray, position: int) -> np.ndarray:
        half = Kg // 2
        turned = np.empty(Kg)
        for i in range(half):
            angle = position * config.rope_base ** (-2 * i / Kg)
            turned[i] = vector[i] * np.cos(angle) - vector[i + half] * np.sin(angle)
            turned[i + half] = vector[i] * np.sin(angle) + vector[i + half] * np.cos(angle)
        return turned

    block = "blocks.0"
    x = weights["embed.weight"][idx]
    h = norm(x, f"{block}.attn_norm")
    project = {name: h @ weights[f"{block}.attn.{name}_proj.weight"].T for name in
               ("q_sem", "k_sem", "q_geo", "k_geo", "v")}  # fmt: skip
    merged = np.zeros((T, H * V))
    for head in range(H):
        sem, geo, val = (slice(head * D, (head + 1) * D) for D in (Ks, Kg, V))
        heat = np.exp(weights[f"{block}.attn.temperature"][head])
        for i in range(T):
            q_sem, q_geo = project["q_sem"][i, sem], turn(project["q_geo"][i, geo], i)
            scores = [
                q_sem @ weights[f"{block}.attn.null_k_sem"][head] / np.sqrt(Ks)
                + q_geo @ weights[f"{block}.attn.null_k_geo"][head] / np.sqrt(Kg)
            ]
            values = [weights[f"{block}.attn.null_v"][head]]
            for j in range(i + 1):
                k_geo = turn(project["k_geo"][j, geo], j)
                scores.append(q_sem @ project["k_sem"][j, sem] / np.sqrt(Ks) + q_geo @ k_geo / np.sqrt(Kg))
                values.append(project["v"][j, val])
            exponentials = np.exp(heat * np.array(scores))
            merged[i, val] = exponentials @ np.array(values) / exponentials.sum()
    x = x + merged @ weights[f"{block}.attn.out_proj.weight"].T
    h = norm(x, f"{block}.mlp_norm")
    gate, up = (h @ weights[f"{block}.mlp.{name}_proj.weight"].T for name in ("gate", "up"))
    x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[f"{block}.mlp.down_proj.weight"].T
    return norm(x, "norm") @ weights["embed.weight"].T


@EVERY_IMPL
def test_decoupled_model_equals_a_hand_written_one(impl: Implementation) -> None:
    config = tiny("decoupled", n_layer=1, sem_dim=8, attn_dim=12, null_attn=True)
    model = scrambled(config, impl)
    idx = tokens(1, 7)
    by_hand = numpy_decoupled_gpt(
        {name: value.detach().numpy() for name, value in model.named_parameters()}, config, idx[0].numpy()
    )
    torch.testing.assert_close(model(idx)[0], torch.from_numpy(by_hand), rtol=0, atol=1e-10)


@EVERY_MODE
def test_a_null_key_is_never_rotated(mode: str) -> None:
    attention = first_attention(tiny(mode, null_attn=True))
    x = torch.randn(1, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    projected = attention.project(x, start=3)
    learned = dict(attention.named_parameters())
    names = ("null_k_sem", "null_k_geo") if mode == "decoupled" else ("null_k",)
    null_k = torch.cat([learned[name] for name in names], dim=-1)  # (G, K)
    assert projected.null_k is not None and torch.equal(projected.null_k, null_k)
    per_head = null_k.repeat_interleave(4 // null_k.size(0), dim=0)  # (H, K)
    by_hand = projected.scale * torch.einsum("bhtk,hk->bht", projected.q, per_head)
    torch.testing.assert_close(reference.scores(projected)[..., 0], by_hand)
