"""The command line: flags against presets, JSON documents, and mistakes as one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bottleneck_core.cli import main
from bottleneck_core.cli.flags import read_flags
from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def given(*words: str) -> dict:
    return read_flags(words, prog="train", description="", switches=("print_config",))[0]


def test_dashes_underscores_spaces_and_equals_are_the_same() -> None:
    for words in (["--grad-clip", "2"], ["--grad_clip=2"], ["--grad-clip=2"], ["--grad_clip", "2"]):
        assert given(*words) == {"grad_clip": "2"}


def test_booleans_and_empty_values() -> None:
    assert given("--no-rope", "--null-attn") == {"rope": False, "null_attn": True}
    assert given("--kv-head", "none") == {"kv_head": None}
    assert given("--resume") == given("--resume=auto") == {"resume": "auto"}
    assert given("--resume", "runs/x") == {"resume": "runs/x"}
    assert given("--resume", "--steps", "3") == {"resume": "auto", "steps": "3"}


def test_every_setting_is_a_flag() -> None:
    for name, field in RunConfig.model_fields.items():
        if name == "given":
            continue
        flag = {"n_layer": "layers", "block_size": "block"}.get(name, name).replace("_", "-")
        words = [f"--{flag}"] if field.annotation is bool else [f"--{flag}", "1"]
        assert set(given(*words)) == {name}


def test_explicit_flag_equal_to_the_default_beats_a_preset() -> None:
    settings = given("--size=tiny", "--exp=paper_bottleneck", "--batch-size=8", "--no-null-attn")
    config = RunConfig.resolve(**settings)
    assert (config.batch_size, config.null_attn, config.steps) == (8, False, 6000)


def test_seed_command_line_prints_the_seeds_configuration(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (shared / "data/seed-run-summary.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in text.split("```json\n")[1:]]
    model, args = map(json.loads, blocks)
    command = next(line for line in text.splitlines() if line.startswith("- Command")).split("`")[1]
    code, out, err = run(capsys, *command.split()[1:], "--print-config")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert document["model"] == model
    skip = {"mode", "print_config"}
    assert {k: v for k, v in document["training_args"].items() if k not in skip} == {
        k: v for k, v in args.items() if k not in skip
    }
    assert document["memory"] == {
        "baseline_fp16_bytes": 12582912,
        "policy_bytes": 2359296,
        "policy_128k_bytes": 294912000,
        "compression": 5.333333,
    }
    assert document["n_params"] == 45800112


def test_paper_all_prints_four_configurations(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "train", "--size", "small", "--exp", "paper_all", "--print-config")
    assert [document["n_params"] for document in json.loads(out)] == [
        151882128,
        128882448,
        127555344,
        141265296,
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "--grad-clip", "-1"], "--grad-clip must be >= 0, got -1"),
        (["train", "--steps"], "--steps needs a value"),
        (["train", "--stps", "3"], "unknown flag --stps: did you mean --steps?"),
        (["train", "--rope=yes"], "--rope takes no value"),
        (["train", "--lr", "1", "--lr", "2"], "--lr is given twice with different values"),
        (["train", "600"], "'600' stands alone"),
        (["prepare", "nothing"], "invalid choice 'nothing'"),
        (["prepare", "files", "nowhere/*.md"], "nowhere/*.md"),
        (["runs", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_on_stderr(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ") and sentence in err and err.count("\n") == 1, err


def test_unknown_command_and_overview(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["dance"])
    assert exit.value.code == 2
    assert "unknown command dance: choose one of prepare, train, sample" in capsys.readouterr().err
    code, out, _ = run(capsys, "--help")
    assert code == 0 and "train an instrumented run" in out


@pytest.mark.parametrize("command", ["train", "prepare", "runs", "jobs", "serve", "demo"])
def test_help_of_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    assert "--help" in capsys.readouterr().out


def test_help_shows_the_defaults_of_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--size", "nano", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "steps (default: 600)" in text and "(default: byte)" in text


def test_runs_lists_foreign_folders(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "runs", str(shared / "foreign_runs"), "--json")
    rows = {row["id"]: row for row in json.loads(out)}
    assert code == 0 and len(rows) == 6
    assert rows["tiny_bottleneck"]["best_val_loss"] == pytest.approx(4.334908, abs=5e-7)
    assert rows["tiny_bottleneck"]["kv_bytes_128k"] == 294912000
    assert set(rows["tiny_bottleneck"]) == {
        *("id", "path", "status", "attn_mode", "size", "exp", "last_step"),
        *("best_val_loss", "best_val_step", "n_params", "kv_bytes_128k", "errors"),
    }
    assert any("61" in error for error in rows["tiny_bottleneck"]["errors"])
    code, table, _ = run(capsys, "runs", str(shared / "foreign_runs"))
    assert code == 0 and "4.3349" in table and "281 MiB" in table


def test_import_and_print_config_load_no_torch() -> None:
    code = (
        "import sys, bottleneck_core as bc\n"
        "from bottleneck_core.cli import main\n"
        "assert 'pandas' not in sys.modules and 'pydantic' not in sys.modules\n"
        "bc.RunConfig.resolve(size='nano'); main(['train', '--size', 'nano', '--print-config'])\n"
        "heavy = {'torch', 'duckdb', 'plotly', 'streamlit', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr


def test_public_names_are_there() -> None:
    import bottleneck_core as bc

    for name in bc.__all__:
        assert getattr(bc, name) is not None
    with pytest.raises(AttributeError):
        _ = bc.nothing
    with pytest.raises(UserError):
        bc.load_runs("nowhere")
