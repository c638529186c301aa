"""What the probe leaves alone, what it refuses, and what it hands to the event log."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from probe_models import MODES, assert_close, attentions, peaked_model, small_config, tokens
from torch import nn
from torch._C._distributed_c10d import HashStore
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bottleneck_core.errors import UserError
from bottleneck_core.probe import layer
from bottleneck_core.probe.probe import attention_metrics, raw_module

CONFIG = small_config("decoupled", null_attn=True)


def same(one, other) -> bool:
    """Equal to the bit, NaN included, in all arrays."""
    pairs = [
        (one.attn, other.attn),
        (one.weights, other.weights),
        (one.maps, other.maps),
        (one.svd, other.svd),
    ]
    return all(a.keys() == b.keys() and all(np.array_equal(a[k], b[k], equal_nan=True) for k in a) for a, b in pairs)


def test_random_streams_are_untouched():
    model = peaked_model(small_config(dropout=0.5))
    states = torch.get_rng_state(), pickle.dumps(np.random.get_state()), random.getstate()
    attention_metrics(model, tokens(CONFIG, 2, 12))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert pickle.dumps(np.random.get_state()) == states[1]
    assert random.getstate() == states[2]


def test_training_state_returns_and_dropout_is_off():
    idx = tokens(CONFIG, 2, 12)
    model = peaked_model(small_config(dropout=0.6)).train()
    attentions(model)[1].eval()
    modes = [module.training for module in model.modules()]
    result = attention_metrics(model, idx)
    assert [module.training for module in model.modules()] == modes
    assert same(result, attention_metrics(peaked_model(small_config(dropout=0.0)), idx))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.is_grad_enabled()
    model(idx, idx).backward()  # nothing that the pass cached is closed to autograd


def test_training_state_returns_after_an_error(monkeypatch):
    model = peaked_model(CONFIG).train()
    torch.set_float32_matmul_precision("medium")
    try:

        def broken(x):
            raise ZeroDivisionError

        monkeypatch.setattr(attentions(model)[1], "project", broken)
        with pytest.raises(ZeroDivisionError):
            attention_metrics(model, tokens(CONFIG, 2, 12))
        assert all(module.training for module in model.modules())
        assert matmul_precisions() == ["tf32", "bf16"]  # what "medium" means to either backend
    finally:
        torch.set_float32_matmul_precision("highest")


def test_pass_is_exact_under_autocast_and_fast_matmuls(monkeypatch):
    model = peaked_model(CONFIG, dtype=torch.float32)
    idx = tokens(CONFIG, 2, 12)
    plain = attention_metrics(model, idx)
    seen = []
    embed = model.embed_tokens

    def spy(idx):
        modes = torch.is_autocast_enabled("cpu"), torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        seen.append((matmul_precisions(), *modes))
        return embed(idx)

    monkeypatch.setattr(model, "embed_tokens", spy)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert same(attention_metrics(model, idx), plain)
        assert matmul_precisions() == ["tf32", "bf16"]  # what "medium" means to either backend
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [(["ieee", "ieee"], False, False, False)]


def test_bfloat16_model_is_measured_in_float32():
    idx = tokens(CONFIG, 2, 12)
    model = peaked_model(CONFIG, dtype=torch.bfloat16).train()
    result = attention_metrics(model, idx)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert same(result, attention_metrics(model.float(), idx))


def matmul_precisions() -> list[str]:
    """How float32 products are computed on CUDA and on the CPU."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # pyright: ignore
    return [backend.fp32_precision for backend in backends]


def compiled(model: nn.Module) -> nn.Module:
    """Wrapped as torch.compile does; nothing is compiled before the first call."""
    wrapped = torch.compile(model, backend="eager")
    assert isinstance(wrapped, nn.Module) and wrapped is not model
    return wrapped


def test_compiled_and_parallel_models_are_unwrapped():
    model = peaked_model(CONFIG)
    idx = tokens(CONFIG, 2, 12)
    plain = attention_metrics(model, idx)
    assert same(attention_metrics(compiled(model), idx), plain)
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(model)
        assert raw_module(compiled(parallel)) is model
        assert raw_module(DistributedDataParallel(compiled(model))) is model
        assert same(attention_metrics(parallel, idx), plain)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("mode", MODES)
def test_cuda_gives_what_the_cpu_gives(mode):
    config = small_config(mode, null_attn=True)
    idx = tokens(config, 3, 17)
    on_cpu = attention_metrics(peaked_model(config), idx, save_scores=True)
    on_gpu = attention_metrics(peaked_model(config).cuda(), idx, save_scores=True)
    for name in ("attn", "weights", "maps", "svd", "sem_scores", "geo_scores"):
        expected, actual = getattr(on_cpu, name), getattr(on_gpu, name)
        assert actual.keys() == expected.keys()
        for key, values in expected.items():
            assert_close(actual[key], values, f"{name} {key}")


class LargestDouble(TorchDispatchMode):
    """Remembers the size of the largest float64 tensor that any operation returned."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.dtype == torch.float64:
                self.entries = max(self.entries, leaf.numel())
        return out


def test_memory_is_bounded_by_the_chunk(monkeypatch):
    config = small_config("standard", n_layer=2)
    model = peaked_model(config, dtype=torch.float32)
    idx = tokens(config, windows=4, length=96)
    whole = attention_metrics(model, idx)
    monkeypatch.setattr(layer, "CHUNK_ENTRIES", 8192)  # all windows and heads would be 147456
    with LargestDouble() as largest:
        chunked = attention_metrics(model, idx)
    assert largest.entries <= 96 * 96  # the one map that is decomposed
    for name, values in whole.attn.items():
        np.testing.assert_allclose(chunked.attn[name], values, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_weight_gives_nan_where_it_reaches(bad):
    model = peaked_model(CONFIG)
    with torch.no_grad():
        attentions(model)[1].query_key_weights()["q_geo"][0, 0] = bad  # a row of head 0
    result = attention_metrics(model, tokens(CONFIG, 3, 12), heads="0,1", save_scores=True)
    for name, values in result.attn.items():
        assert np.isfinite(values[0, :2]).all(), name
        # layer 1 is not chosen, so has no effective rank
        assert name in ("erank", "sem_energy_ratio") or np.isnan(values[1, 0]), name
        assert name == "erank" or np.isfinite(values[1, 1:]).all(), name
        assert np.isnan(values[2]).all(), name
    assert np.isnan(result.weights["stable_rank_q_geo"]).tolist() == [False, True, False]
    assert np.isfinite(result.weights["stable_rank_q_sem"]).all()
    assert np.isnan(result.svd[2, 0]).all() and np.isfinite(result.svd[0, 0]).all()
    scalars = result.scalars()
    assert all(np.isnan(v) for v in scalars.values()), scalars


def test_scalars_are_the_event_keys():
    idx = tokens(CONFIG, 2, 12)
    result = attention_metrics(peaked_model(CONFIG), idx, heads="0,1")
    scalars = result.scalars()
    attention = {
        "entropy",
        "entropy_norm",
        "topk_mass",
        "local_mass",
        "null_mass",
        "sink_mass",
        "prev_mass",
        "distance",
    }
    basic = {f"attn_{name}_mean" for name in attention | {"redundancy"}}
    energy = {"sem_energy_ratio_mean", "geo_energy_ratio_mean"}
    ranks = {"attn_erank_mean", "proj_stable_rank_mean", "proj_stable_rank_norm_mean"}
    assert set(scalars) == basic | energy | ranks
    assert scalars["attn_entropy_mean"] == pytest.approx(result.attn["entropy"].mean(dtype=float))
    assert scalars["attn_erank_mean"] == pytest.approx(result.attn["erank"][np.ix_([0, 2], [0, 1])].mean(dtype=float))
    stable = [result.weights[f"stable_rank_{name}"] for name in ("q_sem", "k_sem", "q_geo", "k_geo")]
    assert scalars["proj_stable_rank_mean"] == pytest.approx(np.mean(stable, dtype=float))
    assert scalars["sem_energy_ratio_mean"] + scalars["geo_energy_ratio_mean"] == pytest.approx(1)
    assert all(type(value) is float for value in scalars.values())

    standard = small_config("standard")
    assert set(attention_metrics(peaked_model(standard), idx).scalars()) == basic | ranks


def test_less_than_full_skips_ranks_and_maps(monkeypatch):
    idx = tokens(CONFIG, 2, 12)
    model = peaked_model(CONFIG)
    full = attention_metrics(model, idx, save_scores=True)
    monkeypatch.setattr(torch.linalg, "svdvals", None)  # a call would raise
    part = attention_metrics(model, idx, full=False, save_scores=True)
    assert not (part.maps or part.svd or part.sem_scores or part.geo_scores)
    assert set(part.weights) == {"redundancy"}
    assert set(full.attn) - set(part.attn) == {"erank"}
    for name, values in part.attn.items():
        np.testing.assert_array_equal(values, full.attn[name])
    assert "attn_erank_mean" not in part.scalars() and "proj_stable_rank_mean" not in part.scalars()


def test_switches_choose_what_is_stored():
    idx = tokens(CONFIG, 2, 12)
    model = peaked_model(CONFIG)
    no_maps = attention_metrics(model, idx, maps=False)
    assert not no_maps.maps and set(no_maps.svd) == {(0, 0), (2, 0)} and "erank" in no_maps.attn
    no_svd = attention_metrics(model, idx, svd=False)
    assert set(no_svd.maps) == {(0, 0), (2, 0)} and not no_svd.svd and "erank" not in no_svd.attn
    none = attention_metrics(model, idx, heads="", save_scores=True)
    assert not none.maps and not none.sem_scores and "attn_erank_mean" not in none.scalars()
    default = attention_metrics(model, idx)
    assert default.layers == (0, 2) and default.heads == (0,) and not default.sem_scores


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"idx": torch.zeros(12, dtype=torch.int64)}, "token ids (windows, tokens)"),
        ({"idx": torch.zeros(0, 12, dtype=torch.int64)}, "at least one of each, got shape (0, 12)"),
        ({"idx": torch.full((2, 12), 31)}, "ids 0 to 30 of the vocabulary, got 31"),
        ({"idx": torch.full((2, 12), -1)}, "ids 0 to 30 of the vocabulary, got -1"),
        ({"topk": 0}, "analysis topk must be >= 1, got 0"),
        ({"local_window": -1}, "analysis local_window must be >= 0, got -1"),
        ({"window_batch": 0}, "analysis window_batch must be >= 1, got 0"),
        ({"layers": "0,3"}, "analysis layers '0,3': layer 3 does not exist; the model has layers 0 to 2"),
        ({"heads": "first"}, "analysis heads 'first': 'first' is no whole number"),
    ],
)
def test_refusals_are_one_sentence(changes, sentence):
    arguments = {"idx": tokens(CONFIG, 2, 12)} | changes
    with pytest.raises(UserError) as error:
        attention_metrics(peaked_model(CONFIG), arguments.pop("idx"), **arguments)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
