"""How soon the command line answers, and how soon a run trains: from the start of the process, against goals.

    python -m benchmarks.start_time [--repeats 5] [--out DIR]

`--help`, `kv` and `train --help` until they end (goal 0.5 s; the first two must not load torch), and `train` at size
nano on the CPU until its first train event is in train.jsonl (goal 10 s; the corpus is prepared beforehand). Medians,
with files in the system's cache, between two calibrations: on a shared machine the clock says less than the processor
time beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.calibration import calibration, measured
from benchmarks.record import RESULTS, record

CASES = {  # words, and whether they may load torch
    "--help": (["--help"], False),
    "kv": (["kv", "--size", "tiny", "--exp", "paper_bottleneck", "--context", "128k"], False),
    "train --help": (["train", "--help"], True),
}
HEAVY = ("torch", "pandas", "h5py", "numpy", "matplotlib", "plotly", "streamlit", "duckdb", "pydantic", "tyro", "rich")
ANSWER_GOAL_S, TRAIN_GOAL_S = 0.5, 10.0
_PATIENCE_S = 120.0
_ROOT = Path(__file__).resolve().parents[1]
_LOADED = (
    "import atexit, sys; "
    "atexit.register(lambda: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)); "
    "from bottleneck_core.cli import main; raise SystemExit(main(sys.argv[1:]))"
)


def answer(words: list[str], folder: Path) -> tuple[float, float]:
    """Seconds, and seconds of processor time, until a command has answered and ended."""
    start, cpu = time.perf_counter(), _children()
    subprocess.run(_command(words), cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start, _children() - cpu


def loaded(words: list[str], folder: Path) -> list[str]:
    """Which heavy packages a command has loaded when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED, *words],
        cwd=folder,
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    modules = done.stderr.splitlines()[-1].split()
    return [name for name in HEAVY if name in modules]


def first_event(folder: Path) -> tuple[float, float]:
    """Seconds until a nano run has written its first train event; processor time is that of its whole two steps."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "run"
    words = ["train", "--size", "nano", "--exp", "paper_bottleneck", "--steps", "2", "--device", "cpu"]
    start, cpu = time.perf_counter(), _children()
    process = subprocess.Popen(
        _command([*words, "--out-dir", str(out)]), cwd=folder, env=_environment(), stdout=subprocess.DEVNULL
    )
    events, seconds = out / "train.jsonl", None
    while seconds is None and process.poll() is None and time.perf_counter() - start < _PATIENCE_S:
        if events.exists() and b'"type":"train"' in events.read_bytes().replace(b" ", b""):
            seconds = time.perf_counter() - start
        time.sleep(0.005)
    if process.wait(_PATIENCE_S) or seconds is None:
        raise RuntimeError(f"train ended with {process.returncode} and logged no step that was seen")
    return seconds, _children() - cpu


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "bottleneck_core", *words]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(_ROOT)}


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description="From the start of the process to an answer.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    found: dict[str, Any] = {"calibration_before": calibration(), "cases": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case, (command, may_load_torch) in CASES.items():
            answer(command, folder)  # byte code and the system's cache
            modules = loaded(command, folder)
            times = measured(lambda command=command: answer(command, folder), words.repeats)
            row = {"case": case, "goal_seconds": ANSWER_GOAL_S, **times, "loads": modules}
            row["loads_torch_against_the_rule"] = "torch" in modules and not may_load_torch
            found["cases"].append(row)
            print(json.dumps(row), flush=True)
        prepare = _command(["prepare", "python-stdlib", "--tokenizer", "byte"])
        subprocess.run(prepare, cwd=folder, env=_environment(), stdout=subprocess.DEVNULL, check=True)
        times = measured(lambda: first_event(folder), words.repeats)
        found["cases"].append({"case": "train, first event", "goal_seconds": TRAIN_GOAL_S, **times})
    for row in found["cases"]:
        row["goal_met"] = row["median_ms"] <= 1e3 * row["goal_seconds"]
    found["calibration_after"] = calibration()
    print(json.dumps(found["cases"][-1]))
    print(record("start_time", found, out=words.out).name)


if __name__ == "__main__":
    main()
