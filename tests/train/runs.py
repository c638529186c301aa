"""Small runs for the tests: a token file, flags of a tiny model, and the trainer as a real process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck_core.cli import main

VARIANTS = {
    "standard": ["--attn-mode", "standard"],
    "gqa": ["--attn-mode", "gqa", "--kv-head", "2", "--attn-dim", "32", "--null-attn"],
    "bottleneck": ["--attn-mode", "bottleneck", "--attn-dim", "16", "--null-attn"],
    "decoupled": [
        *("--attn-mode", "decoupled", "--attn-dim", "24", "--sem-dim", "8", "--geo-dim", "16"),
        *("--null-attn", "--tie-qk"),
    ],
}
SMALL = {
    "layers": 2,
    "d-model": 32,
    "embed-dim": 32,
    "n-head": 4,
    "d-ff": 48,
    "block": 32,
    "batch-size": 4,
    "steps": 12,
    "lr": 3e-3,
    "eval-every": 4,
    "eval-iters": 2,
    "log-every": 1,
    "analysis-every": 6,
    "vocab-size": 64,
    "device": "cpu",
}
# What may differ between two runs that computed the same.
TIMES = {"wall_time", "tok_s", "step_ms", "mfu"}


def write_tokens(path: Path, n: int = 6000) -> Path:
    """Ids below 64 with structure to learn: each token depends on the one before it."""
    rng = np.random.default_rng(0)
    tokens = np.zeros(n, dtype=np.uint16)
    for i in range(1, n):
        tokens[i] = (5 * int(tokens[i - 1]) + int(rng.integers(0, 3))) % 64
    np.save(path, tokens)
    return path


def flags(data: Path, out: Path, variant: str = "bottleneck", **changes: Any) -> list[str]:
    """The command line of a small run, as words after `train`."""
    settings = SMALL | {name.replace("_", "-"): value for name, value in changes.items()}
    words = [f"--{name}={value}" for name, value in settings.items() if value is not None]
    return [*words, *VARIANTS[variant], "--data", str(data), "--out-dir", str(out)]


def environment(**more: str) -> dict[str, str]:
    """One thread: the children share two cores, and equal thread counts give equal bits."""
    root = str(Path(__file__).resolve().parents[2])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"} | more


def start(words: list[str], **more: Any) -> subprocess.Popen[str]:
    """`train` as a process whose standard output is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "bottleneck_core", "train", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        **more,
    )


def train(words: list[str], expect: int = 0) -> str:
    """`train` in this process, as the command line runs it; its output. Fails the test on another exit code."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main(["train", *words])
    assert code == expect, f"exit code {code}:\n{said.getvalue()}"
    return said.getvalue()


def events(out: Path, *kinds: str) -> list[dict[str, Any]]:
    """Events by a strict parser, without what depends on the clock."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    lines = (out / "train.jsonl").read_text(encoding="utf-8").splitlines()
    parsed = [json.loads(line, parse_constant=refuse) for line in lines]
    return [
        {key: value for key, value in event.items() if key not in TIMES}
        for event in parsed
        if not kinds or event["type"] in kinds
    ]
