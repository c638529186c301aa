"""What a run leaves behind, in every attention mode: events, metrics, checkpoints, summary, picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import bottleneck_core as bc
from bottleneck_core.memory import count_parameters
from bottleneck_core.store.analysis import AnalysisFile
from bottleneck_core.train.checkpoint import read_checkpoint

from .runs import VARIANTS, events, flags, train, write_tokens


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokens(tmp_path_factory.mktemp("data") / "tokens.npy")


@pytest.fixture(scope="module", params=VARIANTS)
def run(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / request.param
    scores = ["--analysis-save-scores"] if request.param == "decoupled" else []
    train([*flags(data, out, request.param), "--analysis-layers", "0,-1", "--analysis-heads", "0,3", *scores])
    return out


def test_all_files_are_there(run: Path) -> None:
    names = {
        "config.json",
        "manifest.json",
        "run.lock",
        "train.jsonl",
        "analysis.h5",
        "analysis.png",
        "summary.md",
    }
    assert names | {"last.pt", "best.pt"} <= {path.name for path in run.iterdir()}
    assert not [path.name for path in run.iterdir() if ".tmp" in path.name]
    assert (run / "analysis.png").read_bytes().startswith(b"\x89PNG")


def test_events_are_complete_and_strict(run: Path) -> None:
    everything = events(run)
    assert [event["type"] for event in everything[:2]] == ["meta", "mem"]
    assert everything[-1]["type"] == "done" and everything[-1]["reason"] == "completed"
    assert [event["step"] for event in events(run, "train")] == list(range(12))
    assert [event["step"] for event in events(run, "eval")] == [0, 4, 8, 12]
    assert [event["step"] for event in events(run, "analysis")] == [0, 6, 12]
    assert not [event for event in everything if "error" in event or "nonfinite" in event]
    decoupled = run.name == "decoupled"
    for event in events(run, "train"):
        assert math.isclose(event["ppl"], math.exp(event["loss"]))
        assert event["tokens"] == (event["step"] + 1) * 4 * 32
        groups = [event[f"grad_norm_{name}"] for name in ("embed", "attn", "ffn")]
        assert math.isclose(math.hypot(*groups), event["grad_clip_total_norm"], rel_tol=1e-5)
        assert (event["grad_norm_attn_sem"] > 0) == (event["grad_norm_attn_geo"] > 0) == decoupled
    for event in events(run, "analysis"):
        assert ("sem_energy_ratio_mean" in event) == decoupled
        assert (event["attn_null_mass_mean"] > 0) == (run.name != "standard")
        for key in ("entropy", "topk_mass", "local_mass", "erank"):
            assert event[f"attn_{key}_mean"] > 0


def test_first_loss_is_that_of_a_uniform_guess_and_training_learns(run: Path) -> None:
    losses = [event["val_loss"] for event in events(run, "eval")]
    assert losses[0] == pytest.approx(math.log(64), abs=0.15)
    assert losses[-1] < losses[0] - 0.3


def test_analysis_file_agrees_with_the_events(run: Path) -> None:
    file = AnalysisFile.open(run / "analysis.h5")
    assert file.steps.tolist() == [0, 6, 12]
    assert file.maps() == [(0, 0), (0, 3), (1, 0), (1, 3)]
    for index, event in enumerate(events(run, "analysis")):
        for metric in ("entropy", "topk_mass", "local_mass", "null_mass", "sink_mass", "distance"):
            assert file.attn(metric)[index].mean() == pytest.approx(event[f"attn_{metric}_mean"], rel=1e-5)
    rows = file.map(1, 3).sum(axis=-1)
    assert (rows < 1).all() if run.name != "standard" else np.allclose(rows, 1, atol=2e-3)


def test_best_checkpoint_gives_the_best_loss_again(run: Path) -> None:
    best = min(events(run, "eval"), key=lambda event: event["val_loss"])
    checkpoint = bc.load_checkpoint(run)
    assert (checkpoint.step, checkpoint.training) == (best["step"], None)
    model = bc.build_model(checkpoint.config)
    model.load_state_dict(checkpoint.model)
    config = checkpoint.config
    assert config.data is not None
    tokens = np.load(config.data)
    assert sum(p.numel() for p in model.parameters()) == count_parameters(config, 64)

    from bottleneck_core.data.batches import Batches

    batches = Batches(tokens, block_size=32, val_frac=0.1, batch_size=4, grad_accum=1, seed=config.seed, eval_iters=2)
    with torch.no_grad():
        model.eval()
        losses = [model(x, y).item() for x, y in batches.eval_batches("val")]
    assert np.mean(losses) == pytest.approx(best["val_loss"], abs=1e-6)


def test_readers_see_the_run(run: Path) -> None:
    read = bc.load_run(run)
    assert (read.status, read.errors) == ("done", [])
    assert read.attn_mode == run.name
    assert read.best_val_loss == min(event["val_loss"] for event in events(run, "eval"))
    assert read.n_params == count_parameters(read.config, 64)
    assert read.kv_bytes_128k == bc.kv_memory(read, 128_000).bytes
    assert read.attention("entropy").shape == (3, 2, 4)
    assert read.config == json.loads((run / "config.json").read_text())
    assert bc.load_runs(run.parent)[0].id == run.name


def test_summary_has_the_results(run: Path) -> None:
    text = (run / "summary.md").read_text(encoding="utf-8")
    best = min(event["val_loss"] for event in events(run, "eval"))
    assert f"- Last step: `12`\n- Best val loss: `{best:.6f}` (ppl `{math.exp(best):.2f}`)" in text
    assert f'"attn_mode": "{run.name}"' in text


def test_last_checkpoint_loads_with_weights_only(run: Path) -> None:
    checkpoint = read_checkpoint(run / "last.pt")
    assert checkpoint.training is not None
    assert checkpoint.training.keys() >= {"optimizer", "random", "data", "observed", "best", "threads"}


@pytest.mark.parametrize("level", ["off", "basic", "medium"])
def test_instrument_levels(level: str, data: Path, tmp_path: Path) -> None:
    out = tmp_path / level
    train(flags(data, out, instrument=level))
    written = {path.name for path in out.iterdir()}
    assert {"last.pt", "best.pt", "config.json", "manifest.json"} <= written
    assert ("analysis.h5" in written) is False
    assert ({"train.jsonl", "summary.md", "analysis.png"} <= written) == (level != "off")
    assert bc.load_run(out).status == "done"
    if level != "off":
        assert "attn_entropy_mean" in events(out, "analysis")[0]
        assert "attn_erank_mean" not in events(out, "analysis")[0]
    else:
        assert "train.jsonl" not in written
