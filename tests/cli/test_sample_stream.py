"""`sample --json-lines`: the protocol that the dashboard reads, on a checkpoint with random weights."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bottleneck_core.cli import main
from bottleneck_core.config import RunConfig
from bottleneck_core.model import build_model
from bottleneck_core.store.samples import read_samples
from bottleneck_core.train.checkpoint import save_checkpoint

Q4 = "q4_0,residual=0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    torch.manual_seed(0)
    config = RunConfig.resolve(
        exp="paper_bottleneck",
        layers=2,
        d_model=32,
        attn_dim=8,
        n_head=2,
        d_ff=32,
        embed_dim=32,
        block=32,
        tokenizer="byte",
    ).with_vocab(256)
    save_checkpoint(folder / "best.pt", config, build_model(config).state_dict(), step=7)
    (folder / "train.jsonl").write_text('{"type": "meta", "step": 0}\n')
    return folder


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no strict JSON")


def stream(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    code = main(["sample", *words, "--json-lines"])
    said = capsys.readouterr()
    assert code == 0 and said.err == "", said.err
    return [json.loads(line, parse_constant=refuse) for line in said.out.splitlines()]


def test_a_start_then_tokens_in_turn_then_ends(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--run", str(run), "--prompt", "caf\u00e9", "--max-new-tokens", "4", "--seed", "3", "--no-save")
    start, *rest = stream(capsys, *words, "--policies", f"fp16; {Q4}", "--temperature", "0.7", "--top-k", "50")
    assert start == {
        "type": "start",
        "checkpoint": "best.pt",
        "step": 7,
        "device": start["device"],
        "seed": 3,
        "sampling": {"temperature": 0.7, "top_k": 50, "top_p": 1.0},
        "max_new_tokens": 4,
        "policies": ["fp16", Q4],
        "prompt": "caf\u00e9",
        "prompt_tokens": [99, 97, 102, 0xC3, 0xA9],
    }
    kinds = [(event["type"], event["column"]) for event in rest]
    assert kinds == [("token", 0), ("token", 1)] * 3 + [("token", 0), ("end", 0), ("token", 1), ("end", 1)]
    token, end = rest[0], rest[-1]
    assert set(token) == {
        *("type", "column", "index", "token", "text", "probability", "rank", "top"),
        *("kl", "delta_log_prob", "agrees", "seconds", "cache_bytes"),
    }
    assert len(token["top"]) == 5 and set(token["top"][0]) == {"token", "text", "probability"}
    assert set(end) == {
        *("type", "column", "reason", "tokens", "prompt_seconds", "seconds", "tok_s"),
        *("cache_tokens", "cache_bytes", "rest"),
    }
    assert (end["reason"], end["tokens"], end["cache_tokens"]) == ("length", 4, 8)


def test_the_text_is_that_of_sample(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Random weights draw bytes that are no text: the pieces still join to what the tokens decode to."""
    words = ("--run", str(run), "--prompt", "x", "--max-new-tokens", "30", "--no-save")
    start, *rest = stream(capsys, *words, "--policies", f"{Q4};fp16")
    for column, flags in enumerate((("--kv-cache", "q4_0", "--kv-residual", "0"), ())):
        assert main(["sample", *words, *flags, "--json"]) == 0
        alone = json.loads(capsys.readouterr().out)
        tokens = [event for event in rest if event["type"] == "token" and event["column"] == column]
        (end,) = (event for event in rest if event["type"] == "end" and event["column"] == column)
        assert [event["token"] for event in tokens] == alone["samples"][0]["tokens"]
        text = start["prompt"] + "".join(event["text"] for event in tokens) + end["rest"]
        assert text == alone["samples"][0]["text"]
        assert end["cache_bytes"] == alone["cache"]["allocated_bytes"]


def test_what_the_last_token_leaves_unfinished_is_given(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--run", str(run), "--prompt", "x", "--no-save", "--max-new-tokens")
    assert main(["sample", *words, "30", "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["samples"][0]["tokens"]
    texts = [bytes(tokens[:count]).decode(errors="replace") for count in range(1, 31)]
    count = next(count for count, text in enumerate(texts, start=1) if text.endswith("\N{REPLACEMENT CHARACTER}"))
    *_, last, end = stream(capsys, *words, str(count))
    assert end["rest"].startswith("\N{REPLACEMENT CHARACTER}") and last["text"] == ""


def test_flags_name_the_policy_where_policies_do_not(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--run", str(run), "--prompt", "x", "--max-new-tokens", "1", "--no-save")
    start, *_ = stream(capsys, *words, "--kv-cache", "q8_0", "--kv-residual", "0")
    assert start["policies"] == ["q8_0,residual=0"]


def test_columns_are_kept_unless_told_not_to(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "train.jsonl").read_bytes()
    words = ("--run", str(run), "--prompt", "x", "--max-new-tokens", "5", "--policies", f"fp16;{Q4}")
    stream(capsys, *words, "--no-save")
    assert not (run / "samples.jsonl").exists()
    start, *rest = stream(capsys, *words)
    kept, faults = read_samples(run / "samples.jsonl")
    assert faults == [] and [sample.policy for sample in kept] == start["policies"]
    pieces = tuple(event["text"] for event in rest if event["type"] == "token" and event["column"] == 1)
    assert kept[1].pieces == pieces and kept[1].prompt == "x" and kept[1].step == 7
    assert (run / "train.jsonl").read_bytes() == before


def test_the_prompt_may_come_through_the_standard_input(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"--x\x00\n\xff.")))
    start, *_ = stream(capsys, "--run", str(run), "--prompt", "-", "--max-new-tokens", "1", "--no-save")
    assert start["prompt"] == "--x\x00\n\N{REPLACEMENT CHARACTER}."


def test_beyond_the_block_size_is_one_warning(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--run", str(run), "--prompt", "x", "--max-new-tokens", "40", "--no-save")
    events = stream(capsys, *words, "--policies", f"fp16;{Q4}")
    assert [event["type"] for event in events].count("warning") == 1
    assert "32 tokens" in next(event["message"] for event in events if event["type"] == "warning")


def test_a_reader_that_leaves_ends_it(run: Path) -> None:
    """Long before its ten million tokens are made."""
    command = [sys.executable, "-m", "bottleneck_core", "sample", "--run", str(run), "--prompt", "x"]
    command += ["--max-new-tokens", "10000000", "--json-lines", "--no-save"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["type"] == "start"
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--policies", "q9_9", "--json-lines"), "q9_9"),
        (("--policies", "k_sem=q8_0", "--json-lines"), "k_sem"),
        (("--policies", "mxfp4", "--json-lines"), "not stored"),
        (("--policies", "q8_0", "--kv-cache", "q4_0", "--json-lines"), "--kv-cache"),
        (("--policies", "q8_0"), "--json-lines"),
        (("--json", "--json-lines"), "--json"),
        (("--self-opt", "startup", "--json-lines"), "--self-opt"),
        (("--policies", "q4_0,qblock=5", "--json-lines"), "even"),
        (("--prompt", "", "--json-lines"), "empty"),
    ],
)
def test_mistakes_are_one_sentence(
    run: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = () if "--prompt" in words else ("--prompt", "a")
    code = main(["sample", "--run", str(run), *prompt, *words])
    err = capsys.readouterr().err
    assert code == 2 and said in err and err.startswith("error: ") and err.count("\n") == 1
