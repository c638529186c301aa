"""Memory of a training step: what `memory.training_memory` derives against the peak that real runs allocated.

    python -m benchmarks.training_memory [--data tokens.bin] [--out DIR]

Compared are the peaks that `train_speed` recorded (its results: size tiny, no GPU needed) and, with --data, those of
further shapes: each trains a few steps on one GPU as a user would start it. A peak is the largest number of allocated
bytes that the run logged; the derivation sees its configuration alone.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import RESULTS, record
from bottleneck_core.config import RunConfig
from bottleneck_core.memory.training import training_memory

VOCABULARY = 50257
SOURCES = {
    "train_speed_first": ("fp32",),
    "train_speed": ("bf16-compiled",),
    "train_speed_modes": ("bf16-compiled",),
    "train_speed_64": ("bf16-compiled",),
}
# Size, experiment and flags; the shapes differ in what dominates: logits, feed-forward layers, weights, checkpoints.
CASES: list[tuple[str, str, list[str]]] = [
    ("small", "paper_bottleneck", []),
    ("small", "paper_decoupled", ["--d-ff", "1536", "--batch-size", "16"]),
    ("tiny", "paper_baseline", ["--d-ff", "4096"]),
    ("tiny", "paper_gqa", ["--block", "2048", "--batch-size", "4"]),
    ("small", "paper_baseline", ["--speed", "off"]),
    ("small", "paper_bottleneck", ["--speed", "off", "--batch-size", "4"]),
    ("tiny", "paper_decoupled", ["--speed", "off", "--grad-checkpoint"]),
    ("tiny", "paper_bottleneck", ["--speed", "off", "--d-ff", "512", "--grad-accum", "2"]),
]


def recorded() -> list[dict[str, Any]]:
    """The runs of `SOURCES` beside what is derived for them; in float32 nothing has changed since the first."""
    rows = []
    for name, modes in SOURCES.items():
        for run in json.loads((RESULTS / f"{name}.json").read_text())["measured"]["runs"]:
            mode = "fp32" if "off" in run["flags"] else "bf16-compiled"
            if mode not in modes:
                continue
            config = RunConfig.resolve(size="tiny", exp=run["exp"], batch_size=run["batch"][0])
            derived = training_memory(config, VOCABULARY, mode=mode).total
            case = {"size": "tiny", "exp": run["exp"], "batch": run["batch"], "flags": run["flags"], "mode": mode}
            rows.append(case | {"from": name} | _compared(round(run["peak_gib"] * 2**30), derived))
    return rows


def _compared(measured: int, derived: int) -> dict[str, Any]:
    return {"measured": measured, "derived": derived, "relative_error": round(derived / measured - 1, 4)}


def measure(size: str, exp: str, flags: list[str], data: Path, folder: Path) -> dict[str, Any]:
    """The peak of one run of twelve steps, and what was derived for it."""
    out = folder / "_".join([size, exp, *flags]).replace("--", "")
    words = ["train", "--size", size, "--exp", exp, "--data", str(data), "--data-format", "bin"]
    words += ["--vocab-size", str(VOCABULARY), "--out-dir", str(out), "--steps", "12", "--log-every", "4"]
    words += ["--eval-every", "12", "--eval-iters", "1", "--analysis-every", "0", "--instrument", "basic", *flags]
    finished = subprocess.run([sys.executable, "-m", "bottleneck_core", *words], capture_output=True, text=True)
    case = {"size": size, "exp": exp, "flags": flags}
    if finished.returncode:
        return {**case, "exit_code": finished.returncode, "error": finished.stderr[-800:]}
    events = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    measured = max(event["device_peak_bytes"] for event in events if event["type"] == "train")
    config = RunConfig(**json.loads((out / "config.json").read_text()))
    mode = "fp32" if "off" in flags else "bf16-compiled"
    derived = training_memory(config, VOCABULARY, mode=mode).total
    return {**case, "mode": mode} | _compared(measured, derived)


def main() -> None:
    parser = argparse.ArgumentParser(description="Derived memory of a training step against measured peaks.")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    rows = recorded()
    with tempfile.TemporaryDirectory() as folder:
        for size, exp, flags in CASES if words.data else ():
            rows.append(measure(size, exp, flags, words.data, Path(folder)))
    for row in rows:
        print(json.dumps(row))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(record("training_memory", {"rows": rows}, gpus=gpus, out=words.out))


if __name__ == "__main__":
    main()
