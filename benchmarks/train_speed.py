"""How fast the four attention variants train beside a plain PyTorch GPT, and what they hold: real runs on one GPU.

    python -m benchmarks.train_speed --data tokens.bin [--what speed,chunk] [--batch-sizes 16,64] [--repeats 2]
        [--steps 150] [--modes paper_baseline,...] [--name train_speed] [--out DIR]

Each variant trains at size tiny as a user would start it (`--speed auto`: bf16 and compile on CUDA), the reference
(`reference_gpt`, SwiGLU) in a process of its own; they alternate, reference first and last. A run's number is the
median of the throughputs that it logged after its first half, evaluation and probes outside; a row's, the median of
its repeats. Parts of `--what`: `speed`; `chunk`, the largest batch with few logits at a time beside the default;
`gelu`, the reference and our baseline with nanoGPT's feed-forward layer, at the smallest batch; `fp32`, `--speed off`
of all at the smallest batch. What fails is listed under `errors`, and the rest goes on; the file is written after each
run. nanoGPT's numbers are of another day: orientation.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.record import RESULTS, record
from bottleneck_core.config import EXPERIMENTS, RunConfig
from bottleneck_core.memory import training_flops_per_token
from bottleneck_core.train.runtime import Runtime

REFERENCE = "reference"
PARTS = ("speed", "chunk", "gelu", "fp32")
LOSS_CHUNK = ["--loss-chunk", "4096"]
MFU_FORMULA = (
    "training_flops_per_token x tok_s / peak_flops; FLOPs of a token are 6 per weight that multiplies it (output "
    "embedding included) plus 6 x layers x block / 2 x (width of the scores + width of the weighted sum)"
)
NANOGPT_H200 = {
    "16 x 1,024": {"tok_s": 1_185_000, "peak_gib": 7.0},
    "64 x 1,024": {"tok_s": 1_251_000, "peak_gib": 26.1},
}
_MATMUL = 8192
_FOLDERS = re.compile(r"(?:/[\w.+-]+)+/")  # results are published, machines' folders are not


class RunFailed(Exception):
    """A measured process ended with an error; the end of what it said."""


def measure(
    exp: str, data: Path, folder: Path, extra: list[str], steps: int, batch_size: int, size: str = "tiny"
) -> dict[str, Any]:
    """One run of `train`; its logged throughputs, losses and peak memory. Raises RunFailed."""
    out = Path(tempfile.mkdtemp(prefix=exp, dir=folder)) / "run"
    words = ["train", "--size", size, "--exp", exp, "--data", str(data), "--data-format", "bin"]
    words += ["--vocab-size", "50257", "--out-dir", str(out), "--steps", str(steps), "--batch-size", str(batch_size)]
    words += ["--log-every", str(max(1, steps // 10)), "--eval-every", str(steps), "--eval-iters", "2"]
    words += ["--analysis-every", "0", "--instrument", "basic", "--save-every", str(steps), *extra]
    _finished("bottleneck_core", words)
    events = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    train = [event for event in events if event["type"] == "train"]
    late = train[len(train) // 2 :]
    return {
        "batch": [batch_size, RunConfig.resolve(size=size, exp=exp).block_size],
        "tok_s": round(statistics.median(event["tok_s"] for event in late)),
        "tok_s_all_late": [round(event["tok_s"]) for event in late],
        "step_ms": round(statistics.median(event["step_ms"] for event in late), 3),
        "peak_gib": round((late[-1]["device_peak_bytes"] or 0) / 2**30, 2),
        "first_loss": train[0]["loss"],
        "last_loss": train[-1]["loss"],
        "val_loss": next(event["val_loss"] for event in reversed(events) if event["type"] == "eval"),
        "runtime": json.loads((out / "manifest.json").read_text())["runtime"],
    }


def measure_reference(data: Path, extra: list[str], steps: int, batch_size: int, size: str = "tiny") -> dict[str, Any]:
    """The same of the reference. Raises RunFailed."""
    words = ["--data", str(data), "--size", size, "--steps", str(steps), "--batch-size", str(batch_size), *extra]
    return json.loads(_finished("benchmarks.reference_gpt", words).splitlines()[-1])


def _finished(module: str, words: list[str]) -> str:
    finished = subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True)
    if finished.returncode:
        said = _FOLDERS.sub("", "\n".join(finished.stderr.strip().splitlines()[-12:]))
        raise RunFailed(f"exit code {finished.returncode}: {said}")
    return finished.stdout


def matmul_flops(device: torch.device, repeats: int = 30) -> float:
    """FLOP/s of bf16 matrix products of random 8192 x 8192, median over repeats."""
    a, b = (torch.randn(_MATMUL, _MATMUL, device=device, dtype=torch.bfloat16) for _ in range(2))
    pairs = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        torch.mm(a, b)
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    rate = 2 * _MATMUL**3 / statistics.median(1e-3 * begin.elapsed_time(end) for begin, end in pairs[5:])
    del a, b
    torch.cuda.empty_cache()
    return rate


class Measurement:
    """The runs so far, by what was run; `save` is called with the document after each."""

    def __init__(self, words: argparse.Namespace, folder: Path, save: Callable[[dict[str, Any]], None]) -> None:
        self.words, self.folder, self._save = words, folder, save
        self._runs: dict[tuple[str, tuple[str, ...], int], list[dict[str, Any]]] = {}
        self._errors: list[dict[str, Any]] = []
        runtime = Runtime.choose(RunConfig.resolve(size=words.size, exp="paper_baseline"))
        self._peak = runtime.peak_flops
        self._matmul = matmul_flops(runtime.device) if runtime.device.type == "cuda" else None

    def run(self, name: str, extra: list[str], batch_size: int) -> None:
        words = self.words
        try:
            if name == REFERENCE:
                row = measure_reference(words.data, extra, words.steps, batch_size, words.size)
            else:
                row = measure(name, words.data, self.folder, extra, words.steps, batch_size, words.size)
            self._runs.setdefault((name, tuple(extra), batch_size), []).append(row)
        except Exception as error:  # whatever one run ends with, the others are measured
            row = {"error": f"{type(error).__name__}: {error}"}
            self._errors.append({"exp": name, "flags": extra, "batch_size": batch_size, **row})
        print(json.dumps({"exp": name, "flags": extra, "batch_size": batch_size, **row}), flush=True)
        self._save(self.document())

    def alternate(self, cases: list[tuple[str, list[str]]], batch_size: int) -> None:
        """All cases in turn, so often as is asked for; the first once more at the end where it is the reference."""
        for _ in range(self.words.repeats):
            for name, extra in cases:
                self.run(name, extra, batch_size)
        if cases[0][0] == REFERENCE:
            self.run(*cases[0], batch_size)

    def has(self, name: str, batch_size: int) -> bool:
        return (name, (), batch_size) in self._runs

    def document(self) -> dict[str, Any]:
        rows = [self._row(name, list(extra), batch) for name, extra, batch in self._runs]
        chunked = [row | {"of_default": self._of(row, row["exp"])} for row in rows if row["flags"] == LOSS_CHUNK]
        ours = [row for row in rows if row["exp"] != REFERENCE and row["flags"] in ([], ["--speed", "off"])]
        return {
            "size": self.words.size,
            "steps": self.words.steps,
            "mfu_formula": MFU_FORMULA,
            "peak_flops": self._peak,
            "matmul_8192_tflops": None if self._matmul is None else round(self._matmul / 1e12, 1),
            "reference": [row for row in rows if row["exp"] == REFERENCE],
            "runs": ours,
            "chunked": chunked,
            "gelu": [row for row in rows if row["exp"] != REFERENCE and "gelu" in row["flags"]],
            "errors": self._errors,
            "nanogpt_h200_another_day": NANOGPT_H200,
        }

    def _row(self, name: str, extra: list[str], batch: int) -> dict[str, Any]:
        repeats = self._runs[name, tuple(extra), batch]
        row: dict[str, Any] = {"exp": name, "flags": extra} | repeats[-1]
        rates = [each["tok_s"] for each in repeats]
        row["tok_s"], row["tok_s_repeats"] = round(statistics.median(rates)), rates
        row["step_ms"] = round(statistics.median(each["step_ms"] for each in repeats), 3)
        row["peak_gib"] = max((each["peak_gib"] or 0) for each in repeats)
        exp = "paper_baseline" if name == REFERENCE else name  # the reference's work is our baseline's
        mlp = "gelu" if "gelu" in extra else "swiglu"
        config = RunConfig.resolve(size=self.words.size, exp=exp, mlp=mlp)
        flops = training_flops_per_token(config, 50257)
        row["mflop_per_token"] = round(flops / 1e6, 1)
        fast = "off" not in extra
        row["mfu"] = round(flops * row["tok_s"] / self._peak, 4) if fast and self._peak else None
        row["of_matmul_rate"] = round(flops * row["tok_s"] / self._matmul, 4) if fast and self._matmul else None
        if name != REFERENCE:
            row["of_reference"] = self._of(row, REFERENCE, [] if extra == LOSS_CHUNK else extra)
        return row

    def _of(self, row: dict[str, Any], name: str, extra: list[str] | None = None) -> float | None:
        """The row's tokens a second over those of `name` at the same batch."""
        others = self._runs.get((name, tuple(extra or ()), row["batch"][0]))
        return round(row["tok_s"] / statistics.median(each["tok_s"] for each in others), 4) if others else None


def main() -> None:
    parser = argparse.ArgumentParser(description="Training throughput beside a plain PyTorch GPT, on one GPU.")
    parser.add_argument("--data", type=Path, required=True, help="token file of uint16 ids below 50257")
    parser.add_argument("--what", default="speed,chunk", help=f"parts: {','.join(PARTS)}")
    parser.add_argument("--batch-sizes", default="16,64")
    parser.add_argument("--modes", default=",".join(EXPERIMENTS))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--size", choices=["nano", "tiny"], default="tiny", help="nano: to try the script")
    parser.add_argument("--fp32", action="store_true", help="the part fp32, too")
    parser.add_argument("--name", default="train_speed", help="name of the result")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    what, modes = [*words.what.split(","), *(["fp32"] if words.fp32 else [])], words.modes.split(",")
    sizes = sorted(map(int, words.batch_sizes.split(",")))
    if unknown := [*(set(what) - set(PARTS)), *(set(modes) - set(EXPERIMENTS))]:
        parser.error(f"unknown: {', '.join(unknown)}; parts are {', '.join(PARTS)}, modes {', '.join(EXPERIMENTS)}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]

    def save(document: dict[str, Any]) -> None:
        record(words.name, document, gpus=gpus, out=words.out)

    with tempfile.TemporaryDirectory() as folder:
        measurement = Measurement(words, Path(folder), save)
        plain = [(name, []) for name in (REFERENCE, *modes)]
        if "speed" in what:
            for size in sizes:
                measurement.alternate(plain, size)
        if "chunk" in what:
            missing = [case for case in plain if not measurement.has(case[0], sizes[-1])]
            measurement.alternate([*missing, *((name, LOSS_CHUNK) for name in modes)], sizes[-1])
        for part, flags in (("gelu", ["--mlp", "gelu"]), ("fp32", ["--speed", "off"])):
            if part in what:
                names = modes if part == "fp32" else ["paper_baseline"]
                measurement.alternate([(name, flags) for name in (REFERENCE, *names)], sizes[0])
    print(words.out.joinpath(f"{words.name}.json").name)


if __name__ == "__main__":
    main()
