"""Every kind of source gives the same sizes, and mistakes are one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bottleneck_core as bc
from bottleneck_core import sizing
from bottleneck_core.memory import GPUS, Budget, CachePolicy, count_parameters
from bottleneck_core.memory.zoo import zoo

LLAMA = {"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}


def written(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_our_sources(tmp_path: Path) -> None:
    config = bc.RunConfig.resolve(size="tiny", exp="paper_decoupled", kv_cache="q8_0")
    file = written(tmp_path / "run" / "config.json", config.model_dump(mode="json"))
    expected = bc.kv_memory(config, 500)
    for source in (config.model_dump(), file, str(file), file.parent, str(file.parent), bc.load_run(file.parent)):
        assert bc.kv_memory(source, 500) == expected
    assert expected.tensors[0].kind == "q8_0"


def test_public_sources(tmp_path: Path) -> None:
    expected = bc.kv_memory("llama-2-7b", 4096)
    assert expected.bytes == 2 * 2**30  # half a MiB a token
    config = dict(zoo()["llama-2-7b"].config)
    file = written(tmp_path / "hub" / "config.json", config)
    for source in ("Llama-2-7B", config, zoo()["llama-2-7b"], file, file.parent):
        assert bc.kv_memory(source, 4096) == expected


def test_a_path_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "gpt2" / "config.json", LLAMA)
    assert bc.kv_memory("gpt2", 1).bytes == 2 * 2 * 32 * 2


def test_foreign_runs_are_sized(shared: Path) -> None:
    folder = shared / "foreign_runs" / "tiny_bottleneck"
    assert bc.kv_memory(folder, 1024).bytes == bc.kv_memory(bc.load_run(folder), 1024).bytes == 2359296
    assert sizing.parameters_of(folder) == 45800112


def test_public_models_have_no_residual_window_unless_asked() -> None:
    plain = bc.kv_memory(LLAMA, 100, policy={"kv_cache": "q8_0"})
    assert plain.bytes == 2 * 2 * 100 * 34
    for policy in ({"kv_cache": "q8_0", "kv_residual": 7}, CachePolicy(kind="q8_0", residual=7)):
        assert bc.kv_memory(LLAMA, 100, policy=policy).bytes == plain.bytes + 2 * 2 * 7 * 64
    ours = bc.RunConfig.resolve(size="nano", exp="paper_baseline")
    assert bc.kv_memory(ours, 100, policy={"kv_cache": "q8_0"}).bytes == 4 * 2 * (100 * 4 * 34 + 100 * 256)


def test_pages_and_state_dtypes_reach_the_accounting() -> None:
    assert bc.kv_memory(LLAMA, 17, page=16) == bc.kv_memory(LLAMA, 17, 1, None, 16)
    assert bc.kv_memory(LLAMA, 17, page=16).bytes == bc.kv_memory(LLAMA, 32).bytes
    fp32, bf16 = (bc.kv_memory("qwen3-next-80b-a3b", 1, state_kind=kind) for kind in ("fp32", "bf16"))
    assert fp32.bytes > bf16.bytes


def test_parameters_of() -> None:
    config = bc.RunConfig.resolve(size="tiny", exp="paper_gqa")
    assert sizing.parameters_of(config) == count_parameters(config, 50257)
    assert sizing.parameters_of(config.model_dump() | {"vocab_size": 256}) == count_parameters(config, 256)
    assert sizing.parameters_of("llama-3.1-8b") == 8030261248
    assert sizing.parameters_of(zoo()["llama-3.1-8b"]) == 8030261248
    assert sizing.parameters_of(config.model_dump()) is None  # no vocabulary size
    assert sizing.parameters_of({"attn_mode": "standard", "n_layer": 2, "d_model": 8, "vocab_size": 9}) is None
    assert sizing.parameters_of(LLAMA) is None


def test_parameters_of_a_run_take_the_vocabulary_of_its_data(tmp_path: Path) -> None:
    config = bc.RunConfig.resolve(size="nano", exp="paper_baseline")
    folder = tmp_path / "run"
    written(folder / "config.json", config.model_dump(mode="json"))
    assert sizing.parameters_of(folder) is None
    event = {"type": "mem", "step": 0, "wall_time": "2026-01-01T00:00:00+00:00", "vocab_size": 300}
    (folder / "train.jsonl").write_text(json.dumps(event) + "\n", encoding="utf-8")
    assert sizing.parameters_of(folder) == count_parameters(config, 300)


def test_a_number_of_bytes_is_the_caches_alone() -> None:
    assert sizing.budget_of("llama-2-7b", 10**9) == Budget(total=10**9)
    assert sizing.budget_of("llama-2-7b", 10**11, weights="int8").cache == 10**11 - 6738415616
    assert sizing.longest_context("llama-2-7b", 10 * 524288 + 5) == 10
    assert sizing.largest_batch("llama-2-7b", 10, 35 * 524288) == 3


def test_a_gpu_holds_weights_activations_and_a_reserve() -> None:
    whole = GPUS["H100 80GB"]
    budget = sizing.budget_of("llama-2-7b", gpu="h100")
    assert budget == Budget(total=whole, weights=2 * 6738415616, activations=2**30, reserve=round(whole / 10))
    free = sizing.budget_of("llama-2-7b", gpu="h100", weights="int8", activations=0, reserve=0)
    assert free.cache == whole - 6738415616
    assert sizing.longest_context("llama-2-7b", gpu="h100") == budget.cache // 524288
    assert sizing.longest_context("llama-2-7b", budget) == budget.cache // 524288
    assert sizing.budget_of(LLAMA, gpu="L4", params=1000).weights == 2000
    choice = sizing.cheapest_policy("llama-2-7b", 131072, gpu="h100")
    assert choice.memory.bytes <= budget.cache < choice.rejected[-1][1]
    assert choice.rank == len(choice.rejected) > 0


def test_the_zoo_is_a_table() -> None:
    frame = bc.model_zoo().set_index("name")
    assert len(frame) >= 30 and frame.index.is_unique
    row = frame.loc["gemma-3-27b"]
    assert (row["family"], row["layers"], row["kind"]) == ("gemma3_text", 62, "52 sliding + 10 full")
    assert (row["bytes_per_token"], row["slope_bytes_per_token"]) == (507904, 81920)
    assert frame["source"].str.startswith("https://").all()


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: bc.kv_memory("llama-3.1-8", 5), "unknown model llama-3.1-8: did you mean llama-3.1-8b"),
        (lambda: bc.kv_memory("zzz", 5), "unknown model zzz: `kv --list` lists them"),
        (lambda: bc.kv_memory("no/such/run", 5), "neither a run folder nor a config.json"),
        (lambda: bc.kv_memory({"model_type": "rwkv9"}, 5), "unknown architecture rwkv9"),
        (lambda: bc.kv_memory({"hidden_size": 5}, 5), "neither model_type, as Hugging Face's have, nor attn_mode"),
        (lambda: bc.kv_memory({"attn_mode": "standard", "n_layer": 2, "d_model": None}, 5), "lacks d_model"),
        (lambda: bc.kv_memory("gpt2", 5, policy={"kv_cache": "q3"}), "unknown cache kind q3"),
        (lambda: bc.kv_memory("gpt2", 5, policy={"kv_cash": "q8_0"}), "unknown cache setting kv_cash"),
        (lambda: bc.kv_memory("gpt2", 5, page=0), "page must be at least 1"),
        (lambda: bc.kv_memory("gpt2", 5, state_kind="q4_0"), "unknown dtype of recurrent states q4_0"),  # pyright: ignore
        (lambda: sizing.budget_of("gpt2"), "either a budget in bytes or a GPU"),
        (lambda: sizing.budget_of("gpt2", 5, gpu="h100"), "either a budget in bytes or a GPU"),
        (lambda: sizing.budget_of("gpt2", gpu="h1000"), "unknown GPU h1000"),
        (lambda: sizing.budget_of("gpt2", 5, reserve=1.0), "a reserve from 0 to below 1"),
        (lambda: sizing.budget_of(LLAMA, gpu="h100"), "the number of weights is not known"),
        (lambda: sizing.longest_context("gpt2", 10**9, total="all"), "unknown total all"),
        (lambda: sizing.cheapest_policy("gpt2", 1000, 10), "no policy fits 10 B"),
    ],
)
def test_mistakes_are_one_sentence(ask, sentence: str) -> None:
    with pytest.raises(bc.UserError) as raised:
        ask()
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_hold_no_configuration(tmp_path: Path) -> None:
    for text, sentence in (("{", "no readable JSON"), ("[]", "holds no configuration")):
        (tmp_path / "config.json").write_text(text, encoding="utf-8")
        with pytest.raises(bc.UserError, match=sentence):
            bc.kv_memory(tmp_path / "config.json", 5)


def test_rows_of_runs_are_completed_from_their_shape(shared: Path) -> None:
    """The foreign runs recorded no parameter counts; the seed's is in the reference file."""
    rows = {row["id"]: row for row in bc.index(shared / "foreign_runs")}
    golden = json.loads((shared / "kv_golden.json").read_text())
    assert rows["tiny_bottleneck"]["n_params"] == golden["param_counts_vocab_50257"]["tiny"]["paper_bottleneck"]
    assert all(row["n_params"] and row["kv_bytes_128k"] for row in rows.values())
