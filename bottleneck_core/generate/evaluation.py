"""All that is measured of a model's cache policies on one text, and the file of a run folder that collects it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from bottleneck_core.errors import UserError
from bottleneck_core.generate.heldout import window_count
from bottleneck_core.generate.probes import InductionScore, NeedleScore, induction, needle_retrieval
from bottleneck_core.generate.quality import FP16, Policy, PolicyQuality, cache_quality, scored_of
from bottleneck_core.memory import CachePolicy
from bottleneck_core.memory.policy_text import parse_policy
from bottleneck_core.model import GPT
from bottleneck_core.store.atomic import atomic_write_text

EVALUATIONS = "evaluation.json"

# Without a window of fp16 rows first, so that short contexts measure the formats; then outer layers, keys against
# values, and windows. `q4_0` at its end is the default of --kv-cache q4_0.
_ALL_TENSORS = (
    "q8_0",
    "fp8",
    "q5_0",
    "nf4",
    "q4_0",
    "q4_0,qblock=16",
    "q4_0,hadamard",
    "q4_0,first=1,last=1,edge=q8_0",
)
_ONE_BY_ONE = {
    ("k", "v"): ("k=q8_0,v=q4_0", "k=q4_0,v=q8_0"),
    ("k_sem", "k_geo", "v"): (
        "k_sem=q4_0,k_geo=q8_0,v=q8_0",
        "k_sem=q8_0,k_geo=q4_0,v=q8_0",
        "k_sem=q8_0,k_geo=q8_0,v=q4_0",
    ),
}
_WINDOWED = ("q4_0,residual=32", "q4_0")


@dataclass(frozen=True)
class Evaluation:
    """Rows of all contexts, each list in the order of contexts, then policies, the baseline first."""

    quality: list[PolicyQuality]
    needle: list[NeedleScore]
    induction: list[InductionScore]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for strict JSON."""
        return {
            "quality": [row.to_dict() for row in self.quality],
            "needle": [asdict(row) for row in self.needle],
            "induction": [asdict(row) for row in self.induction],
        }


def default_policies(tensors: Sequence[str]) -> list[CachePolicy]:
    """Policies worth comparing for a model that caches `tensors`: all formats, keys against values, windows."""
    plain = [f"{text},residual=0" for text in (*_ALL_TENSORS, *_ONE_BY_ONE[tuple(tensors)])]
    return [parse_policy(text) for text in (*plain, *_WINDOWED)]


def evaluate_cache(
    model: GPT,
    ids: np.ndarray,
    policies: Sequence[Policy],
    *,
    contexts: Sequence[int],
    windows: int = 8,
    scored: int = 128,
    trials: int = 8,
    seed: int = 1337,
    baseline: Policy = FP16,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Quality, needle retrieval and induction of each policy at each context, on held-out token ids (M,).

    See `quality` and `probes` for what the numbers mean. `trials` prompts of each probe; 0: no probes. `report` is told
    how many parts of how many are done. Raises UserError as these do.
    """
    chosen = 1 + sum(policy != baseline for policy in policies)
    counts = (window_count(ids, context + 1, windows, scored_of(context, scored)) for context in contexts)
    total = sum(counts) + (2 * chosen * len(contexts) if trials else 0)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        report(done, total)

    report(0, total)
    rows = cache_quality(
        model, ids, policies, contexts=contexts, windows=windows, scored=scored, baseline=baseline, tick=tick
    )
    needles: list[NeedleScore] = []
    repeats: list[InductionScore] = []
    for context in contexts if trials else ():
        asked: dict[str, Any] = {"context": context, "trials": trials, "seed": seed, "baseline": baseline, "tick": tick}
        needles += needle_retrieval(model, ids, policies, **asked)
        repeats += induction(model, ids, policies, **asked)
    return Evaluation(rows, needles, repeats)


def read_evaluations(folder: Path) -> list[dict[str, Any]]:
    """The evaluations that a run folder holds, oldest first. Raises UserError for a file that is not ours."""
    path = folder / EVALUATIONS
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no readable JSON ({error}): move it away, or give --no-save") from None
    entries = content.get("evaluations") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "key" in entry for entry in entries):
        raise UserError(f"{path} holds no evaluations of ours: move it away, or give --no-save")
    return entries


def add_evaluation(folder: Path, document: dict[str, Any]) -> Path:
    """Put an evaluation into the run folder's file, in the place of one with an equal `key` where there is one.

    `key` holds all that the numbers depend on. The file is the old one or the new one at any time. Returns its path.
    """
    path = folder / EVALUATIONS
    with filelock.FileLock(folder / f".{EVALUATIONS}.lock"):  # two evaluations may end at the same time
        entries = [entry for entry in read_evaluations(folder) if entry["key"] != document["key"]]
        content = {"schema_version": 1, "evaluations": [*entries, document]}
        atomic_write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path
