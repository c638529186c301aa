"""Evaluation on fixed windows: the same ones for every variant, step and process count."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from bottleneck_core.data.batches import Batches
from bottleneck_core.train.guard import StopRequest
from bottleneck_core.train.runtime import Runtime
from bottleneck_core.train.world import World


class Interrupted(Exception):
    """A stop was asked for during an evaluation, which is to be made again after resume."""


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats over the fixed windows of each split."""

    train_loss: float
    val_loss: float

    @property
    def val_ppl(self) -> float:
        return perplexity(self.val_loss)


def perplexity(loss: float) -> float:
    """exp(loss); infinite where that overflows."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


@torch.no_grad()
def evaluate(model: nn.Module, batches: Batches, runtime: Runtime, world: World, stop: StopRequest) -> Evaluation:
    """Losses on both splits, dropout off. Raises Interrupted between batches once a stop is asked for."""
    was_training = model.training
    model.eval()
    losses: dict[str, float] = {}
    try:
        for split in ("train", "val"):
            total = torch.zeros((), dtype=torch.float64 if runtime.device.type != "mps" else torch.float32)
            total, count = total.to(runtime.device), 0
            for x, y in batches.eval_batches(split):
                if world.largest(stop.code):
                    raise Interrupted
                with runtime.autocast():
                    total += model(x, y)
                count += 1
            losses[split] = world.mean(total / count).item()
    finally:
        model.train(was_training)
    return Evaluation(losses["train"], losses["val"])
