"""A thinned analysis file: the same numbers, fewer maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from analysis_rows import create, row

from bottleneck_core.store.analysis import AnalysisError, AnalysisFile
from bottleneck_core.store.thinning import thin_analysis

STEPS = [0, 10, 20, 30, 40]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with create(tmp_path / "analysis.h5") as writer:
        for step in STEPS:
            writer.append(step, **row(step))
    return tmp_path / "analysis.h5"


@pytest.mark.parametrize(("maps", "kept"), [(0, []), (1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_metrics_stay_and_maps_go(path: Path, maps: int, kept: list[int]) -> None:
    thin_analysis(path, path.with_name("thin.h5"), maps=maps)
    whole, thin = AnalysisFile.open(path), AnalysisFile.open(path.with_name("thin.h5"))
    assert whole.map_rows(0, 1) == [0, 1, 2, 3, 4]
    assert thin.map_rows(0, 1) == kept
    assert thin.steps.tolist() == STEPS and thin.attrs == whole.attrs
    for metric in whole.attn_metrics:
        np.testing.assert_array_equal(thin.attn(metric), whole.attn(metric))
        assert thin.definition(metric) == whole.definition(metric)
    for metric in whole.weight_metrics:
        np.testing.assert_array_equal(thin.weights(metric), whole.weights(metric))
    np.testing.assert_array_equal(thin.svd(2, 3), whole.svd(2, 3))
    np.testing.assert_array_equal(thin.probe_tokens, whole.probe_tokens)
    for at in range(len(STEPS)):
        expected = whole.map(0, 1, at) if at in kept else np.full_like(whole.map(0, 1, at), np.nan)
        np.testing.assert_array_equal(thin.map(0, 1, at), expected)
        logits = whole.scores("sem", 0, 1, at)
        np.testing.assert_array_equal(
            thin.scores("sem", 0, 1, at), logits if at in kept else np.full_like(logits, np.nan)
        )


def test_what_cannot_be_thinned_leaves_nothing(path: Path) -> None:
    target = path.with_name("thin.h5")
    with pytest.raises(ValueError, match="maps must be >= 0"):
        thin_analysis(path, target, maps=-1)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(AnalysisError):
        thin_analysis(path, target, maps=1)
    assert not target.exists()
