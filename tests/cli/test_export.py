"""`export`: a run folder to give away."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import bottleneck_core as bc
from bottleneck_core.cli import main


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A nano run of four steps."""
    corpus = tmp_path / "ids.txt"
    corpus.write_text(" ".join(map(str, b"The cache is small. It holds keys and values.\n" * 200)))
    words = ["train", "--size", "nano", "--exp", "paper_bottleneck", "--steps", "4", "--batch-size", "2", "--block=64"]
    words += ["--eval-iters", "1", "--analysis-every", "1", "--tokenizer", "byte", "--data-format", "text"]
    words += ["--data", str(corpus), "--out-dir", str(tmp_path / "runs" / "short")]
    assert main(words) == 0
    (tmp_path / "runs" / "short" / "console.log").write_text("a log")
    return tmp_path / "runs" / "short"


def test_the_copy_is_a_run_without_checkpoints(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shared" / "short"
    assert main(["export", str(run), "--out", str(out), "--maps", "2"]) == 0
    names = {path.name for path in out.iterdir()}
    assert names == {"config.json", "manifest.json", "train.jsonl", "summary.md", "analysis.png", "analysis.h5"}
    assert "6 files" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["short"]
    copy, whole = bc.load_run(out), bc.load_run(run)
    assert copy.errors == [] and copy.status == "done"
    assert copy.train.equals(whole.train)
    assert len(copy.attention_steps) == 5 and len(copy.analysis_file.map_rows(0, 0)) == 2


def test_weights_come_along_in_bf16(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "light"
    assert main(["export", str(run), "--out", str(out), "--weights", "bf16"]) == 0
    whole, light = bc.load_checkpoint(run), bc.load_checkpoint(out)
    assert light.step == whole.step and light.config == whole.config and light.training is None
    assert (out / "best.pt").stat().st_size < 0.55 * (run / "best.pt").stat().st_size
    for name, value in whole.model.items():
        torch.testing.assert_close(light.model[name].float(), value.float(), rtol=2**-8, atol=0)
    model = bc.build_model(light.config)
    model.load_state_dict(light.model)
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]]))).all()


def test_mistakes_leave_nothing(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").mkdir()
    new = str(tmp_path / "new")
    (run / "analysis.h5").write_bytes(b"no HDF5")
    for words, sentence in (
        ([], "a run and --out are needed"),
        ([str(run), "--out", str(tmp_path / "taken")], "taken exists"),
        ([str(tmp_path), "--out", new], "is no run folder"),
        ([str(run), "--out", new, "--maps", "-1"], "--maps must be >= 0"),
        ([str(run), "--out", new], "repair or remove the file"),
    ):
        assert main(["export", *words]) == 2
        assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("*new*"))
