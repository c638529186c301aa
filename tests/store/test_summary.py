"""summary.md: the fixed layout, and reading any."""

from __future__ import annotations

from pathlib import Path

import pytest

from bottleneck_core.store.summary import (
    Results,
    format_bytes,
    read_header,
    read_model_config,
    read_results,
    read_summary,
    read_training_args,
    write_summary,
)

EXPECTED = """# Run Summary

- Created: `2026-01-02T03:04:05+01:00`
- Out dir: `runs/a`
- Device: `cpu`
- Command: `train --data größe.bin`

## Model Config

```json
{
  "dropout": 0.0,
  "kv_head": null,
  "rope": true
}
```

## Training Args

```json
{
  "adam_eps": 1e-08,
  "lr": 0.0003
}
```
"""
RESULTS = """
## Results

- Last step: `6000`
- Best val loss: `4.334908` (ppl `76.32`)
- Files: `train.jsonl`, `analysis.h5` (if enabled), `analysis.png`, `best.pt`, `last.pt`
"""
MEMORY = """
## KV Cache Memory (batch=1)

- Baseline fp16 (standard attn) @ ctx=1024: `12.00MB`
- This run policy @ ctx=1024: `2.25MB`
- Compression vs fp16 baseline: `5.33×`
- This run policy @ 128k: `281.2MB`
"""


def written(path: Path, **more: object) -> str:
    write_summary(
        path,
        created="2026-01-02T03:04:05+01:00",
        out_dir="runs/a",
        device="cpu",
        command="train --data\ngröße.bin",
        model_config={"rope": True, "kv_head": None, "dropout": 0.0},
        training_args={"lr": 3e-4, "adam_eps": 1e-8},
        **({"size": None, "exp": None} | more),  # type: ignore[arg-type]
    )
    return path.read_text(encoding="utf-8")


def test_the_layout_with_what_is_known_so_far(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    kv = {
        "context": 1024,
        "baseline_fp16_bytes": 12582912,
        "policy_bytes": 2359296,
        "policy_128k_bytes": 294912000,
        "compression": 12582912 / 2359296,
    }
    assert written(path) == EXPECTED + "\n"
    assert written(path, last_step=0).endswith("Last step: `0`\n" + RESULTS.splitlines(True)[-1] + "\n")
    assert written(path, last_step=6000, best_val_loss=4.33490755) == EXPECTED + RESULTS + "\n"
    full = written(path, last_step=6000, best_val_loss=4.33490755, kv=kv, size="tiny", exp="paper_bottleneck")
    lines = "- Size preset: `tiny`\n- Experiment: `paper_bottleneck`\n"
    assert full == EXPECTED.replace("\n\n## Model", "\n" + lines + "\n## Model") + RESULTS + MEMORY + "\n"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.00KB"),
        (1769472, "1.69MB"),
        (9437184, "9.00MB"),
        (12582912, "12.00MB"),
        (294912000, "281.2MB"),
        (393216000, "375.0MB"),
        (884736000, "843.8MB"),
        (4718592000, "4.39GB"),
        (5 << 50, "5120.0TB"),
    ],
)
def test_sizes_have_two_decimals_below_100_and_one_from_there(count: int, text: str) -> None:
    assert format_bytes(count) == text


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    text = written(tmp_path / "summary.md", last_step=7, best_val_loss=2.5, size="nano")
    assert read_results(text) == Results(7, 2.5)
    assert read_model_config(text) == {"rope": True, "kv_head": None, "dropout": 0.0}
    assert read_training_args(text) == {"lr": 3e-4, "adam_eps": 1e-8}
    assert read_header(text) == {
        "Created": "2026-01-02T03:04:05+01:00",
        "Out dir": "runs/a",
        "Device": "cpu",
        "Command": "train --data größe.bin",
        "Size preset": "nano",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no summary at all",
        "## Results\n\n- Best val loss: `e-+`\n",
        "## Model Config\n\n```json\n{ half",
        "## Model Config\n\n```json\n[1]\n```\n## Training Args\n\n```json\n{x}\n```\n",
    ],
)
def test_broken_summaries_say_nothing(text: str) -> None:
    assert read_results(text) == Results(None, None)
    assert read_model_config(text) == {}
    assert read_training_args(text) == {}
    assert read_header(text) == {}


def test_absent_and_undecodable_files(tmp_path: Path) -> None:
    assert read_summary(tmp_path / "summary.md") == ""
    (tmp_path / "summary.md").write_bytes(b"## Results\r\n\r\n- Last step: `3`\r\n\xff")
    assert read_results(read_summary(tmp_path / "summary.md")).last_step == 3


def test_the_seeds_summary_is_rebuilt_line_for_line(tmp_path: Path, shared: Path) -> None:
    seed = (shared / "data" / "seed-run-summary.md").read_text(encoding="utf-8").replace("Ã—", "×")
    header = read_header(seed)
    write_summary(
        tmp_path / "summary.md",
        created=header["Created"],
        out_dir=header["Out dir"],
        device=header["Device"],
        command=header["Command"],
        size=header["Size preset"],
        exp=header["Experiment"],
        model_config=read_model_config(seed),
        training_args=read_training_args(seed),
        last_step=6000,
        best_val_loss=4.334908,
        kv={
            "context": 1024,
            "baseline_fp16_bytes": 6 * 1024 * 2 * 512 * 2,
            "policy_bytes": 6 * 1024 * 2 * 96 * 2,
            "policy_128k_bytes": 6 * 128_000 * 2 * 96 * 2,
            "compression": 512 / 96,
        },
    )
    assert (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines() == seed.splitlines()
