"""Probes whose values follow from their step, so that any reader can tell whether a row is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bottleneck_core.store.analysis import AnalysisFile, AnalysisWriter

LAYERS, HEADS, T = 3, 4, 16
CHOSEN = [(2, 3), (0, 1)]
ATTN = ["erank", "entropy"]
WEIGHTS = ["stable_rank_q", "redundancy"]


def create(path: Path, **changes: Any) -> AnalysisWriter:
    settings: dict[str, Any] = {
        "n_layer": LAYERS,
        "n_head": HEADS,
        "attn_metrics": ATTN,
        "weight_metrics": WEIGHTS,
        "chosen": CHOSEN,
        "map_size": T,
        "save_scores": True,
        "probe_tokens": np.arange(2 * T).reshape(2, T),
        "attrs": {"config": {"d_model": 128, "name": "größe"}, "analysis_topk": 8, "run": "r1", "tag": None},
    }
    return AnalysisWriter.create(path, **(settings | changes))


def row(step: int) -> dict[str, Any]:
    """One probe's values, a function of the step alone; erank of the chosen heads only."""
    rng = np.random.default_rng(step)
    erank = np.full((LAYERS, HEADS), np.nan, dtype=np.float32)
    for layer, head in CHOSEN:
        erank[layer, head] = rng.random()
    return {
        "attn": {"entropy": rng.random((LAYERS, HEADS), dtype=np.float32), "erank": erank},
        "weights": {name: rng.random(LAYERS, dtype=np.float32) for name in WEIGHTS},
        "maps": {head: rng.random((T, T)).astype(np.float16) for head in CHOSEN},
        "svd": {head: rng.random(T, dtype=np.float32) for head in CHOSEN},
        "scores": {
            part: {head: rng.normal(size=(T, T)).astype(np.float16) for head in CHOSEN} for part in ("sem", "geo")
        },
    }


def assert_holds(path: Path, steps: list[int]) -> None:
    """The file shows these steps and, bit for bit, the values of `row` for each."""
    file = AnalysisFile.open(path)
    assert file.steps.tolist() == steps
    with file:
        attn = {metric: file.attn(metric) for metric in ATTN}
        weights = {metric: file.weights(metric) for metric in WEIGHTS}
        svd = {head: file.svd(*head) for head in CHOSEN}
        for values in (*attn.values(), *weights.values(), *svd.values()):
            assert len(values) == len(steps)
        for index, step in enumerate(steps):
            expected = row(step)
            for metric in ATTN:
                np.testing.assert_array_equal(attn[metric][index], expected["attn"][metric])
            for metric in WEIGHTS:
                np.testing.assert_array_equal(weights[metric][index], expected["weights"][metric])
            for head in CHOSEN:
                np.testing.assert_array_equal(file.map(*head, step=index), expected["maps"][head])
                np.testing.assert_array_equal(svd[head][index], expected["svd"][head])
                for part, scores in expected["scores"].items():
                    np.testing.assert_array_equal(file.scores(part, *head, step=index), scores[head])
