"""What a run will take, before it starts: parameters, tokens, FLOPs, memory, KV bytes, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import bottleneck_core as bc
from bottleneck_core.config import RunConfig
from bottleneck_core.figures import numbers
from bottleneck_core.memory import TOKENS_128K, TrainingMemory, count_parameters, training_flops_per_token
from dashboard.train.corpora import Corpus
from dashboard.train.devices import Device
from dashboard.train.speed import Measured, Pace, pace

Mode = Literal["fp32", "bf16-compiled"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`flops` of all steps; `memory` None where no derivation covers the way of running; `seconds` None: not measured.

    `vocab_known` is false where the vocabulary is assumed because the corpus is not prepared yet.
    """

    params: int
    tokens: int
    flops: int
    memory: TrainingMemory | None
    kv_bytes: int
    kv_saved: float
    pace: Pace | None
    seconds: float | None
    vocab_size: int
    vocab_known: bool


def plan(
    config: RunConfig, corpus: Corpus | None, device: Device, runs: Sequence[Measured], processes: int = 1
) -> Plan:
    """The numbers of `config` on `device`; memory is that of each of the `processes`."""
    known = config.vocab_size or (corpus.vocab_size if corpus else None)
    vocab_size = known or config.assumed_vocab_size
    flops_per_token = training_flops_per_token(config, vocab_size)
    tokens = config.steps * config.tokens_per_step
    mode = mode_of(config, device)
    batch = max(1, config.batch_size // processes)
    memory = None if mode is None else bc.training_memory(config, vocab_size, batch=batch, mode=mode)
    cache = bc.kv_memory(config, TOKENS_128K)
    found = pace(runs, flops_per_token, device, reduced=_reduced(config, device), processes=processes)
    return Plan(
        params=count_parameters(config, vocab_size),
        tokens=tokens,
        flops=tokens * flops_per_token,
        memory=memory,
        kv_bytes=cache.bytes,
        kv_saved=cache.compression,
        pace=found,
        seconds=tokens / found.tok_s if found else None,
        vocab_size=vocab_size,
        vocab_known=known is not None,
    )


def mode_of(config: RunConfig, device: Device) -> Mode | None:
    """Which derivation of training memory fits; None for the mixtures that none covers."""
    auto = config.speed == "auto" and device.name != "cpu"
    reduced = _reduced(config, device)
    compiled = config.compile or (auto and "compile" not in config.given)
    if reduced != compiled or (reduced and config.amp_dtype != "bf16"):
        return None
    return "bf16-compiled" if reduced else "fp32"


def pace_words(plan: Plan) -> str:
    """Where the estimated time comes from."""
    if plan.pace is None:
        return "No finished run on this device, in this precision, is there to go by."
    runs = plan.pace.runs
    which = runs[0] if len(runs) == 1 else f"{len(runs)} runs such as {runs[0]}"
    source = f"{numbers.rate(plan.pace.measured)} tok/s, measured here by {which}"
    if not 0.95 < plan.pace.factor < 1.05:
        source = f"{numbers.rate(plan.pace.tok_s)} tok/s: {source}, times {plan.pace.factor:.3g} by FLOPs a token"
    return f"{source}. Evaluations and probes come on top."


def _reduced(config: RunConfig, device: Device) -> bool:
    """Whether training runs in a 16-bit dtype."""
    return config.amp or (config.speed == "auto" and device.name != "cpu" and "amp" not in config.given)
