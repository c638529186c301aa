"""Small run folders in the formats of earlier systems and in ours, built by code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

MODEL = {
    "attn_dim": 24,
    "attn_mode": "bottleneck",
    "block_size": 64,
    "d_ff": 256,
    "d_model": 128,
    "dropout": 0.0,
    "embed_dim": 128,
    "geo_dim": 16,
    "kv_head": None,
    "learned_temp": False,
    "mlp": "swiglu",
    "n_head": 4,
    "n_layer": 2,
    "null_attn": True,
    "rope": True,
    "rope_base": 10000.0,
    "sem_dim": 8,
    "tie_qk": False,
    "vocab_size": 101,
}
ARGS = {
    "mode": "train",
    "print_config": False,
    "size": "tiny",
    "exp": "paper_bottleneck",
    "layers": 2,
    "block": 64,
    "batch_size": 4,
    "attn_mode": "bottleneck",
    "no_rope": False,
    "rope": False,
    "tie_qk": True,
    "no_tie_qk": True,
    "null_attn": True,
    "no_null_attn": False,
    "no_learned_temp": True,
    "instrument": "full",
    "analysis_every": 10,
    "steps": 40,
}


def clock(second: float) -> str:
    """The wall time of a second of the run."""
    return f"2025-12-16T14:{int(second) // 60:02d}:{second % 60:06.3f}+01:00"


def write_lines(path: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """As Python's json writes them: bare NaN and Infinity."""
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def summary_text(results: tuple[int, float] | None, args: Mapping[str, Any] = ARGS) -> str:
    text = "# Run Summary\n\n- Created: `2025-12-16T14:30:00+01:00`\n- Command: `train.py --size tiny`\n"
    text += "- Size preset: `tiny`\n- Experiment: `paper_bottleneck`\n"
    for title, settings in (("Model Config", MODEL), ("Training Args", args)):
        text += f"\n## {title}\n\n```json\n{json.dumps(settings, indent=2)}\n```\n"
    if results:
        text += f"\n## Results\n\n- Last step: `{results[0]}`\n- Best val loss: `{results[1]:.6f}` (ppl `1.00`)\n"
    return text


def zero_based(folder: Path) -> Path:
    """The oldest format: steps from 0, every probe an error, a summary with results."""
    folder.mkdir(parents=True)
    events: list[dict[str, Any]] = [
        {"type": "meta", "step": 0, "argv": ["train.py"], "args": ARGS, "config": MODEL, "wall_time": clock(0)},
        {"type": "mem", "step": 0, "kv_ctx_bytes": 12288, "kv_128k_bytes": 24576000, "wall_time": clock(0)},
    ]
    for step in range(0, 41, 10):
        loss = 4 - step / 20 + (step == 40)
        events.append(
            {"type": "eval", "step": step, "train_loss": loss, "val_loss": loss + 1e-8, "wall_time": clock(step)}
        )
        events.append({"type": "analysis", "step": step, "error": "shape is invalid", "wall_time": clock(step)})
        if step < 40:
            train = {"type": "train", "step": step, "loss": loss, "ppl": 9.0, "tok_s": 100.0 + step}
            events.append(train | {"grad_clip_total_norm": 0.5, "wall_time": clock(step + 1)})
    write_lines(folder / "train.jsonl", events)
    (folder / "summary.md").write_text(summary_text((40, 2.5)), encoding="utf-8")
    return folder


def one_based(folder: Path) -> Path:
    """The later format: steps from 1, a sequence length that grows, other column names, Infinity and NaN."""
    folder.mkdir(parents=True)
    args = ARGS | {"grad_accum": 2, "steps": 1000, "instrument": "basic"}
    events: list[dict[str, Any]] = [
        {"type": "meta", "step": 0, "args": args, "config": MODEL, "wall_time": clock(0)},
        {"type": "eval", "step": 0, "train_loss": 5.0, "val_loss": 5.0, "wall_time": clock(1)},
    ]
    for step, seq_len in ((1, 16), (10, 16), (20, 32)):
        event = {"type": "train", "step": step, "loss": 5.0, "seq_len": seq_len, "gbs": 8, "ms_step": 7.0}
        events.append(event | {"grad_clip_norm": float("inf"), "wall_time": clock(step)})
    events.append({"type": "eval", "step": 20, "train_loss": 4.0, "val_loss": float("nan"), "wall_time": clock(21)})
    write_lines(folder / "train.jsonl", events)
    (folder / "summary.md").write_text(summary_text(None, args), encoding="utf-8")
    return folder
