"""How far a run drifts from the same run made again: the noise in which its curve may be read.

    python -m benchmarks.rerun runs/tiny_bottleneck_ref runs/tiny_bottleneck_again [--out DIR]

Both have the same settings, seed and data order; what differs is the code that trained them and the order in which a
GPU adds. Differences are of the second from the first, in nats per token; a train event is the loss of one batch.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import bottleneck_core as bc
from benchmarks.record import RESULTS, record

_OF_THE_PLACE = {"out_dir", "run_tag", "given", "data", "run_root"}


def difference(first: Any, second: Any, column: str) -> dict[str, float]:
    """Of one column of two frames, at the steps that both have."""
    both = first[["step", column]].merge(second[["step", column]], on="step", suffixes=("", "_again"))
    both = both[both["step"] > 0]
    apart = (both[f"{column}_again"] - both[column]).to_numpy()
    return {
        "points": len(apart),
        "median": float(np.median(apart)),
        "median_size": float(np.median(np.abs(apart))),
        "largest_size": float(np.abs(apart).max()),
        "last": float(apart[-1]),
    }


def about(run: Any) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "id": run.id,
        "commit": manifest["git"]["commit"],
        "runtime": manifest["runtime"],
        "gpus": manifest["hardware"]["gpus"],
        "best_val_loss": run.best_val_loss,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How far a run drifts from the same run made again.")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    first, second = bc.load_run(words.first), bc.load_run(words.second)
    settings = {key for key in first.config.keys() & second.config.keys() if first.config[key] != second.config[key]}
    if other := settings - _OF_THE_PLACE:
        parser.error(f"the runs differ in {', '.join(sorted(other))}: give two of the same settings")
    measured = {
        "runs": [about(first), about(second)],
        "validation_loss": difference(first.eval, second.eval, "val_loss"),
        "train_loss": difference(first.train, second.train, "loss"),
        "best_val_loss": (second.best_val_loss or 0.0) - (first.best_val_loss or 0.0),
    }
    print(record("rerun", measured, gpus=second.manifest["hardware"]["gpus"], out=words.out))


if __name__ == "__main__":
    main()
