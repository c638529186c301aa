"""Training on all GPUs of one host beside one GPU: speed, the same curve, large models in shards, resumption.

    python -m benchmarks.multi_gpu --data tokens.bin [--parts curves,resume,large,scaling,curves_fp32] [--minutes 5.5]
        [--gpus N] [--name multi_gpu] [--out DIR] [--scratch DIR] [--quick]

Real runs of `train`, on several GPUs through torchrun, with `--speed auto` unless said otherwise. Parts, in this order:
`curves`, 100 steps of tiny at one global batch on one GPU (with its CUDA graph, and without one, which is the noise
to compare with), on all with DDP and with `--shard`: largest difference of the loss at any step; `resume`, the sharded
run of `curves` for ten steps more on one GPU and on all; `large`, some steps of the presets large and 1b with `--shard`
(two micro-steps each); `scaling`, tiny with 16 and with 64 x 1,024 tokens a GPU on one and on all, and the ratio of the
throughputs to that of one; `curves_fp32`, the first part in float32. A part that fails is an error in the file and the
others go on; what is not begun after --minutes is left out, and said. `--quick` runs nano on two CPU processes: that
the script works.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import RESULTS, record

EXP = "paper_bottleneck"
# Sequences a GPU and micro-step of the large presets; a block is 2,048 tokens.
LARGE = {"large": 8, "1b": 4}
_FOLDERS = re.compile(r"(?:/[\w.+-]+)+/")  # results are published, machines' folders are not


class RunFailed(Exception):
    """A measured run ended with an error or not in time; the end of what it said."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """Where runs are started: on `gpus` GPUs, in `folder`, until `deadline` (of `time.monotonic`)."""

    data: Path
    folder: Path
    gpus: int
    deadline: float
    quick: bool

    def train(self, name: str, processes: int, words: list[str]) -> Path:
        """A run of so many processes to its end; its folder. Raises RunFailed."""
        out = self.folder / name
        common = ["--data", str(self.data), "--out-dir", str(out), "--instrument", "basic", "--analysis-every", "0"]
        common += ["--data-format", "bin", "--vocab-size", "256" if self.quick else "50257"]
        return self._run(out, processes, [*common, *words, *(("--device", "cpu") if self.quick else ())])

    def resume(self, folder: Path, processes: int, words: list[str]) -> Path:
        """Go on with the run in `folder`. Raises RunFailed."""
        return self._run(folder, processes, ["--resume", str(folder), *words])

    def size(self, name: str) -> list[str]:
        return ["--size", "nano" if self.quick else name, "--exp", EXP]

    def steps(self, count: int) -> list[str]:
        """So many steps with evaluations and checkpoints at both ends only."""
        text = str(max(4, count // 20) if self.quick else count)
        return ["--steps", text, "--eval-every", text, "--save-every", text, "--eval-iters", "2"]

    def _run(self, out: Path, processes: int, words: list[str]) -> Path:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "bottleneck_core", "train", *words]
        limit = max(20.0, self.deadline - time.monotonic() + 60)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            said, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.terminate()  # torchrun ends its processes, which save
            said, _ = process.communicate()
            said += f"\nended after {limit:.0f} s"
        if process.returncode:
            lines = [line for line in said.strip().splitlines() if not line.startswith("step ")]
            raise RunFailed(f"exit code {process.returncode}: " + _FOLDERS.sub("", "\n".join(lines[-25:])))
        return out


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    parsed = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [event for event in parsed if event["type"] == kind]


def throughput(folder: Path) -> dict[str, Any]:
    """What a run logged: speed, in the second half of its train events; memory of the fullest GPU; losses."""
    train = events(folder, "train")
    late = train[len(train) // 2 :]
    runtime = json.loads((folder / "manifest.json").read_text())["runtime"]
    return {
        "tok_s": round(statistics.median(event["tok_s"] for event in late)),
        "step_ms": round(statistics.median(event["step_ms"] for event in late), 3),
        "mfu": late[-1]["mfu"],
        "peak_gib": round((late[-1]["device_peak_bytes"] or 0) / 2**30, 2),
        "first_loss": train[0]["loss"],
        "last_loss": train[-1]["loss"],
        "steps": train[-1]["step"] + 1,
        "runtime": {key: runtime.get(key) for key in ("world_size", "distributed", "amp", "compile", "cuda_graph")},
    }


def curves(host: Host, extra: list[str], name: str = "curve") -> dict[str, Any]:
    """The losses at one global batch, and the largest difference to those of one GPU."""
    words = [*host.size("tiny"), *host.steps(100), "--log-every", "1", "--batch-size", str(8 * host.gpus), *extra]
    ways = {"one": (1, []), "one_again": (1, ["--no-cuda-graph"]), "ddp": (host.gpus, [])}
    ways["shard"] = (host.gpus, ["--shard"])
    found: dict[str, Any] = {"global_batch": 8 * host.gpus, "losses": {}, "val_losses": {}}
    for way, (processes, more) in ways.items():
        folder = host.train(f"{name}_{way}", processes, [*words, *more])
        found["losses"][way] = [event["loss"] for event in events(folder, "train")]
        found["val_losses"][way] = [event["val_loss"] for event in events(folder, "eval")]
    one = found["losses"]["one"]
    found["largest_difference_to_one"] = {
        way: max(abs(a - b) for a, b in zip(one, losses, strict=True)) for way, losses in found["losses"].items()
    }
    return found


def resume(host: Host) -> dict[str, Any]:
    """Ten steps more of the sharded run of `curves`, from copies of its folder, on one GPU and on all."""
    saved = host.folder / "curve_shard"
    steps = len(events(saved, "train"))
    found: dict[str, Any] = {"from_step": steps, "checkpoint": "last.dcp", "losses": {}}
    for way, processes, more in (("all", host.gpus, ["--shard"]), ("one", 1, ["--no-shard"])):
        copy = host.folder / f"resume_{way}"
        shutil.copytree(saved, copy)
        host.resume(copy, processes, ["--steps", str(steps + 10), *more])
        found["losses"][way] = [event["loss"] for event in events(copy, "train") if event["step"] >= steps]
    pairs = zip(found["losses"]["all"], found["losses"]["one"], strict=True)
    found["largest_difference"] = max(abs(a - b) for a, b in pairs)
    return found


def large(host: Host) -> dict[str, Any]:
    """Some steps of large presets with `--shard`; throughput, memory, losses. One that fails is its own error."""
    found: dict[str, Any] = {}
    for size, batch in LARGE.items():
        words = [*host.size(size), *host.steps(24), "--log-every", "4", "--shard", "--grad-accum", "2"]
        try:
            folder = host.train(f"large_{size}", host.gpus, [*words, "--batch-size", str(batch * host.gpus)])
            found[size] = {"batch_a_gpu": batch, "grad_accum": 2} | throughput(folder)
        except RunFailed as error:
            found[size] = {"error": str(error)}
        shutil.rmtree(host.folder / f"large_{size}", ignore_errors=True)  # weights and moments of 1b are 17 GB
    return found


def scaling(host: Host) -> list[dict[str, Any]]:
    """Throughput at equal work a GPU on one and on all, and its ratio to one GPU's."""
    rows: list[dict[str, Any]] = []
    ways = {"one": (1, []), "one without a CUDA graph": (1, ["--no-cuda-graph"])}
    ways |= {"ddp": (host.gpus, []), "shard": (host.gpus, ["--shard"])}
    for batch, steps in ((16, 200), (64, 100)):
        one = None
        for way, (processes, more) in ways.items():
            words = [*host.size("tiny"), *host.steps(steps), "--log-every", "10", *more]
            words += ["--batch-size", str(2 if host.quick else batch * processes)]
            row: dict[str, Any] = {"way": way, "gpus": processes, "batch_a_gpu": batch}
            try:
                row |= throughput(host.train(f"scaling_{batch}_{len(rows)}", processes, words))
                one = row["tok_s"] if way == "one" else one
                row["ratio_to_one"] = None if one is None else round(row["tok_s"] / one, 3)
            except RunFailed as error:
                row["error"] = str(error)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


PARTS: dict[str, Callable[[Host], Any]] = {
    "curves": lambda host: curves(host, []),
    "resume": resume,
    "large": large,
    "scaling": scaling,
    "curves_fp32": lambda host: curves(host, ["--speed", "off"], "curve_fp32"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Training on all GPUs of one host beside one GPU.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--minutes", type=float, default=5.5, help="no part begins later")
    parser.add_argument("--gpus", type=int, default=torch.cuda.device_count())
    parser.add_argument("--name", default="multi_gpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--scratch", type=Path, help="where runs are written; 1b writes 40 GB on the way")
    parser.add_argument("--quick", action="store_true", help="nano, two processes on the CPU")
    words = parser.parse_args()
    gpus = 2 if words.quick else words.gpus
    if gpus < 2:
        parser.error(f"this machine has {gpus} GPUs: several are needed")
    os.environ.setdefault("OMP_NUM_THREADS", "4")  # torchrun would set 1, and says so
    deadline = time.monotonic() + 60 * words.minutes
    measured: dict[str, Any] = {"exp": EXP, "gpus": gpus, "seconds": {}, "errors": {}}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    with tempfile.TemporaryDirectory(dir=words.scratch) as folder:
        host = Host(data=words.data.resolve(), folder=Path(folder), gpus=gpus, deadline=deadline, quick=words.quick)
        for part in words.parts.split(","):
            begin = time.monotonic()
            if begin > deadline:
                measured["errors"][part] = f"not begun: {words.minutes} minutes were over"
                continue
            try:
                measured[part] = PARTS[part](host)
            except Exception as error:  # whatever it is, the other parts are worth having
                measured["errors"][part] = f"{type(error).__name__}: {error}"
            measured["seconds"][part] = round(time.monotonic() - begin, 1)
            print(part, measured["seconds"][part], measured["errors"].get(part, ""), flush=True)
            path = record(words.name, measured, gpus=names, out=words.out)
    print(path)


if __name__ == "__main__":
    main()
