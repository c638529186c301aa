"""`evaluate`: from a checkpoint to the table, the document and the run folder's file; mistakes as one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck_core.cli import main
from bottleneck_core.cli.evaluate import Words, held_out
from bottleneck_core.cli.trained import open_trained
from bottleneck_core.config import RunConfig
from bottleneck_core.data.sidecar import file_sha256, write_sidecar
from bottleneck_core.memory import kv_memory
from bottleneck_core.memory.policy_text import parse_policy
from bottleneck_core.model import build_model
from bottleneck_core.train.checkpoint import save_checkpoint
from tests.train.runs import environment

SHAPE: dict[str, Any] = {
    "layers": 2,
    "d_model": 16,
    "embed_dim": 16,
    "n_head": 2,
    "d_ff": 16,
    "block": 32,
    "attn_dim": 8,
    "tokenizer": "byte",
    "vocab_size": 256,
}
WORDS = "The cache keeps what was said, and what was said before that. "
SMALL = ["--device", "cpu", "--windows", "2", "--scored", "6", "--trials", "2"]


def make_run(tmp_path: Path, **changes: Any) -> Path:
    """A run folder with random weights, its byte token file beside it."""
    ids = np.frombuffer((WORDS * 40).encode(), dtype=np.uint8).astype(np.uint16)
    data = tmp_path / "corpus.bin"
    ids.tofile(data)
    sidecar = {"tokens": len(ids), "tokenizer": "byte", "vocab_size": 256, "dtype": "uint16"}
    write_sidecar(data, sidecar | {"sha256": file_sha256(data), "bytes": data.stat().st_size})
    folder = tmp_path / "run"
    folder.mkdir()
    config = RunConfig.resolve(**SHAPE | {"data": str(data)} | changes)
    save_checkpoint(folder / "best.pt", config, build_model(config, seed=5).state_dict(), step=7)
    (folder / "manifest.json").write_text(json.dumps({"data_sha256": file_sha256(data)}), encoding="utf-8")
    return folder


def evaluate(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    code = main(["evaluate", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def strict(text: str) -> Any:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_document_holds_what_it_depends_on_and_all_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    policies = "q8_0,residual=0;k=q8_0,v=q4_0,residual=4;native"
    out = tmp_path / "out.json"
    code, said, _ = evaluate(capsys, "--run", run, "--policies", policies, "--json", "--out", out, *SMALL)
    document = strict(said)
    assert code == 0
    key = document["key"]
    assert key["checkpoint_sha256"] == file_sha256(run / "best.pt") and key["step"] == 7
    n = len(WORDS) * 40
    assert key["text"] == {
        "kind": "validation split",
        "name": "corpus.bin",
        "sha256": file_sha256(tmp_path / "corpus.bin"),
        "tokenizer": "byte",
        "first_token": int(n * 0.9),
        "tokens": n - int(n * 0.9),
    }
    assert key["contexts"] == [16, 32] and key["policies"] == [*policies.split(";")]
    labels = ["fp16", *policies.split(";")]
    assert [(row["context"], row["policy"]) for row in document["quality"]] == [
        (context, label) for context in (16, 32) for label in labels
    ]
    for row in document["quality"]:
        if row["policy"] != "native":
            config = RunConfig.resolve(**SHAPE)
            size = kv_memory(config, row["context"], policy=parse_policy(row["policy"]))
            assert (row["bytes"], row["slope_bytes_per_token"]) == (size.bytes, size.slope_bytes_per_token)
        assert row["scored_tokens"] == 12
    assert len(document["needle"]) == 2 * 4 * 3 and len(document["induction"]) == 2 * 4
    assert strict(out.read_text(encoding="utf-8")) == document
    stored = strict((run / "evaluation.json").read_text(encoding="utf-8"))
    assert stored == {"schema_version": 1, "evaluations": [document]}


def test_evaluations_are_collected_by_what_they_depend_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    words = ["--run", run, "--policies", "q8_0,residual=0", "--contexts", "16", *SMALL, "--json"]
    for more in ([], ["--seed", "1"], [], ["--no-save", "--seed", "2"]):
        assert evaluate(capsys, *words, *more)[0] == 0
    entries = strict((run / "evaluation.json").read_text(encoding="utf-8"))["evaluations"]
    assert [entry["key"]["seed"] for entry in entries] == [1, 1337], "an equal one takes the place of the old"
    assert entries[0]["quality"] == entries[1]["quality"] and entries[0]["needle"] != entries[1]["needle"]


def test_the_defaults_make_a_table_with_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path, attn_mode="decoupled", sem_dim=8, geo_dim=8)
    code, out, _ = evaluate(capsys, "--run", run, *SMALL)
    assert code == 0
    assert "context 16 tokens, 2 windows x 6 scored = 12 tokens, baseline fp16" in out
    lines = [line for line in out.splitlines() if line.startswith(("q", "nf4", "fp", "k_"))]
    assert len({line.split()[0] for line in lines}) >= 9, "eight policies and the baseline"
    for words in ("nats/token", "nats", "same top-1", "KiB", "needle at 10 %", "k_sem=q8_0,k_geo=q4_0,v=q8_0"):
        assert words in out
    windowed = next(line for line in lines if line.startswith("q4_0 "))
    assert "+0.0000 ± 0.0000" in windowed and " 0 % " in windowed, "the window holds all: nothing was measured"
    fp16 = next(line for line in lines if line.startswith("fp16"))
    assert "1.50 KiB" in fp16 and " 96 B" in fp16 and "100.00 %" in fp16, "24 values x 2 layers x 2 B a token"


def test_help_names_the_units_and_the_policies(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["evaluate", "--help"])
    assert exit.value.code == 0 and "q4_0,residual=64" in capsys.readouterr().out


def test_without_probes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--run", make_run(tmp_path), *SMALL[:-2], "--trials", "0", "--policies", "q8_0"]
    code, out, _ = evaluate(capsys, *words)
    assert code == 0 and "needle" not in out and "ΔNLL" in out
    document = strict(evaluate(capsys, *words, "--json")[1])
    assert document["needle"] == document["induction"] == [] and len(document["quality"]) == 4


def test_text_is_read_by_the_runs_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    text = tmp_path / "held out.txt"
    text.write_text("Größe " * 30, encoding="utf-8")
    code, out, _ = evaluate(capsys, "--ckpt", run / "best.pt", "--text", text, "--json", *SMALL, "--policies", "q8_0")
    source = strict(out)["key"]["text"]
    assert code == 0 and source["tokens"] == 30 * len("Größe ".encode()) and source["kind"] == "text"
    assert (run / "evaluation.json").is_file()


def test_of_its_own_token_file_only_the_end_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    words = ["--run", run, "--json", "--policies", "q8_0", "--contexts", "16", "--no-save", *SMALL]
    own = strict(evaluate(capsys, *words, "--data", tmp_path / "corpus.bin")[1])
    assert own["key"]["text"]["kind"] == "validation split" and own["key"]["text"]["first_token"] > 0
    other = tmp_path / "other.npy"
    np.save(other, np.arange(200, dtype=np.uint16))
    document = strict(evaluate(capsys, *words, "--data", other)[1])
    assert document["key"]["text"] | {"sha256": ""} == {
        "kind": "token file",
        "name": "other.npy",
        "sha256": "",
        "tokenizer": None,
        "first_token": 0,
        "tokens": 200,
    }


def test_the_ids_are_those_that_were_held_out(tmp_path: Path) -> None:
    trained = open_trained(str(make_run(tmp_path)), "cpu")
    ids = list((WORDS * 40).encode())
    assert held_out(Words(), trained).ids.tolist() == ids[int(len(ids) * 0.9) :]
    (tmp_path / "a.txt").write_text("Größe", encoding="utf-8")
    assert held_out(Words(text=str(tmp_path / "a.txt")), trained).ids.tolist() == list("Größe".encode())


def test_a_checkpoint_alone_leaves_nothing_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    (run / "manifest.json").unlink()
    code, _, _ = evaluate(capsys, "--ckpt", run / "best.pt", *SMALL, "--policies", "q8_0")
    assert code == 0 and [path.name for path in run.iterdir()] == ["best.pt"]


def test_beyond_the_block_size_it_warns_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    words = ["--run", run, "--contexts", "32,40", "--policies", "q8_0", "--baseline", "native", *SMALL]
    code, out, err = evaluate(capsys, *words)
    assert code == 0 and "context 40 tokens" in out and "baseline native" in out
    assert [line for line in err.splitlines() if "warning" in line] == [
        "warning: contexts beyond 32 tokens, with which the model was trained (40), measure mostly the model's own "
        "loss of quality there"
    ]


def test_bf16_is_another_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    words = ["--run", run, "--policies", "q8_0", "--contexts", "16", *SMALL, "--json"]
    one, two = (strict(evaluate(capsys, *words, "--dtype", dtype)[1]) for dtype in ("fp32", "bf16"))
    assert (one["key"]["dtype"], two["key"]["dtype"]) == ("fp32", "bf16")
    assert one["quality"][0]["nll"] != two["quality"][0]["nll"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "no model is given: name a run folder with --run"),
        (["--run", "nowhere"], "nowhere"),
        (["--run", "RUN", "--ckpt", "RUN/best.pt"], "--run and --ckpt are given together"),
        (["--run", "RUN", "--text", "a", "--data", "b"], "--text and --data are given together"),
        (["--run", "RUN", "--text", "nowhere.txt"], "--text nowhere.txt cannot be read"),
        (["--run", "RUN", "--data", "nowhere.bin"], "nowhere.bin does not exist"),
        (["--run", "RUN", "--contexts", "16,x"], "--contexts needs a number of tokens"),
        (["--run", "RUN", "--contexts", "9000"], "give a longer text, or smaller --contexts"),
        (["--run", "RUN", "--policies", "q8_0;q9"], "unknown kind 'q9'"),
        (["--run", "RUN", "--policies", "k_sem=q8_0"], "names k_sem, this model caches k, v"),
        (["--run", "RUN", "--baseline", "fp17"], "unknown kind 'fp17'"),
        (["--run", "RUN", "--scored", "1"], "one token says nothing"),
        (["--run", "RUN", "--windows", "0"], "--windows must be a whole number >= 1, got 0"),
        (["--run", "RUN", "--trials", "-1"], "--trials must be a whole number >= 0, got -1"),
        (["--run", "RUN", "--out", "nowhere/x.json"], "make it first"),
        (["--run", "RUN", "--device", "tpu"], "tpu"),
        (["--run", "RUN", "--nothing"], "--nothing"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    code, out, err = evaluate(capsys, *(word.replace("RUN", str(run)) for word in words))
    errors = [line for line in err.splitlines() if not line.startswith(("evaluating", "warning"))]
    assert (code, out, len(errors)) == (2, "", 1), err
    assert errors[0].startswith("error: ") and sentence in errors[0]
    assert not (run / "evaluation.json").exists()


def test_data_that_is_not_the_runs_is_not_taken_for_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path)
    (run / "manifest.json").write_text('{"data_sha256": "another"}', encoding="utf-8")
    code, _, err = evaluate(capsys, "--run", run, *SMALL)
    assert code == 2 and "no longer the file" in err
    (tmp_path / "corpus.bin").unlink()
    code, _, err = evaluate(capsys, "--run", run, *SMALL)
    assert code == 2 and "is not here" in err
    other = tmp_path / "other.bin"
    np.arange(300, dtype=np.uint16).tofile(other)
    write_sidecar(other, {"tokens": 300, "tokenizer": "gpt2", "dtype": "uint16", "bytes": 600, "sha256": "0"})
    code, _, err = evaluate(capsys, "--run", run, "--data", other, *SMALL)
    assert code == 2 and "prepared with the tokenizer gpt2, the model knows byte" in err


def test_a_word_model_without_its_vocabulary_takes_token_files_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, tokenizer="word")
    (tmp_path / "corpus.bin.json").unlink()
    (tmp_path / "a.txt").write_text(WORDS, encoding="utf-8")
    code, _, err = evaluate(capsys, "--run", run, "--text", tmp_path / "a.txt", *SMALL)
    assert code == 2 and "vocabulary of" in err and "--data" in err
    assert evaluate(capsys, "--run", run, *SMALL, "--policies", "q8_0")[0] == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"evaluations": [{}]}'])
def test_a_file_of_another_kind_is_refused_before_the_work(
    tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path)
    (run / "evaluation.json").write_text(content, encoding="utf-8")
    code, _, err = evaluate(capsys, "--run", run, *SMALL)
    assert code == 2 and "evaluation.json" in err and "evaluating" not in err
    assert (run / "evaluation.json").read_text(encoding="utf-8") == content


def test_as_a_process(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "bottleneck_core", "evaluate", "--run", str(run), "--json", *SMALL],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    document = strict(done.stdout)
    assert len(document["quality"]) >= 2 * 9 and "Traceback" not in done.stderr and "Warning" not in done.stderr
    assert strict((run / "evaluation.json").read_text(encoding="utf-8"))["evaluations"] == [document]
