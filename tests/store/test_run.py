"""Run objects: settings, curves, errors, refreshing; foreign and broken folders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from foreign_folders import ARGS, MODEL, one_based, summary_text, write_lines, zero_based

from bottleneck_core.errors import UserError
from bottleneck_core.store.events import EventWriter
from bottleneck_core.store.foreign import normalised_config
from bottleneck_core.store.lock import RunLock
from bottleneck_core.store.manifest import write_end
from bottleneck_core.store.run import load_run, load_runs

CONFIG = {
    "size": "nano",
    "exp": "paper_gqa",
    "attn_mode": "gqa",
    "n_layer": 2,
    "block_size": 64,
    "batch_size": 4,
    "grad_accum": 2,
    "vocab_size": None,
    "instrument": "basic",
    "steps": 3,
}


def our_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "manifest.json").write_text(
        json.dumps({"argv": ["train", "--size", "nano"], "n_params": 1234, "created": "2026-01-01T00:00:00+00:00"})
    )
    (folder / "summary.md").write_text(summary_text(None))
    with EventWriter(folder / "train.jsonl") as writer:
        writer.write("meta", 0, args={}, config={})
        writer.write("mem", 0, kv_ctx_bytes=10, kv_128k_bytes=20, vocab_size=256)
        for step, loss in enumerate((4.0, 3.0, 3.5)):
            writer.write("eval", step, train_loss=loss, val_loss=loss)
            writer.write("train", step, loss=loss, ppl=math.exp(loss), tokens=512 * (step + 1), tok_s=100.0)
        writer.write("eval", 3, train_loss=3.2, val_loss=3.2)
        writer.write("done", 3, reason="completed")
    return folder


def test_a_run_of_ours(tmp_path: Path) -> None:
    run = load_run(our_run(tmp_path / "nano_gqa"))
    assert (run.id, run.path, run.status) == ("nano_gqa", tmp_path / "nano_gqa", "done")
    assert run.config == CONFIG
    assert run.model == {"attn_mode": "gqa", "n_layer": 2, "block_size": 64, "vocab_size": 256}
    assert (run.attn_mode, run.size, run.exp) == ("gqa", "nano", "paper_gqa")
    assert (run.best_val_loss, run.best_val_step, run.last_step) == (3.0, 1, 3)
    assert (run.n_params, run.kv_bytes_128k) == (1234, 20)
    assert run.mem == {"kv_ctx_bytes": 10, "kv_128k_bytes": 20, "vocab_size": 256}
    assert run.argv == ["train", "--size", "nano"]
    assert run.created == "2026-01-01T00:00:00+00:00"
    assert run.errors == []
    assert run.train["step"].tolist() == [0, 1, 2]
    assert run.train["tokens"].tolist() == [512, 1024, 1536]
    assert run.eval["tokens"].tolist() == [0, 512, 1024, 1536]
    assert run.eval["val_ppl"].tolist() == pytest.approx(np.exp([4.0, 3.0, 3.5, 3.2]))
    assert (np.diff(run.train["time_s"]) >= 0).all()
    assert np.isnan(run.train["mfu"].to_numpy()).all()
    assert len(run.analysis) == 0
    assert repr(run) == "Run('nano_gqa', gqa, done, step 3)"


def test_the_oldest_foreign_format(tmp_path: Path) -> None:
    run = load_run(zero_based(tmp_path / "old"))
    assert run.status == "done"
    assert (run.best_val_loss, run.best_val_step, run.last_step) == (2.5, 30, 40)
    assert run.model == MODEL
    assert run.config["tie_qk"] is False
    assert (run.size, run.exp, run.n_params, run.kv_bytes_128k) == ("tiny", "paper_bottleneck", None, 24576000)
    assert run.train["tokens"].tolist() == [256.0 * (step + 1) for step in (0, 10, 20, 30)]
    assert run.eval["tokens"].tolist() == [256.0 * step for step in (0, 10, 20, 30, 40)]
    assert run.train["time_s"].tolist() == [1, 11, 21, 31]
    assert run.eval["val_ppl"].tolist()[4] == pytest.approx(math.exp(3 + 1e-8))
    assert run.errors == [
        "train.jsonl: 5 of 5 analysis events are errors; the first: shape is invalid",
        "analysis.h5 is missing",
    ]


def test_the_later_foreign_format(tmp_path: Path) -> None:
    run = load_run(one_based(tmp_path / "later"))
    assert run.status == "lost"
    assert (run.best_val_loss, run.best_val_step, run.last_step) == (5.0, 0, 20)
    assert run.train["step"].tolist() == [1, 10, 20]
    assert run.train["tokens"].tolist() == [128, 1280, 1280 + 10 * 32 * 8]
    assert run.eval["tokens"].tolist() == [0, 3840]
    assert run.train["step_ms"].tolist() == [7.0] * 3
    assert run.train["global_batch"].tolist() == [8.0] * 3
    assert run.train["ppl"].tolist() == pytest.approx([math.exp(5)] * 3)
    assert run.errors == [
        "train.jsonl lines 3 to 5 (3 times): grad_clip_norm is Infinity, read as missing",
        "train.jsonl line 6: val_loss is NaN, read as missing",
    ]
    assert run.created == "2025-12-16T14:00:00.000+01:00"


def test_a_summary_that_contradicts_the_events_is_named(tmp_path: Path) -> None:
    folder = zero_based(tmp_path / "old")
    (folder / "summary.md").write_text(summary_text((40, 2.0)))
    run = load_run(folder)
    assert run.best_val_loss == 2.0
    assert "summary.md says best validation loss 2.000000, the events say 2.500000" in run.errors


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"no_rope": False, "rope": False}, {"rope": True}),
        ({"no_rope": True, "rope": False}, {"rope": False}),
        ({"tie_qk": True, "no_tie_qk": False}, {"tie_qk": True}),
        ({"tie_qk": True, "no_tie_qk": True}, {"tie_qk": False}),
        ({"no_learned_temp": True}, {"learned_temp": False}),
        ({"layers": 3, "block": 5, "mode": "train"}, {"n_layer": 3, "block_size": 5}),
        ({"no_selfopt": False, "unknown": [1]}, {"no_selfopt": False, "unknown": [1]}),
    ],
)
def test_foreign_settings_under_our_names(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert normalised_config(given) == expected


def test_a_foreign_model_config_wins_over_arguments(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", [{"type": "meta", "step": 0, "args": ARGS, "config": MODEL | {"n_layer": 7}}])
    assert load_run(tmp_path).config["n_layer"] == 7
    (tmp_path / "summary.md").write_text(summary_text(None))
    assert load_run(tmp_path).config["n_layer"] == 2
    assert load_run(tmp_path).config["rope"] is True


def only_events(folder: Path) -> None:
    (zero_based(folder) / "summary.md").unlink()


def only_summary(folder: Path) -> None:
    (zero_based(folder) / "train.jsonl").unlink()


def empty_events(folder: Path) -> None:
    (zero_based(folder) / "train.jsonl").write_bytes(b"")


def garbage_everywhere(folder: Path) -> None:
    folder.mkdir()
    noise = np.random.default_rng(0).bytes(20_000)
    for name in ("train.jsonl", "summary.md", "config.json", "manifest.json", "analysis.h5", "job.json"):
        (folder / name).write_bytes(noise)


def half_config(folder: Path) -> None:
    our_run(folder)
    content = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(content[: len(content) // 2])


def half_analysis(folder: Path) -> None:
    zero_based(folder)
    with h5py.File(folder / "analysis.h5", "w") as file:
        file["steps"] = np.arange(1000)
    content = (folder / "analysis.h5").read_bytes()
    (folder / "analysis.h5").write_bytes(content[: len(content) // 2])


def values_of_wrong_kinds(folder: Path) -> None:
    folder.mkdir()
    write_lines(
        folder / "train.jsonl",
        [
            {"type": "meta", "step": "x", "args": [1], "config": "y", "argv": {}},
            {"type": "mem", "step": 0, "kv_128k_bytes": "many"},
            {"type": "train", "step": 0, "loss": "bad", "seq_len": [1], "global_batch": 2, "tokens": "t"},
            {"type": "train", "step": 1, "loss": 2.0, "wall_time": 5},
            {"type": "eval", "step": 1, "val_loss": {"a": 1}, "wall_time": True},
            {"type": "done", "step": 1, "reason": [1]},
        ],
    )
    (folder / "summary.md").write_text("- Command: `a 'b`\n")


BROKEN = {
    only_events: "summary.md is missing",
    only_summary: "train.jsonl is missing",
    empty_events: "train.jsonl is empty",
    garbage_everywhere: "manifest.json is not valid JSON, ignored",
    half_config: "config.json is not valid JSON, ignored",
    half_analysis: "analysis.h5 cannot be opened: ",
    values_of_wrong_kinds: "",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_damaged_folders_are_read_as_far_as_they_go(tmp_path: Path, damage: Any) -> None:
    damage(tmp_path / "run")
    (run,) = load_runs(tmp_path)
    assert any(error.startswith(BROKEN[damage]) for error in run.errors) or not BROKEN[damage]
    for name in dir(type(run)):  # nothing raises but what needs analysis.h5
        if not name.startswith("_") and isinstance(getattr(type(run), name), property) and name != "analysis_file":
            getattr(run, name)
    with pytest.raises(UserError):
        run.attention("entropy")


def test_damaged_folders_still_give_what_is_left(tmp_path: Path) -> None:
    only_summary(tmp_path / "a")
    run = load_run(tmp_path / "a")
    assert (run.best_val_loss, run.last_step, run.attn_mode, run.status) == (2.5, 40, "bottleneck", "done")
    assert run.argv == ["train.py", "--size", "tiny"]
    half_config(tmp_path / "b")
    assert load_run(tmp_path / "b").best_val_loss == 3.0
    values_of_wrong_kinds(tmp_path / "c")
    assert load_run(tmp_path / "c").train["loss"].tolist()[1] == 2.0


def test_analysis_of_the_oldest_format(tmp_path: Path) -> None:
    folder = zero_based(tmp_path / "old")
    with h5py.File(folder / "analysis.h5", "w") as file:
        for step in (0, 10):
            attention = np.tril(np.full((4, 4), 0.25, np.float16))
            file[f"analysis/step_{step}/attn/L0/H1"] = attention
            file[f"analysis/step_{step}"].attrs["step"] = step
    run = load_run(folder)
    assert "analysis.h5 is missing" not in run.errors
    assert run.attention_steps.tolist() == [0, 10]
    assert run.attention_map(0, 1).shape == (4, 4)
    with pytest.raises(UserError, match=r"analysis\.h5"):
        run.attention("no such metric")
    (folder / "analysis.h5").write_bytes(b"replaced")
    assert run.refresh()
    assert run.attention_steps.tolist() == []


def test_refresh_follows_a_run_in_training(tmp_path: Path) -> None:
    folder = our_run(tmp_path / "live")
    (folder / "train.jsonl").unlink()
    (folder / "summary.md").unlink()
    with RunLock(folder), EventWriter(folder / "train.jsonl") as writer:
        run = load_run(folder)
        assert (run.status, len(run.train), run.errors) == ("running", 0, [])
        writer.write("train", 0, loss=1.0)
        assert len(run.train) == 0  # as of the last refresh
        assert run.refresh()
        assert not run.refresh()
        assert run.train["loss"].tolist() == [1.0]
        before = run.train
        writer.write("train", 1, loss=0.5, late=1.0)
        writer.write("eval", 2, val_loss=0.5)
        assert run.refresh()
        assert run.train["loss"].tolist() == [1.0, 0.5]
        assert before["loss"].tolist() == [1.0]
        assert run.best_val_loss == 0.5
    assert run.refresh()
    assert run.status == "lost"
    write_end(folder / "manifest.json", reason="sigterm", step=2, exit_code=143)
    assert run.refresh()
    assert run.status == "stopped"
    assert not run.refresh()


def test_settings_that_come_later_are_taken_in(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    run = load_run(tmp_path)
    assert run.config.get("batch_size") is None
    write_lines(tmp_path / "train.jsonl", [{"type": "meta", "step": 0, "args": ARGS}])
    assert run.refresh()
    assert run.config["batch_size"] == 4


def test_runs_that_write_no_events_lack_nothing(tmp_path: Path) -> None:
    folder = our_run(tmp_path / "quiet")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"instrument": "off"}))
    for name in ("train.jsonl", "summary.md"):
        (folder / name).unlink()
    write_end(folder / "manifest.json", reason="completed", step=3, exit_code=0)
    run = load_run(folder)
    assert (run.status, run.last_step, run.errors) == ("done", 3, [])


def test_a_run_that_is_only_being_started_lacks_nothing_yet(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"status": "queued"}')
    assert (load_run(tmp_path).status, load_run(tmp_path).errors) == ("queued", [])


def test_load_runs_sorts_by_id_and_gathers_errors(tmp_path: Path) -> None:
    zero_based(tmp_path / "sweep" / "b")
    our_run(tmp_path / "a")
    one_based(tmp_path / "z")
    runs = load_runs(tmp_path)
    assert [run.id for run in runs] == ["a", "sweep/b", "z"]
    assert runs.errors[0].startswith("sweep/b: train.jsonl: 5 of 5 analysis events")
    assert [run.id for run in load_runs(tmp_path / "a")] == ["a"]
    (tmp_path / "empty").mkdir()
    assert load_runs(tmp_path / "empty") == []


@pytest.mark.parametrize("load", [load_run, load_runs])
def test_a_folder_that_is_not_there_is_one_sentence(tmp_path: Path, load: Any) -> None:
    with pytest.raises(UserError, match=r"absent is no (run )?folder: .*"):
        load(tmp_path / "absent")


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        load_run(tmp_path)
