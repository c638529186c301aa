"""The nano preset on this machine's CPU: validation loss by step, and the time it takes.

    python -m benchmarks.nano [--exp paper_bottleneck] [--out DIR]

A real run of `train` on the standard library's source. Times on shared machines mean little alone: a matrix product
timed before and after stands beside them as calibration.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.record import RESULTS, record


def calibration(size: int = 1024, repeats: int = 15) -> float:
    """GFLOP/s of a float32 matrix product, median over repeats."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description="The nano preset on this machine's CPU.")
    parser.add_argument("--exp", default="paper_bottleneck")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    before = calibration()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        start = time.perf_counter()
        subprocess.run(
            [
                *(sys.executable, "-m", "bottleneck_core", "train", "--size", "nano", "--exp", words.exp),
                *("--out-dir", str(run), "--device", "cpu"),
            ],
            check=True,
        )
        seconds = time.perf_counter() - start
        events = [json.loads(line) for line in (run / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    evals = [event for event in events if event["type"] == "eval"]
    train = [event for event in events if event["type"] == "train"]
    measured = {
        "exp": words.exp,
        "val_loss_by_step": {event["step"]: round(event["val_loss"], 4) for event in evals},
        "best_val_loss": min(event["val_loss"] for event in evals),
        "seconds_from_start_to_exit": round(seconds, 1),
        "tok_s_median": round(statistics.median(event["tok_s"] for event in train)),
        "threads": torch.get_num_threads(),
        "calibration_gflop_s_before_and_after": [round(before, 1), round(calibration(), 1)],
        "error_events": sum("error" in event for event in events),
    }
    print(record(f"nano_{words.exp.removeprefix('paper_')}", measured, out=words.out))


if __name__ == "__main__":
    main()
