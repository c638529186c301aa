"""The six real folders of earlier systems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bottleneck_core.store.run import Run, RunList, load_runs
from bottleneck_core.store.summary import read_model_config, read_results

# id: status, attn_mode, best loss, its step, last step, KV bytes at 128k, rows of train / eval / analysis
EXPECTED = {
    "1b_train_decoupled_fast": ("lost", "decoupled", 6.990447, 400, 400, None, (5, 2, 0)),
    "m4max_baseline_seed1337": ("done", "standard", 6.296133, 5400, 6000, 4718592000, (601, 31, 60)),
    "m4max_decoupled_48_96_seed1337": ("done", "decoupled", 5.878566, 5000, 6000, 884736000, (601, 31, 60)),
    "tiny_bottleneck": ("done", "bottleneck", 4.334908, 5800, 6000, 294912000, (60, 31, 61)),
    "v27_gqa_100steps": ("done", "gqa", 4.403822, 100, 100, 393216000, (10, 3, 5)),
    "v28_stress_fix": ("lost", "standard", 10.879713, 0, 1, 6291456000, (1, 1, 0)),
}
ERRORS = {
    "1b_train_decoupled_fast": ["analysis.h5 is missing"],
    "m4max_baseline_seed1337": [
        "train.jsonl lines 210 to 244 (2 times): attn_erank_mean is NaN, read as missing",
        "analysis.h5 is missing",
    ],
    "m4max_decoupled_48_96_seed1337": ["analysis.h5 is missing"],
    "tiny_bottleneck": [
        "train.jsonl: 61 of 61 analysis events are errors; the first: "
        "shape '[1, 8, 256, -1]' is invalid for input of size 63360",
        "analysis.h5 is missing",
    ],
    "v27_gqa_100steps": [],
    "v28_stress_fix": ["train.jsonl line 4: grad_clip_norm is Infinity, read as missing"],
}


@pytest.fixture(scope="module")
def runs(shared: Path) -> RunList:
    return load_runs(shared / "foreign_runs")


def named(runs: RunList, run_id: str) -> Run:
    return next(run for run in runs if run.id == run_id)


def test_all_six_are_found(runs: RunList) -> None:
    assert [run.id for run in runs] == list(EXPECTED)


@pytest.mark.parametrize("run_id", EXPECTED)
def test_facts_and_errors(runs: RunList, run_id: str) -> None:
    run = named(runs, run_id)
    status, attn_mode, best, best_step, last_step, kv_bytes, rows = EXPECTED[run_id]
    assert (run.status, run.attn_mode, run.best_val_step, run.last_step) == (status, attn_mode, best_step, last_step)
    assert run.best_val_loss == pytest.approx(best, abs=1e-6)
    assert (run.kv_bytes_128k, run.n_params) == (kv_bytes, None)
    assert (len(run.train), len(run.eval), len(run.analysis)) == rows
    assert run.errors == ERRORS[run_id]


@pytest.mark.parametrize("run_id", EXPECTED)
def test_best_losses_are_those_of_the_results_else_the_least_evaluation(runs: RunList, run_id: str) -> None:
    run = named(runs, run_id)
    recorded = read_results(run.summary_text).best_val_loss
    assert (recorded is None) == (run_id in ("1b_train_decoupled_fast", "v28_stress_fix"))
    assert run.best_val_loss == (run.eval["val_loss"].min() if recorded is None else recorded)


@pytest.mark.parametrize("run_id", EXPECTED)
def test_the_model_is_that_of_the_summary(runs: RunList, run_id: str) -> None:
    run = named(runs, run_id)
    assert run.model == read_model_config(run.summary_text)
    assert run.config["batch_size"] > 0
    assert not {"layers", "block", "no_rope", "no_tie_qk", "mode"} & set(run.config)


def test_tokens_and_time(runs: RunList) -> None:
    tiny = named(runs, "tiny_bottleneck")
    assert tiny.eval["tokens"].iloc[-1] == 6000 * 16 * 1024
    assert tiny.eval["time_s"].iloc[-1] == 6362  # 14:16:39 to 16:02:41
    assert tiny.train["tokens"].iloc[0] == 16 * 1024
    later = named(runs, "m4max_baseline_seed1337")
    assert later.train["step"].tolist()[:3] == [1, 10, 20]
    assert later.train["tokens"].iloc[-1] == 6000 * 16 * 256  # the block caps the schedule of lengths
    per_second = later.train["tok_s"].iloc[-1] * later.train["step_ms"].iloc[-1] / 1000
    assert per_second == pytest.approx(16 * 256, rel=1e-3)


def test_attention_of_the_one_that_has_it(runs: RunList) -> None:
    run = named(runs, "v27_gqa_100steps")
    assert run.attention_steps.tolist() == [0, 25, 50, 75, 100]
    weights = run.attention_map(0, 0)
    assert weights.shape == (256, 256)
    assert np.allclose(weights.astype(float).sum(axis=1), 1, atol=0.01)
