"""How long a decoded token takes on this device, at a given number of cached tokens.

The cache is filled with noise instead of a prompt: the time of a step depends on how much is cached and how, never on
the values, and reading a long prompt once for each candidate would take far longer than the measurement.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from bottleneck_core.generate import Engine, Plan
from bottleneck_core.memory import CachePolicy
from bottleneck_core.model import GPT

RUN_SECONDS = 0.03  # a run decodes as many tokens as take this long: single ones are lost in the clock's noise
MOST_TOKENS = 32  # of a run, so that the cache hardly grows while it is timed
FILL_TOKENS = 4096  # written at a time


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds a decoded token (of all requests together), one number a run, and the logits (B, N) of one step."""

    seconds: tuple[float, ...]
    logits: Tensor

    @property
    def median(self) -> float:
        return median(self.seconds)


class DecodeTimer:
    """Times decode steps of `batch` requests with `prefix` cached tokens each. `clock` gives seconds."""

    def __init__(
        self, model: GPT, *, prefix: int, batch: int, page: int, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.model = model
        self.prefix = prefix
        self.batch = batch
        self.page = page
        self.clock = clock

    def time(self, policy: CachePolicy, plan: Plan, *, warmup: int, runs: int) -> Timing:
        """The time of a step under a policy and a plan: `warmup` runs untimed, then `runs` timed ones.

        A run is as many tokens as take RUN_SECONDS. Every call starts from the same cache, so the logits of two plans
        may be compared.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the text outgrows the trained context says nothing about time
            engine = Engine(self.model, policy, plan=plan, page=self.page)
            fill(engine, self.prefix, self.batch)
            logits = engine.feed(self._token(engine))[:, -1]  # kernels are compiled here
            tokens = min(MOST_TOKENS, max(1, math.ceil(RUN_SECONDS / max(self._run(engine, 1), 1e-9))))
            for _ in range(warmup):
                self._run(engine, tokens)
            return Timing(seconds=tuple(self._run(engine, tokens) for _ in range(runs)), logits=logits.float().cpu())

    def _run(self, engine: Engine, tokens: int) -> float:
        """Seconds a token, over `tokens` steps."""
        token = self._token(engine)
        _wait(engine.device)
        began = self.clock()
        for _ in range(tokens):
            engine.feed(token)
        _wait(engine.device)
        return (self.clock() - began) / tokens

    def _token(self, engine: Engine) -> Tensor:
        return torch.zeros(self.batch, 1, dtype=torch.int64, device=engine.device)


@torch.inference_mode()
def fill(engine: Engine, tokens: int, batch: int) -> None:
    """Make `engine` hold `tokens` cached tokens of `batch` requests: a first real one, and noise after it."""
    engine.prefill([[0]] * batch)
    cache = engine.cache
    noise = torch.Generator(engine.device).manual_seed(0)
    while cache.length < tokens:
        count = min(FILL_TOKENS, tokens - cache.length)
        for layer, tensors in enumerate(cache.layers):
            rows = {
                name: torch.randn(batch, count, tensor.width, generator=noise, device=engine.device, dtype=cache.dtype)
                for name, tensor in tensors.items()
            }
            cache.write(layer, rows)
        cache.advance(count)
        cache.check()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
