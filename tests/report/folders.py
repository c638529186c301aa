"""Run folders for reports: curves whose values are known, and probes by layer and head."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck_core.config import RunConfig
from bottleneck_core.store.analysis import AnalysisWriter

LAYERS, HEADS, T = 4, 4, 16
ATTN = ("entropy", "local_mass", "topk_mass", "null_mass", "erank")
CHOSEN = (3, 1)  # the head with an effective rank and a map


def run_folder(root: Path, name: str, *, loss: float = 2.0, exp: str = "paper_bottleneck", **settings: Any) -> Path:
    """A finished run of 100 steps with losses `loss` + 3 exp(-step / 30), the least at the end; no analysis."""
    folder = root / name
    folder.mkdir(parents=True)
    config = RunConfig.resolve(size="nano", exp=exp, steps=100, **settings).model_dump(mode="json")
    (folder / "config.json").write_text(json.dumps(config))
    manifest = {"created": "2026-01-02T03:04:05+00:00", "n_params": 1_234_567, "ended": {"step": 100}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "summary.md").write_text("# Run Summary\n")
    events: list[dict[str, Any]] = [{"type": "meta", "step": 0, "config": config}]
    for step in range(101):
        value = loss + 3 * math.exp(-step / 30)
        if step % 20 == 0:
            events.append({"type": "eval", "step": step, "train_loss": value, "val_loss": value + 0.05})
        if step < 100:
            tokens = (step + 1) * int(config["batch_size"]) * int(config["block_size"])
            events.append({"type": "train", "step": step, "loss": value, "tok_s": 1000.0, "tokens": tokens})
    events.append({"type": "done", "step": 100, "reason": "completed"})
    stamped = ({**e, "wall_time": f"2026-01-02T03:{i // 60:02d}:{i % 60:02d}+00:00"} for i, e in enumerate(events))
    (folder / "train.jsonl").write_text("".join(json.dumps(event) + "\n" for event in stamped))
    return folder


def add_analysis(folder: Path, steps: Sequence[int] = (0, 50, 100), *, null: bool = True, seed: int = 0) -> None:
    """analysis.h5 with random values; effective rank and a map of one head alone."""
    rng = np.random.default_rng(seed)
    with AnalysisWriter.create(
        folder / "analysis.h5",
        n_layer=LAYERS,
        n_head=HEADS,
        attn_metrics=ATTN,
        weight_metrics=("redundancy",),
        chosen=[CHOSEN],
        map_size=T,
        probe_tokens=np.arange(2 * T).reshape(2, T),
        attrs={"topk": 8, "local_window": 32},
    ) as writer:
        for step in steps:
            values = {name: 0.2 + 0.5 * rng.random((LAYERS, HEADS)) for name in ATTN}
            values["null_mass"] *= null
            rank = np.full((LAYERS, HEADS), np.nan)
            rank[CHOSEN] = 5 + rng.random()
            weights = np.tril(rng.random((T, T)))
            writer.append(
                step,
                attn={**values, "erank": rank},
                weights={"redundancy": np.full(LAYERS, 0.3)},
                maps={CHOSEN: (0.9 * weights / weights.sum(axis=1, keepdims=True)).astype(np.float16)},
                svd={CHOSEN: rng.random(T)},
            )
