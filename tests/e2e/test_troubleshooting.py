"""What docs/troubleshooting.md quotes is what the programs say, and the numbers of docs/faq.md are right."""

from __future__ import annotations

import importlib.util
import re
import socket
from pathlib import Path

import pytest
import torch

import bottleneck_core as bc
from bottleneck_core.cli import main
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
FAQ = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
SMALL = "--size nano --exp paper_bottleneck --layers 1 --block 32 --batch-size 2 --eval-iters 1 --device cpu --steps"


def quoted(start: str) -> str:
    """The one bold quotation of the page that begins so, as a pattern: numbers and `...` may be others."""
    joined = re.sub(r"\s+", " ", PAGE)
    (message,) = {text for text in re.findall(r"\*\*`([^`]+)`", joined) if text.startswith(start)}
    return re.sub(r"\d+", r"\\d+", re.escape(message)).replace(re.escape("..."), ".*")


def said(words: str, capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """What a command prints on its way to an exit code."""
    assert main(words.split()) == code
    output = capsys.readouterr()
    return output.out + output.err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a small corpus, `corpus.bin`."""
    monkeypatch.chdir(tmp_path)
    main(f"prepare files {ROOT}/bottleneck_core/config/*.py --out corpus.bin".split())
    return tmp_path


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("--runs", "serve --runs nowhere --no-open"),
        ("--attn-dim", "train --size nano --attn-mode bottleneck --attn-dim 30"),
        ("'tiny' stands", "train tiny"),
        ("... holds no checkpoint", f"sample --run {ROOT / 'runs' / 'tiny_baseline_ref'} --prompt x"),
    ],
)
def test_mistakes(start: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(quoted(start), said(words, capsys))


def test_a_port_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert re.search(quoted("port"), said(f"serve --port {taken.getsockname()[1]} --no-open", capsys))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"train {SMALL} 2 --data corpus.bin".replace("--device cpu", "--device cuda")
    assert re.search(quoted("--device cuda"), said(words, capsys))


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="the package is there")
def test_no_package_for_streaming(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(quoted("streaming fineweb-edu"), said("prepare fineweb-edu --tokens 1k", capsys))


def test_a_run_that_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"train {SMALL} 2 --data corpus.bin"
    said(words, capsys, 0)
    assert re.search(quoted("runs/nano_bottleneck"), said(words, capsys))
    assert re.search(quoted("the run is finished"), said(f"{words} --resume", capsys, 0))
    assert re.search(quoted("--d-ff"), said(f"{words} --resume --d-ff 64", capsys))
    assert re.search(r"step 4/4", said(f"train {SMALL} 4 --data corpus.bin --resume", capsys, 0))


def test_a_loss_that_is_not_finite(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = said(f"train {SMALL} 20 --data corpus.bin --lr 1e30 --grad-clip 0", capsys, 3)
    assert re.search(quoted("loss is not finite"), output) and "exit code 3" in PAGE


def test_sizes_in_the_answers() -> None:
    config = bc.RunConfig.resolve(size="tiny", exp="paper_bottleneck")
    short, fp16 = (bc.kv_memory(config, 100, policy={"kv_cache": kind}) for kind in ("q4_0", "fp16"))
    longer = bc.kv_memory(config, 1_000, policy={"kv_cache": "q4_0"})
    assert short.bytes == 100 * short.slope_bytes_per_token
    words = " ".join(FAQ.split())
    sizes = [memory.slope_bytes_per_token for memory in (short, fp16, longer)]
    assert "gives {:,} B a token instead of {:,}; beyond the window one more token costs {:,} B".format(*sizes) in words
    totals = bc.kv_memory("gemma-3-27b", 131_072).totals
    assert f"the logical total is {totals['logical'] / 2**30:.1f} GiB" in words
    assert f"the conservative one {totals['conservative'] / 2**30:.0f} GiB" in words
    assert f"{100 * (131_072 / 128_000 - 1):.1f} % apart, GB and GiB {100 * (2**30 / 1e9 - 1):.1f} %" in words
