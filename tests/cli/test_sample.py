"""`sample` as a user calls it, on a checkpoint with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bottleneck_core.cli import main
from bottleneck_core.cli.sample import _report
from bottleneck_core.config import RunConfig
from bottleneck_core.model import build_model
from bottleneck_core.train.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    config = RunConfig.resolve(
        exp="paper_decoupled", layers=2, d_model=32, n_head=2, d_ff=32, embed_dim=32, block=32, tokenizer="byte"
    ).with_vocab(256)
    save_checkpoint(folder / "best.pt", config, build_model(config).state_dict(), step=7)
    (folder / "train.jsonl").write_text('{"type": "meta", "step": 0}\n')
    return folder


def sample(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["sample", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def document(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = sample(capsys, *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_text_streams_and_is_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / "train.jsonl").read_bytes()
    code, out, err = sample(capsys, "--run", str(run), "--prompt", "caf\u00e9", "--max-new-tokens", "12")
    assert code == 0 and out.startswith("caf\u00e9") and out.endswith("\n")
    assert "12 tokens in" in err and "KiB" in err
    kept = json.loads((run / "samples.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert kept["samples"][0]["text"] == out[:-1] and kept["step"] == 7 and len(kept["samples"][0]["tokens"]) == 12
    assert (run / "train.jsonl").read_bytes() == before


def test_the_seeds_own_spelling(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["--mode", "sample", "--ckpt", str(run / "best.pt"), "--prompt_tokens=65 66,67", "--max-new-tokens=3"])
        == 0
    )
    assert capsys.readouterr().out.startswith("ABC")
    assert main(["sample", "--ckpt", str(run), "--prompt-tokens", "as text", "--max-new-tokens", "3"]) == 0
    assert capsys.readouterr().out.startswith("as text")


def test_the_same_seed_draws_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--run", str(run), "--prompt", "x", "--max-new-tokens", "20", "--no-save")
    first, again, other = (document(capsys, *words, "--seed", seed)["samples"] for seed in ("1", "1", "2"))
    assert first == again != other


def test_prompts_of_a_file_are_one_batch(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\nand two\n", encoding="utf-8")
    words = ("--prompts", str(file), "--max-new-tokens", "5", "--temperature", "0", "--no-save")
    made = document(capsys, "--run", str(run), *words)
    assert [s["text"][: len(p)] for s, p in zip(made["samples"], ("one", "and two"), strict=True)] == ["one", "and two"]
    alone = document(
        capsys, "--run", str(run), "--prompt", "one", "--max-new-tokens", "5", "--temperature", "0", "--no-save"
    )
    assert alone["samples"][0]["tokens"] == made["samples"][0]["tokens"]
    code, out, _ = sample(capsys, "--run", str(run), *words)
    assert code == 0 and out.count("---\n") == 2


@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16", "fp8", "q8_0", "q5_0", "q4_0", "nf4"])
def test_every_kind_takes_what_was_accounted(run: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = document(
        capsys, "--run", str(run), "--prompt", "abc", "--max-new-tokens", "20", "--kv-cache", kind, "--kv-page", "8",
        "--kv-residual", "5", "--kv-last-layers", "1", "--no-save",
    )  # fmt: skip
    assert made["cache"]["tokens"] == 22, "the last token drawn is not fed"
    assert made["cache"]["allocated_bytes"] == made["cache"]["accounted_bytes"]


def test_beyond_the_block_size_is_a_warning(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = sample(capsys, "--run", str(run), "--prompt", "x", "--max-new-tokens", "40", "--no-save")
    assert code == 0 and err.count("warning: ") == 1 and "32 tokens" in err


def test_stop(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--run", str(run), "--prompt", "x", "--max-new-tokens", "20", "--no-save")
    tokens = document(capsys, *words)["samples"][0]["tokens"]
    stop = tokens[4]
    stopped = document(capsys, *words, "--stop", f"{stop:02d}")["samples"][0]["tokens"]
    assert stopped == tokens[: tokens.index(stop) + 1]


def test_a_model_without_its_vocabulary_takes_and_gives_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig.resolve(
        layers=1, d_model=16, n_head=2, attn_dim=8, d_ff=16, embed_dim=16, block=16, data=str(tmp_path / "gone.bin")
    ).with_vocab(30)
    save_checkpoint(tmp_path / "last.pt", config, build_model(config).state_dict(), step=1)
    code, out, _ = sample(capsys, "--ckpt", str(tmp_path / "last.pt"), "--prompt-tokens", "3", "--max-new-tokens", "2")
    assert code == 0 and out.split()[0] == "3" and len(out.split()) == 3
    code, _, err = sample(capsys, "--ckpt", str(tmp_path / "last.pt"), "--prompt", "text")
    assert code == 2 and "vocabulary" in err and err.count("\n") == 1
    assert not (tmp_path / "samples.jsonl").exists(), "a checkpoint outside a run has no log of samples"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--run"),
        (("--run", "nowhere"), "nowhere"),
        (("--run", "RUN", "--prompt", "a", "--prompt-tokens", "1"), "--prompts"),
        (("--run", "RUN", "--prompt-tokens", "999"), "999"),
        (("--run", "RUN", "--prompts", "absent.txt"), "absent.txt"),
        (("--run", "RUN", "--prompt", ""), "empty"),
        (("--run", "RUN", "--top-p", "0"), "--top-p"),
        (("--run", "RUN", "--temperature", "-1"), "--temperature"),
        (("--run", "RUN", "--prompt", "a", "--stop", "two words"), "--stop"),
        (("--run", "RUN", "--prompt", "a", "--device", "abacus"), "abacus"),
        (("--run", "RUN", "--prompt", "a", "--kv-cache", "q4_0", "--kv-qblock", "5"), "even"),
    ],
)
def test_mistakes_are_one_sentence(
    run: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = sample(capsys, *(str(run) if word == "RUN" else word for word in words))
    assert code == 2 and out == "" and said in err and err.startswith("error: ") and err.count("\n") == 1


def test_weights_that_are_not_finite_are_a_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = RunConfig(**torch.load(run / "best.pt", weights_only=True)["config"])
    state = build_model(config).state_dict()
    state["blocks.0.attn.v_proj.weight"][0, 0] = float("inf")
    save_checkpoint(tmp_path / "best.pt", config, state, step=1)
    code, _, err = sample(capsys, "--ckpt", str(tmp_path / "best.pt"), "--prompt", "ab")
    assert code == 2 and "infinite" in err


@pytest.mark.parametrize("how", ["startup", "online"])
def test_the_self_optimiser_chooses_before_decoding(run: Path, how: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Under a budget that fp16 does not meet; the text goes on as if nothing watched it."""
    words = ("--run", str(run), "--prompt", "x", "--max-new-tokens", "60", "--no-save", "--self-opt", how)
    words += ("--self-opt-residuals", "0", "--self-opt-qblocks", "16", "--self-opt-decode-blocks", "16,64")
    words += ("--self-opt-policy-iters", "1", "--self-opt-iters", "1", "--self-opt-interval", "8", "--kv-page", "16")
    words += ("--kv-cache", "q8_0", "--kv-residual", "0", "--self-opt-mem-budget-mb", "0.006")
    made = document(capsys, *words)
    assert len(made["samples"][0]["tokens"]) == 60
    assert made["cache"]["allocated_bytes"] == made["cache"]["accounted_bytes"] <= 6000
    plain = document(capsys, *words[:6], "--no-save", "--kv-page", "16", *_flags_of(made["policy"]))
    assert plain["samples"] == made["samples"]


def _flags_of(policy: str) -> list[str]:
    """The flags that ask for a policy that `sample` names."""
    flags: list[str] = []
    for part in policy.split(","):
        name, _, value = part.rpartition("=")
        spelled = {"": "--kv-cache", "residual": "--kv-residual", "qblock": "--kv-qblock"}
        flags += [spelled.get(name, f"--kv-cache-{name.replace('_', '-')}"), value]
    return flags


@pytest.mark.parametrize(("device", "told"), [("cuda", True), ("cpu", False)])
def test_a_gpu_that_decodes_without_graphs_says_why(capsys: pytest.CaptureFixture[str], device: str, told: bool):
    cache = SimpleNamespace(allocated_bytes=1024, batch=1, length=3, device=SimpleNamespace(type=device))
    engine: Any = SimpleNamespace(cache=cache, fallback=None, graph_fallback="a mask is needed")
    _report(engine, 3, 1.0)
    assert ("not as CUDA graphs: a mask is needed" in capsys.readouterr().err) is told
