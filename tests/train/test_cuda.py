"""Training on a GPU in the four modes: bf16 and compiled as `--speed auto` chooses; resumption; close to float32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bottleneck_core.train.checkpoint import read_checkpoint

from .runs import VARIANTS, events, flags, train, write_tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_bf16_compiled_run_follows_float32(variant: str, tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    train(flags(data, tmp_path / "fast", variant, device="cuda"))
    train([*flags(data, tmp_path / "plain", variant, device="cuda"), "--speed", "off"])
    runtime = json.loads((tmp_path / "fast" / "manifest.json").read_text())["runtime"]
    assert (runtime["amp"], runtime["compile"]) == ("bfloat16", "default")
    fast, plain = ([event["val_loss"] for event in events(tmp_path / name, "eval")] for name in ("fast", "plain"))
    assert fast == pytest.approx(plain, abs=0.05)
    assert not any("_orig_mod" in name for name in read_checkpoint(tmp_path / "fast" / "last.pt").model)


def test_resume_on_the_gpu_goes_on(tmp_path: Path) -> None:
    data = write_tokens(tmp_path / "tokens.npy")
    out = tmp_path / "run"
    train([*flags(data, out, steps=6, device="cuda"), "--speed", "off"])
    train(["--resume", str(out), "--steps", "12", "--device", "cuda", "--speed", "off"])
    whole = tmp_path / "whole"
    train([*flags(data, whole, steps=12, device="cuda"), "--speed", "off"])
    ours, theirs = ([event["loss"] for event in events(folder, "train")] for folder in (out, whole))
    assert ours == pytest.approx(theirs, rel=1e-4)
