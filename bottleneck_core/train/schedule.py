"""Learning rate by step."""

from __future__ import annotations

import math

from bottleneck_core.config import RunConfig

WSD_DECAY_SHARE = 0.2


def learning_rate(config: RunConfig, step: int) -> float:
    """Rate of optimiser step `step` (0-based): linear warmup, then constant, cosine, or wsd's late linear decay.

    The first step of a warmup of n steps has rate lr / n, the n-th lr; cosine and wsd reach `min_lr` on the last step.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.lr_schedule == "constant":
        return config.lr
    last = config.steps - 1
    start = config.warmup_steps
    if config.lr_schedule == "wsd":
        start = max(start, round(config.steps * (1 - WSD_DECAY_SHARE)))
    progress = min(max((step - start) / max(last - start, 1), 0.0), 1.0)
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if config.lr_schedule == "cosine" else 1 - progress
    return config.min_lr + (config.lr - config.min_lr) * shape
