"""What the probes cost a run: their share of its time, the seconds of one, and whether steps slow down beside them.

    python -m benchmarks.instrumentation --data tokens.bin [--exp paper_decoupled] [--steps 400] [--repeats 1]
        [--batch-size 16] [--size tiny] [--out DIR]

Real `train` runs at size tiny, 16 x 1,024: `full` and `basic` with a probe every 100 steps, `none` (basic without
probes), and `off`, which writes no events. Between two train events of a run, wall time less the steps' own time
(`step_ms`, whose clock stands still meanwhile) is what probes and logging took; evaluation and saving are put at the
ends, outside. The share is that time over the wall time, both over stretches of 100 steps with one probe each.
Beside it stands the cruder comparison: seconds of the whole processes, where start and compilation weigh most.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import RESULTS, record
from bottleneck_core.config import EXPERIMENTS

EVERY = 100
VARIANTS = {
    "full": ["--instrument", "full", "--analysis-every"],
    "basic": ["--instrument", "basic", "--analysis-every"],
    "none": ["--instrument", "basic", "--analysis-every", "0"],
    "off": ["--instrument", "off"],
}
METHOD = "wall time between train events less steps x step_ms, over that wall time; stretches with one probe each"


def run(variant: str, words: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run of `train`: seconds of its process, and what its events say."""
    out, every = Path(tempfile.mkdtemp(prefix=variant, dir=folder)) / "run", str(words.every)
    flags = VARIANTS[variant] + ([every] if VARIANTS[variant][-1] == "--analysis-every" else [])
    command = [sys.executable, "-m", "bottleneck_core", "train", "--size", words.size, "--exp", words.exp]
    command += ["--data", str(words.data), "--data-format", "bin", "--vocab-size", "50257", "--out-dir", str(out)]
    command += [
        "--batch-size",
        str(words.batch_size),
        "--steps",
        str(words.steps),
        "--log-every",
        str(words.every // 2),
    ]
    command += ["--eval-every", str(words.steps), "--eval-iters", "2", "--save-every", str(words.steps), *flags]
    start = time.perf_counter()
    finished = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if finished.returncode:
        lines = finished.stderr.strip().splitlines()
        return {"variant": variant, "error": f"exit code {finished.returncode}: {lines[-1] if lines else ''}"}
    row: dict[str, Any] = {"variant": variant, "process_seconds": round(seconds, 2)}
    events = out / "train.jsonl"
    if events.exists():
        row |= cost([json.loads(line) for line in events.read_text().splitlines()], words.every)
    return row


def cost(events: list[dict[str, Any]], every: int) -> dict[str, Any]:
    """What lies between the steps, in stretches of `every` steps that have a probe in their middle if the run probes.

    The first half stretch is left out: caches fill, and the trainer tidies up after its first step.
    """
    train = {event["step"]: event for event in events if event["type"] == "train"}
    stretches = []  # (wall seconds, seconds of the steps alone)
    for start in range(every // 2, max(train), every):
        if start in train and start + every in train:
            inside = [step for step in train if start <= step <= start + every]
            steps = sum((step - last) * train[step]["step_ms"] for last, step in itertools.pairwise(inside))
            stretches.append((_seconds(train[start], train[start + every]), 1e-3 * steps))
    extra = [wall - steps for wall, steps in stretches]
    late = [event for step, event in train.items() if step > every // 2]
    found = {
        "step_ms": round(statistics.median(event["step_ms"] for event in late), 3),
        "tok_s": round(statistics.median(event["tok_s"] for event in late)),
        "between_steps_seconds": [round(each, 3) for each in extra],
        "share_of_wall": round(sum(extra) / sum(wall for wall, _ in stretches), 4),
        "probe_seconds": None,
    }
    if any(event["type"] == "analysis" for event in events):
        found["probe_seconds"] = round(statistics.median(extra), 3)
    return found


def _seconds(before: dict[str, Any], after: dict[str, Any]) -> float:
    begin, end = (datetime.fromisoformat(event["wall_time"]) for event in (before, after))
    return (end - begin).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description="What the probes cost a run.")
    parser.add_argument("--data", type=Path, required=True, help="token file of uint16 ids below 50257")
    parser.add_argument("--exp", choices=EXPERIMENTS, default="paper_decoupled")
    parser.add_argument("--size", choices=["nano", "tiny"], default="tiny")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--every", type=int, default=EVERY, help="steps between probes")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--name", default="instrumentation", help="name of the result")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    if words.steps < 2 * words.every:
        parser.error(f"--steps {words.steps} holds too few probes: give at least {2 * words.every}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    rows: list[dict[str, Any]] = []
    settings = {name: getattr(words, name) for name in ("size", "exp", "batch_size", "steps", "every")}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(words.repeats):
            for variant in words.variants.split(","):
                rows.append(run(variant, words, Path(folder)))
                print(json.dumps(rows[-1]), flush=True)
                record(words.name, {**settings, "method": METHOD, "runs": rows}, gpus=gpus, out=words.out)
    print(f"{words.name}.json")


if __name__ == "__main__":
    main()
