"""Training throughput of the four attention variants, by real runs of `train` on one GPU.

    python -m benchmarks.train_speed --data tokens.bin [--out DIR] [--batch-size 16] [--steps 200]

Each variant trains at size tiny as a user would start it (`--speed auto`: bf16 and compile on CUDA); the number is the
median of the throughputs that the run itself logged after its first half, evaluation and probes outside. The references
were measured on the same kind of GPU on another day: orientation, not a comparison.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import RESULTS, record
from bottleneck_core.config import EXPERIMENTS, RunConfig
from bottleneck_core.memory import training_flops_per_token

REFERENCES = {
    "the seed's script, fp32, 16 x 1,024": {"baseline": 122_700, "bottleneck": 111_000, "decoupled": 103_300},
    "nanoGPT, compiled, bf16, 16 x 1,024": {"baseline": 1_185_000},
    "padded-vocabulary prototype, compiled, bf16, 16 x 1,024": {
        "baseline": 1_076_000,
        "bottleneck": 1_145_000,
        "decoupled": 1_148_000,
    },
}


def measure(exp: str, data: Path, folder: Path, extra: list[str], steps: int, batch_size: int) -> dict[str, Any]:
    """One run; its logged throughputs, losses and peak memory."""
    out = folder / f"{exp}_{'_'.join(extra) or 'auto'}".replace("--", "")
    words = [
        *("train", "--size", "tiny", "--exp", exp, "--data", str(data), "--data-format", "bin"),
        *(
            "--vocab-size",
            "50257",
            "--out-dir",
            str(out),
            "--steps",
            str(steps),
            "--batch-size",
            str(batch_size),
        ),
        *("--log-every", str(max(1, steps // 10)), "--eval-every", str(steps), "--eval-iters", "2"),
        *("--analysis-every", "0", "--instrument", "basic", "--save-every", str(steps), *extra),
    ]
    finished = subprocess.run([sys.executable, "-m", "bottleneck_core", *words], capture_output=True, text=True)
    if finished.returncode:
        return {
            "exp": exp,
            "flags": extra,
            "exit_code": finished.returncode,
            "error": finished.stderr[-1500:],
        }
    events = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    train = [event for event in events if event["type"] == "train"]
    late = train[len(train) // 2 :]
    config = RunConfig.resolve(size="tiny", exp=exp)
    tok_s = statistics.median(event["tok_s"] for event in late)
    return {
        "exp": exp,
        "flags": extra,
        "batch": [batch_size, config.block_size],
        "tok_s": round(tok_s),
        "tok_s_all_late": [round(event["tok_s"]) for event in late],
        "step_ms": round(statistics.median(event["step_ms"] for event in late), 3),
        "mfu": late[-1]["mfu"],
        "mflop_per_token": round(training_flops_per_token(config, 50257) / 1e6, 1),
        "peak_gib": round((late[-1]["device_peak_bytes"] or 0) / 2**30, 2),
        "first_loss": train[0]["loss"],
        "last_loss": train[-1]["loss"],
        "runtime": json.loads((out / "manifest.json").read_text())["runtime"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Training throughput of the four attention variants on one GPU.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--fp32", action="store_true", help="also measure --speed off")
    words = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for extra in ([], ["--speed", "off"]) if words.fp32 else ([],):
            for exp in EXPERIMENTS:
                runs.append(measure(exp, words.data, Path(folder), extra, words.steps, words.batch_size))
                print(json.dumps(runs[-1]), flush=True)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    path = record("train_speed", {"runs": runs, "references_tok_s": REFERENCES}, gpus=gpus, out=words.out)
    print(path)


if __name__ == "__main__":
    main()
