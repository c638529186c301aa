"""How fast ours trains on the CPU beside a plain PyTorch GPT: nano and tiny, float32, neither compiled.

    python -m benchmarks.cpu_training [--threads 2] [--repeats 9] [--sizes nano,tiny] [--out DIR]

The trainer's own step (baseline, SwiGLU) and that of the reference (`reference_gpt`) take turns in this process, ours a
second time without rotary positions and temperatures, which the reference has not: what those cost. They have
batches of one shape from the same made-up tokens: nano 16 x 256 of a vocabulary of 256, tiny 4 x 256 of 50,257 (its
1,024 would only take longer). A turn counts if both had their cores: others' work on the machine costs two threads that
wait for each other far more than its share. Medians over turns; the ratio is the median of the turns' own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.calibration import calibration, calm
from benchmarks.record import RESULTS, record
from benchmarks.train_parts import REFERENCE, Step, our_step, reference_step

Taker = tuple[str, tuple[str, ...]]  # whose step it is, and its flags

EXP = "paper_baseline"
SHAPES = {"nano": (16, 256, 256, 4), "tiny": (4, 256, 50257, 1)}  # batch, block, vocabulary, steps a turn
PLAIN = ("--no-rope", "--no-learned-temp")
_CORES_HAD = 0.9  # processor time over time and threads, at least
_PATIENCE = 4  # disturbed turns for each that counts, at most


def timed(step: Step, steps: int) -> tuple[float, float]:
    """Seconds of a step by the clock, and of processor time over all threads."""
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return (time.perf_counter() - start) / steps, (time.process_time() - cpu) / steps


def compare(size: str, repeats: int, folder: Path) -> list[dict[str, Any]]:
    """The rows of the reference and of ours at one size: medians of the turns in which both had their cores."""
    batch_size, block, vocab, steps = SHAPES[size]
    tokens = np.random.default_rng(0).integers(0, vocab, 200_000).astype(np.uint16)
    settings = {"block_size": block, "vocab_size": vocab, "device": "cpu", "tokenizer": "byte"}
    plain = settings | {"rope": False, "learned_temp": False}
    takers = {
        (REFERENCE, ()): reference_step(tokens, size, batch_size, torch.device("cpu"), vocab, block),
        (EXP, ()): our_step(EXP, tokens, size, batch_size, folder, **settings),
        (EXP, PLAIN): our_step(EXP, tokens, size, batch_size, folder, **plain),
    }
    for step in takers.values():
        timed(step, 2)
    turns: list[dict[Taker, tuple[float, float]]] = []
    disturbed = 0
    while len(turns) < repeats and disturbed < _PATIENCE * repeats:
        calm()
        turn = {taker: timed(step, steps) for taker, step in takers.items()}
        if all(cpu > _CORES_HAD * torch.get_num_threads() * clock for clock, cpu in turn.values()):
            turns.append(turn)
        else:
            disturbed += 1
    if not turns:
        raise RuntimeError("others keep the cores busy: measure on a calmer machine")
    rows = []
    for taker in takers:
        clock, cpu = (statistics.median(turn[taker][i] for turn in turns) for i in range(2))
        row: dict[str, Any] = {"exp": taker[0], "flags": ["--size", size, *taker[1]], "batch": [batch_size, block]}
        row |= {"tok_s": round(batch_size * block / clock), "step_ms": round(1e3 * clock, 1)}
        row |= {"step_cpu_ms": round(1e3 * cpu, 1), "step_ms_all": [round(1e3 * turn[taker][0], 1) for turn in turns]}
        if taker[0] != REFERENCE:
            ratios = [turn[REFERENCE, ()][0] / turn[taker][0] for turn in turns]
            row["of_reference"] = round(statistics.median(ratios), 3)
        rows.append(row | {"disturbed_turns_left_out": disturbed})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Training on the CPU beside a plain PyTorch GPT.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sizes", default=",".join(SHAPES))
    parser.add_argument("--name", default="cpu_training", help="name of the result")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    found: dict[str, Any] = {"threads": words.threads, "calibration_before": calibration()}
    found |= {"reference": [], "runs": []}
    path = words.out
    with tempfile.TemporaryDirectory() as folder:
        for size in words.sizes.split(","):
            reference, *ours = compare(size, words.repeats, Path(folder))
            found["reference"].append(reference)
            found["runs"] += ours
            found["calibration_after"] = calibration()
            print(*map(json.dumps, (reference, *ours)), sep="\n", flush=True)
            path = record(words.name, found, out=words.out)
    print(path.name)


if __name__ == "__main__":
    main()
