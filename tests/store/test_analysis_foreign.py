"""Analysis files of the seed's family: what their maps determine is shown, and nothing else."""

from __future__ import annotations

import json
import math
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from bottleneck_core.store.analysis import AnalysisError, AnalysisFile, AnalysisWriter
from bottleneck_core.store.metrics import METRICS

T = 24
STEPS = (0, 5, 40, 100)  # "step_100" sorts before "step_40" as text
HEADS = ((0, 1), (3, 0))


def attention(seed: int, null_share: float = 0.0) -> npt.NDArray[np.float64]:
    """A causal map; with `null_share`, that part of each row's weight went to a null key that is not in it."""
    rng = np.random.default_rng(seed)
    logits = np.where(np.tri(T, dtype=bool), rng.normal(size=(T, T)) * 2, -np.inf)
    weights = np.exp(logits)
    return (1 - null_share) * weights / weights.sum(axis=1, keepdims=True)


def write_foreign(path: Path, null_share: float = 0.0) -> dict[tuple[int, tuple[int, int]], npt.NDArray]:
    """A file in their layout; the second head misses at the second step. Returns the stored maps."""
    stored = {}
    with h5py.File(path, "w") as file:
        for index, step in enumerate(STEPS):
            group = file.create_group(f"analysis/step_{step}")
            group.attrs["step"] = step
            for head in HEADS:
                if index == 1 and head == HEADS[1]:
                    continue
                name = f"L{head[0]}/H{head[1]}"
                weights = attention(7 * index + head[0], null_share).astype(np.float16)
                stored[index, head] = weights.astype(np.float64)
                group.create_dataset(f"attn/{name}", data=weights, compression="gzip")
                values = np.linalg.svd(stored[index, head], compute_uv=False)
                group.create_dataset(f"svd/{name}", data=values.astype(np.float32))
    return stored


def by_hand(weights: npt.NDArray) -> dict[str, float]:
    """The definitions of METRICS, one query and one key at a time."""
    sums = dict.fromkeys(("entropy", "entropy_norm", "sink_mass", "prev_mass", "distance"), 0.0)
    for q in range(T):
        entropy = -sum(weights[q, k] * math.log(weights[q, k]) for k in range(q + 1) if weights[q, k] > 0)
        sums["entropy"] += entropy / T
        sums["entropy_norm"] += entropy / math.log(q + 1) / T if q else 0.0
        sums["sink_mass"] += weights[q, 0] / T
        sums["prev_mass"] += weights[q, q - 1] / (T - 1) if q else 0.0
        sums["distance"] += sum(weights[q, k] * (q - k) for k in range(q + 1)) / T
    values = np.linalg.svd(weights, compute_uv=False)
    shares = [value / values.sum() for value in values]
    return sums | {"erank": math.exp(-sum(share * math.log(share) for share in shares if share > 0))}


def test_metrics_are_computed_from_the_maps(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    stored = write_foreign(path)
    file = AnalysisFile.open(path)
    assert file.steps.tolist() == list(STEPS)
    assert set(file.attn_metrics) == set(by_hand(attention(0)))
    assert file.maps() == list(HEADS)
    assert file.weight_metrics == [] and file.score_parts == [] and file.probe_tokens is None
    for metric in file.attn_metrics:
        values = file.attn(metric)
        assert values.shape == (len(STEPS), 4, 2) and values.dtype == np.float32
        known = np.zeros(values.shape, dtype=bool)
        for (index, (layer, head)), weights in stored.items():
            known[index, layer, head] = True
            assert values[index, layer, head] == pytest.approx(by_hand(weights)[metric], rel=1e-5), metric
        assert np.isnan(values[~known]).all()
        assert file.definition(metric).startswith(METRICS[metric].definition)
        assert "Computed here" in file.definition(metric)


def test_maps_and_singular_values(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    stored = write_foreign(path)
    file = AnalysisFile.open(path)
    np.testing.assert_array_equal(file.map(0, 1, step=2), stored[2, (0, 1)])
    np.testing.assert_array_equal(file.map(3, 0), stored[3, (3, 0)])
    missing = file.map(3, 0, step=1)
    assert missing.shape == (T, T) and np.isnan(missing).all()
    values = file.svd(3, 0)
    assert values.shape == (len(STEPS), T) and np.isnan(values[1]).all()
    np.testing.assert_allclose(values[0], np.linalg.svd(stored[0, (3, 0)], compute_uv=False), atol=1e-6)
    np.testing.assert_array_equal(file.svd_at(3, 0, [-1, 0]), values[[-1, 0]])
    assert file.heads_with_svd() == sorted({head for _, head in stored})
    for question in (
        lambda: file.map(0, 0),
        lambda: file.svd(1, 1),
        lambda: file.svd_at(1, 1, [0]),
        lambda: file.map(0, 1, step=4),
    ):
        with pytest.raises(AnalysisError, match=r"analysis\.h5: "):
            question()


def test_no_entropy_without_the_null_column(tmp_path: Path) -> None:
    """Where weight went to a null key that was not stored, entropy is unknown; the masses are not renormalised."""
    path = tmp_path / "analysis.h5"
    stored = write_foreign(path, null_share=0.25)
    file = AnalysisFile.open(path)
    assert set(file.attn_metrics) == {"sink_mass", "prev_mass", "distance", "erank"}
    for question in (lambda: file.attn("entropy"), lambda: file.definition("entropy_norm")):
        with pytest.raises(AnalysisError, match="entropy"):
            question()
    assert file.attn("sink_mass")[0, 0, 1] == pytest.approx(by_hand(stored[0, (0, 1)])["sink_mass"], rel=1e-5)


def test_a_map_that_is_none_is_nan(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    write_foreign(path)
    with h5py.File(path, "r+") as file:
        acausal = attention(1).astype(np.float16)
        acausal[3, 4] = 0.1
        file["analysis/step_40/attn/L0/H1"][...] = acausal  # type: ignore[index]
    entropy = AnalysisFile.open(path).attn("entropy")
    assert np.isnan(entropy[2, 0, 1]) and np.isfinite(entropy[3, 0, 1])


def test_a_foreign_file_is_never_continued(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    write_foreign(path)
    before = path.read_bytes()
    with pytest.raises(AnalysisError, match="was not written by this program"):
        AnalysisWriter.resume(path, keep_through_step=100)
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_reader_does_not_keep_its_writer_out(tmp_path: Path) -> None:
    """A foreign program opens its file for writing anew at each probe: no reader may hold a lock on it."""
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "analysis.h5"
    write_foreign(path)
    with AnalysisFile.open(path), open(path, "rb+") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises BlockingIOError where the reader has a lock


def test_the_real_one(shared: Path) -> None:
    folder = shared / "foreign_runs" / "v27_gqa_100steps"
    file = AnalysisFile.open(folder / "analysis.h5")
    lines = (folder / "train.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["type"] == "analysis"]
    assert file.steps.tolist() == [event["step"] for event in events] == [0, 25, 50, 75, 100]
    assert file.maps() == [(0, 0), (5, 0)] and file.map(5, 0).shape == (256, 256)
    # its effective rank is of the same heads; its entropy is over all heads, which are alike before training only
    for metric, key, count, tolerance in (
        ("erank", "attn_erank_mean", 5, 1e-4),
        ("entropy", "attn_entropy_mean", 1, 1e-3),
    ):
        means = np.nanmean(file.attn(metric), axis=(1, 2))[:count]
        np.testing.assert_allclose(means, [event[key] for event in events][:count], rtol=tolerance)
