"""The probe's metrics against brute force, in every attention mode."""

from __future__ import annotations

import brute_force
import numpy as np
import pytest
import torch
from probe_models import MODES, assert_close, attentions, peaked_model, small_config, tokens

from bottleneck_core.probe import layer
from bottleneck_core.probe.attention import uniform_entropy
from bottleneck_core.probe.probe import attention_metrics


def brute_matrices(model, idx) -> list[list[list[brute_force.Matrix]]]:
    """Attention matrices by layer, head and window."""
    heads, windows = range(model.config.n_head), range(len(idx))
    return [
        [[brute_force.matrix(pulled, n, h) for n in windows] for h in heads]
        for pulled in brute_force.pull_layers(model, idx)
    ]


def compare(model, matrices, result, topk: int, window: int, scores: bool = True) -> None:
    """All arrays of `result`, which was taken with layers "0,-1", heads "0,2" and save_scores=`scores`."""
    L, H = model.config.n_layer, model.config.n_head
    expected = [[brute_force.head_metrics(matrices[i][h], topk, window) for h in range(H)] for i in range(L)]
    decoupled = model.config.attn_mode == "decoupled"
    names = {name for name in expected[0][0] if decoupled or "energy" not in name}
    assert set(result.attn) == names | {"erank"}
    for name in names:
        assert_close(result.attn[name], [[expected[i][h][name] for h in range(H)] for i in range(L)], name)

    chosen = {(i, h) for i in (0, L - 1) for h in (0, 2)}
    assert set(result.maps) == set(result.svd) == chosen
    assert set(result.sem_scores) == set(result.geo_scores) == (chosen if decoupled and scores else set())
    erank = np.full((L, H), np.nan)
    for i, h in chosen:
        erank[i, h] = brute_force.effective_rank(matrices[i][h])
        assert_close(result.maps[i, h], matrices[i][h][0].keys, "map")
        assert_close(result.svd[i, h], brute_force.singular_values(matrices[i][h]), "svd")
    assert_close(result.attn["erank"], erank, "erank")
    for i, h in result.sem_scores:
        assert_close(result.sem_scores[i, h], matrices[i][h][0].sem, "sem_scores")
        assert_close(result.geo_scores[i, h], matrices[i][h][0].geo, "geo_scores")

    expected_weights = {"redundancy": [brute_force.redundancy(matrices[i]) for i in range(L)]}
    for name in ("q_sem", "k_sem", "q_geo", "k_geo") if decoupled else ("q", "k"):
        weights = [block.attn.query_key_weights()[name].detach().double().numpy() for block in model.blocks]
        ranks = [brute_force.stable_rank(w) for w in weights]
        expected_weights[f"stable_rank_{name}"] = ranks
        normed = [r / min(w.shape) for r, w in zip(ranks, weights, strict=True)]
        expected_weights[f"stable_rank_{name}_norm"] = normed
    assert set(result.weights) == set(expected_weights)
    for name, values in expected_weights.items():
        assert_close(result.weights[name], values, name)
    for arrays in (result.attn, result.weights, result.maps, result.svd, result.sem_scores):
        assert all(a.dtype == np.float32 for a in arrays.values())


@pytest.mark.parametrize("rope", [True, False])
@pytest.mark.parametrize("null", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_every_metric_equals_brute_force(mode, null, rope, monkeypatch):
    config = small_config(mode, null_attn=null, rope=rope)
    model = peaked_model(config)
    idx = tokens(config, windows=3, length=17)
    matrices = brute_matrices(model, idx)
    # 150 score entries at once: single windows, two query rows at a time
    for chunk in (layer.CHUNK_ENTRIES, 150):
        monkeypatch.setattr(layer, "CHUNK_ENTRIES", chunk)
        result = attention_metrics(model, idx, topk=3, local_window=4, heads="0,2", save_scores=True, window_batch=2)
        compare(model, matrices, result, topk=3, window=4)
        # the comparison means something only where heads differ and are not even
        spread = result.attn["entropy_norm"]
        assert spread.min() < 0.4 and spread.max() > 0.75
        assert not null or result.attn["null_mass"].max() > 0.2


@pytest.mark.parametrize("mode", MODES)
def test_float32_model_with_tied_keys(mode):
    config = small_config(mode, null_attn=True, tie_qk=mode != "gqa", embed_dim=40)
    model = peaked_model(config, dtype=torch.float32)
    idx = tokens(config, windows=2, length=24)
    result = attention_metrics(model, idx, heads="0,2", save_scores=True)
    compare(model, brute_matrices(model, idx), result, topk=8, window=32)


@pytest.mark.parametrize("mode", MODES)
def test_float32_pass_agrees_with_the_same_weights_in_float64(mode):
    config = small_config(mode, null_attn=True)
    model = peaked_model(config, dtype=torch.float32)
    idx = tokens(config, windows=2, length=16)
    result = attention_metrics(model, idx, heads="0,2")
    exact = model.double()
    compare(exact, brute_matrices(exact, idx), result, topk=8, window=32, scores=False)


@pytest.mark.parametrize("null", [True, False])
@pytest.mark.parametrize(("topk", "window"), [(1, 0), (12, 11), (13, 12), (14, 50)])
def test_extreme_windows_and_counts(topk, window, null):
    config = small_config("decoupled", null_attn=null)
    model = peaked_model(config, seed=3)
    idx = tokens(config, windows=2, length=12)
    result = attention_metrics(
        model, idx, topk=topk, local_window=window, heads=[2, 0, -2], layers=[0, 2], save_scores=True
    )
    compare(model, brute_matrices(model, idx), result, topk, window)
    if topk >= 13:
        np.testing.assert_allclose(result.attn["topk_mass"], 1, atol=1e-6)
    if window >= 11:
        np.testing.assert_allclose(result.attn["local_mass"], 1 - result.attn["null_mass"], atol=1e-6)


@pytest.mark.parametrize("null", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_windows_of_one_token(mode, null):
    config = small_config(mode, null_attn=null)
    model = peaked_model(config)
    idx = tokens(config, windows=3, length=1)
    result = attention_metrics(model, idx, heads="0,2", save_scores=True)
    compare(model, brute_matrices(model, idx), result, topk=8, window=32)
    assert "prev_mass" not in result.attn
    assert null or (result.attn["entropy_norm"] == 0).all()
    assert all(np.isfinite(value) for value in result.scalars().values())


def test_one_head_has_no_redundancy():
    config = small_config("standard", n_head=1)
    result = attention_metrics(peaked_model(config), tokens(config, 2, 9))
    assert "redundancy" not in result.weights
    assert "attn_redundancy_mean" not in result.scalars()
    assert (result.attn["null_mass"] == 0).all()


@pytest.mark.parametrize("null", [True, False])
def test_even_attention_has_the_uniform_entropy(null):
    config = small_config("standard", null_attn=null)
    model = peaked_model(config)
    with torch.no_grad():
        for attention in attentions(model):
            attention.query_key_weights()["q"].zero_()
    entropy = attention_metrics(model, tokens(config, 2, 20)).attn["entropy"]
    np.testing.assert_allclose(entropy, uniform_entropy(20, null), rtol=1e-6)
    by_hand = np.mean([np.log(q + 1 + null) for q in range(20)])
    assert uniform_entropy(20, null) == pytest.approx(by_hand, rel=1e-12)
    assert uniform_entropy(1, False) == 0
    with pytest.raises(ValueError, match="at least one token"):
        uniform_entropy(0, null)
