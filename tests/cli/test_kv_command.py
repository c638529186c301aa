"""`kv`: the document is the Python object, amounts are read as written, and mistakes are one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bottleneck_core as bc
from bottleneck_core.cli import main
from bottleneck_core.cli.amounts import memory_size, tokens
from bottleneck_core.memory import FORMATS

ROOT = Path(__file__).resolve().parents[2]


def kv(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["kv", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def document(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = kv(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_document_is_the_python_object(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--model", "gemma-3-27b", "--context", "128Ki", "--batch", "2", "--kv-cache", "q8_0")
    size = bc.kv_memory("gemma-3-27b", 131072, 2, {"kv_cache": "q8_0"})
    assert found == json.loads(json.dumps(size.to_dict()))
    assert found["bytes"] == found["totals"]["logical"] == size.bytes
    assert set(found) >= {
        "bytes",
        "bytes_per_token",
        "slope_bytes_per_token",
        "fixed_bytes_per_request",
        "baseline_fp16_bytes",
        "compression",
        "tensors",
        "totals",
    }
    assert list(found["tensors"][0]) == ["name", "layers", "kind", "qblock", "width", "row_bytes", "tokens", "bytes"]
    assert list(found["totals"]) == ["logical", "engine_reserved", "conservative"]


def test_presets_and_model_flags(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", "tiny", "--exp", "paper_bottleneck"]
    assert document(capsys, *words, "--context", "128k")["bytes"] == 294912000
    assert document(capsys, *words)["bytes"] == 2359296  # the block size
    wider = document(capsys, *words, "--attn-dim=192", "--no-null-attn", "--context", "1000")
    assert wider["bytes"] == 6 * 1000 * 2 * 192 * 2
    mixed = document(capsys, "--context=8", "--d_model", "64", "--n-head", "4", "--attn_mode=standard", "--batch=3")
    assert mixed["bytes"] == 3 * 6 * 8 * 2 * 64 * 2


def test_kv_flags(capsys: pytest.CaptureFixture[str]) -> None:
    flags = {
        "kv_cache": "q8_0",
        "kv_cache_v": "q4_0",
        "kv_qblock": "64",
        "kv_qblock_v": "16",
        "kv_residual": "9",
        "kv_first_layers": "1",
        "kv_last_layers": "2",
        "kv_edge_kind": "bf16",
    }
    words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    found = document(capsys, "--model", "llama-3.2-1b", "--context", "100", *words, "--kv-page", "16")
    policy = {name: int(value) if value.isdigit() else value for name, value in flags.items()}
    assert found["bytes"] == bc.kv_memory("llama-3.2-1b", 100, policy=policy, page=16).bytes
    assert {tensor["kind"] for tensor in found["tensors"]} == {"q8_0", "q4_0", "bf16"}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_is_accepted_those_that_are_only_counted_too(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--size", "nano", "--exp", "paper_baseline", "--kv-cache", kind, "--context", "10")
    assert {tensor["kind"] for tensor in found["tensors"]} == {kind}


def test_a_run_keeps_its_own_policy_unless_flags_say_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = bc.RunConfig.resolve(size="nano", exp="paper_baseline", kv_cache="q8_0", kv_cache_v="q4_0", kv_residual=5)
    (tmp_path / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    run = ["--run", str(tmp_path), "--context", "100"]
    assert document(capsys, *run)["bytes"] == bc.kv_memory(config, 100).bytes
    found = document(capsys, *run, "--kv-residual", "0")
    assert found["bytes"] == bc.kv_memory(config, 100, policy=config.model_dump() | {"kv_residual": 0}).bytes
    plain = document(capsys, *run, "--kv-cache", "fp16")
    assert {tensor["kind"] for tensor in plain["tensors"]} == {"fp16"}  # v too


@pytest.mark.parametrize(
    "flags", [["--kv-hadamard"], ["--kv-fused", "auto"], ["--kv-decode-block=64", "--no-kv-hadamard"]]
)
def test_cache_flags_that_change_no_size_go_with_any_model(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(bc.RunConfig.resolve(size="nano").model_dump_json(), encoding="utf-8")
    words = ["--context", "100", "--kv-cache", "q8_0"]
    for model in (["--model", "gpt2"], ["--run", str(tmp_path)], ["--size", "nano"]):
        assert document(capsys, *model, *words, *flags) == document(capsys, *model, *words)


def test_a_hugging_face_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.json"
    shape = {"num_hidden_layers": 61, "kv_lora_rank": 512, "qk_rope_head_dim": 64}
    file.write_text(json.dumps({"model_type": "deepseek_v3", **shape}), encoding="utf-8")
    words = ["--hf-config", str(file), "--context", "163840", "--kv-cache-k", "q8_0"]
    found = document(capsys, *words)
    assert found["bytes"] == 61 * 163840 * 18 * 34  # 576 values in 18 blocks: the latent goes by the kind of k


def test_state_dtype(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "qwen3-next-80b-a3b", "--context", "1"]
    assert document(capsys, *words)["fixed_bytes_per_request"] == 77266944
    assert document(capsys, *words, "--state-dtype", "bf16")["fixed_bytes_per_request"] == 39518208


def test_inverse_questions(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--model", "llama-2-7b", "--context", "4096"]
    found = document(capsys, *words, "--budget", "10GiB")
    assert found["longest_context"] == 20 * 1024 and found["largest_batch"] == 5
    assert found["budget"] == {
        "total": 10 * 2**30,
        "weights": 0,
        "activations": 0,
        "reserve": 0,
        "cache": 10 * 2**30,
    }
    assert found["cheapest_policy"]["settings"] == {"kv_residual": 0, "kv_cache": "fp16"}
    assert document(capsys, *words, "--budget", "1GiB")["cheapest_policy"]["settings"]["kv_cache"] == "fp8"
    assert document(capsys, *words, "--budget", "1MB")["cheapest_policy"] is None
    gpu = document(capsys, *words, "--gpu", "L4", "--weights=q4_0", "--activations=0", "--reserve=0.5", "--params=1e9")
    assert gpu["budget"]["weights"] == 562_500_000
    assert gpu["budget"]["reserve"] == gpu["budget"]["total"] // 2


def test_what_people_read_has_units(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", "tiny", "--exp", "paper_decoupled", "--context", "128k", "--kv-cache", "q4_0"]
    code, out, err = kv(capsys, *words, "--budget", "2GiB")
    assert (code, err) == (0, "")
    assert "tiny_decoupled: 128,000 tokens, batch 1" in out
    assert "103 MiB" in out and "107,814,912 B" in out and "840 B" in out
    assert "k_geo: 6 layers x 128,000 tokens x 68 B x batch 1 = 52,224,000 B" in out
    assert "longest context at batch 1: 2,556,177 tokens" in out and "largest batch at 128,000 tokens: 19" in out
    assert "by bits a value, not measured" in out
    _, out, _ = kv(capsys, "--model", "mamba-2.8b", "--context", "5", "--budget", "1GB")
    assert "any: the length costs nothing" in out


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    rows: Any = document(capsys, "--list")
    names = [row["name"] for row in rows]
    assert names == list(bc.model_zoo()["name"])
    _, out, _ = kv(capsys, "--list")
    assert all(name in out for name in names)


def test_amounts() -> None:
    assert [tokens(text) for text in ("7", "131,072", "128k", "128K", "128Ki", "1.5k", "1M", "1Mi")] == [
        7,
        131072,
        128000,
        128000,
        131072,
        1500,
        10**6,
        2**20,
    ]
    assert [memory_size(text) for text in ("80GiB", "80GB", "80 gib", "512MiB", "1.5KiB", "7", "1TiB", "3B")] == [
        80 * 2**30,
        80 * 10**9,
        80 * 2**30,
        2**29,
        1536,
        7,
        2**40,
        3,
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "one model is needed, got none"),
        (["--model", "gpt2"], "--context is missing"),
        (["--model", "gpt3", "--context", "5"], "unknown model gpt3: did you mean gpt2"),
        (["--model", "gpt2", "--size", "tiny"], "--model, model flags together"),
        (["--kv-hadamard", "--context", "5"], "one model is needed, got none"),
        (["--model", "gpt2", "--context", "5", "--kv-fused", "triton"], "--kv-fused must be one of none, auto"),
        (["--model", "gpt2", "--context", "5", "--weights", "int8"], "--weights belongs to a question of what fits"),
        (["--model", "gpt2", "--context", "5", "--total", "conservative"], "--total belongs to a question"),
        (["--model", "gpt2", "--run", "x"], "--run, --model together"),
        (["--run", "nowhere", "--context", "5"], "--run nowhere is no folder"),
        (["--hf-config", "nowhere", "--context", "5"], "--hf-config nowhere does not exist"),
        (["--model", "gpt2", "--context", "0"], "--context needs a number of tokens >= 1"),
        (["--model", "gpt2", "--context", "1.5"], "--context needs a number of tokens"),
        (["--model", "gpt2", "--context", "5kk"], "--context needs a number of tokens"),
        (["--model", "gpt2", "--context", "5", "--batch", "0"], "--batch must be a whole number >= 1, got 0"),
        (["--model", "gpt2", "--context", "5", "--kv-cache", "q3"], "--kv-cache must be one of fp32, fp16"),
        (["--model", "gpt2", "--context", "5", "--kv-qblock", "0"], "--kv-qblock must be a whole number >= 1"),
        (["--model", "gpt2", "--context", "5", "--kv-qblock=31", "--kv-cache=q4_0"], "even block size, got 31"),
        (["--model", "gpt2", "--context", "5", "--kv-residual", "-1"], "--kv-residual"),
        (["--model", "gpt2", "--context", "5", "--state-dtype", "q4_0"], "unknown dtype of recurrent states q4_0"),
        (["--model", "gpt2", "--context", "5", "--budget", "big"], "--budget needs bytes"),
        (["--model", "gpt2", "--context", "5", "--budget", "5", "--gpu", "L4"], "together: keep one"),
        (["--model", "gpt2", "--context", "5", "--gpu", "L5"], "unknown GPU L5"),
        (["--model", "gpt2", "--context", "5", "--gpu", "L4", "--reserve", "x"], "--reserve must be a number"),
        (["--model", "gpt2", "--contxt", "5"], "unknown flag --contxt: did you mean --context?"),
        (["--size", "tny"], "--size must be one of"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = kv(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert sentence in err


def test_neither_torch_nor_pandas_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        bc.RunConfig.resolve(size="nano", exp="paper_gqa").model_dump_json(), encoding="utf-8"
    )
    asked = [
        ["--model", "deepseek-v3", "--context", "5", "--gpu", "h200", "--json"],
        ["--size", "tiny", "--json"],
        ["--run", str(tmp_path), "--budget", "1GiB"],
        ["--list"],
    ]
    calls = "; ".join(f"assert main(['kv', *{words}]) == 0" for words in asked)
    code = f"import sys; from bottleneck_core.cli import main; {calls}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {"torch", "pandas", "h5py", "duckdb", "plotly", "streamlit", "matplotlib", "numpy"}
