"""Decoding by CUDA graphs: one launch a token instead of hundreds, while the host reads the ids of the token before.

Legend: B requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from bottleneck_core.errors import UserError
from bottleneck_core.generate.layer import Plan
from bottleneck_core.generate.sampling import Sampler, Sampling
from bottleneck_core.generate.static import SHARES, StaticCache, StaticStep, unsupported
from bottleneck_core.kvcache import KVCache
from bottleneck_core.kvcache.cache import UNSTORABLE
from bottleneck_core.model import GPT

Graphs = Literal["auto", "none", "steps"]

# Tokens that a capture is good for; of long texts an eighth, since idle spans cost little up to there.
LEAST_GROWTH = 4096
WARM_UP = 2  # kernels are compiled in the first, and cuBLAS has its workspace after the second
LANDINGS = 2  # steps whose ids the host has not read


def refusal(model: GPT, cache: KVCache, plan: Plan, graphs: Graphs) -> str | None:
    """Why tokens cannot be decoded by graphs, in words, or None where they can. "steps": the same without a graph."""
    if graphs == "none":
        return "graphs were not asked for"
    if graphs == "auto" and cache.device.type != "cuda":
        return "CUDA graphs need a CUDA device"
    return unsupported(model, cache, plan)


def capacity_for(tokens: int) -> int:
    """Tokens that a capture for a text of `tokens` is cut for: somewhat more."""
    growth = max(LEAST_GROWTH, (1 << tokens.bit_length() - 1) // 8)
    return (tokens // growth + 1) * growth


class GraphedDecoder:
    """Decodes over one cache from a graph for each plan and sampling, captured when first needed.

    `launch` starts the next step and `read` gives the oldest step's ids; up to LANDINGS steps may be in flight. The
    cache counts a step's row when its ids are read. Without CUDA the steps run as they are, which is for tests.
    """

    def __init__(self, model: GPT, cache: KVCache) -> None:
        self.model = model
        self.cache = cache
        self.static = StaticCache(model, cache, capacity_for(cache.length + 1))
        self.in_flight = 0
        self.sampler: Sampler | None = None
        self._steps: dict[tuple[Plan, Sampling], Callable[[], None]] = {}
        self._launched = 0
        self._numbers_left = 0
        cuda = cache.device.type == "cuda"
        self._events = [torch.cuda.Event() for _ in range(LANDINGS)] if cuda else []
        landing = torch.zeros(LANDINGS, cache.batch + 1, dtype=torch.int64, pin_memory=cuda)
        self._landings = list(landing)

    @property
    def has_room(self) -> bool:
        """Whether this capture is good for one more token."""
        return self.cache.length + self.in_flight < self.static.capacity

    def fits(self, cache: KVCache) -> bool:
        """Whether `begin` may be called for what this cache holds now."""
        return self.static.fits(cache)

    def knows(self, plan: Plan) -> bool:
        """Whether this text has been decoded by this plan before."""
        return self.sampler is not None and (plan, self.sampler.sampling) in self._steps

    @torch.inference_mode()
    def begin(self, ids: Sequence[int], sampler: Sampler) -> None:
        """Go on from what the cache holds, with `ids` as the next tokens and `sampler` for those after them."""
        self.in_flight = 0
        self.sampler = sampler
        self._numbers_left = 0
        self.static.begin(ids)

    @torch.inference_mode()
    def launch(self, plan: Plan) -> None:
        """Start the next step. Nothing here waits for the device, except for what a new capture needs."""
        assert self.sampler is not None and self.in_flight < LANDINGS and self.has_room
        sampling = self.sampler.sampling
        self.static.prepare(self.cache.length + self.in_flight)
        if sampling.temperature and not self._numbers_left:
            self.static.refill(self.sampler, self.in_flight)
            self._numbers_left = SHARES
        step = self._steps.get((plan, sampling))
        if step is None:
            step = self._steps[plan, sampling] = self._prepared(plan, sampling)
        step()
        at = self._launched % LANDINGS
        self._landings[at].copy_(self.static.said, non_blocking=True)
        if self._events:
            self._events[at].record()
        self._launched += 1
        self._numbers_left -= 1
        self.in_flight += 1

    def read(self) -> list[int]:
        """The ids that the oldest step in flight has drawn. Raises UserError where the cache could not hold a value."""
        assert self.sampler is not None and self.in_flight
        at = (self._launched - self.in_flight) % LANDINGS
        if self._events:
            self._events[at].synchronize()
        *ids, broken = self._landings[at].tolist()
        self.in_flight -= 1
        self.cache.advance(1)
        self.sampler.use(1)
        if broken:
            raise UserError(UNSTORABLE)
        return ids

    def end(self, sampler: Sampler) -> None:
        """Forget the steps in flight and free what only they needed, unless another text has begun."""
        if self.sampler is sampler and self.in_flight:
            self.in_flight = 0
            self.cache.truncate(self.cache.length)

    def _prepared(self, plan: Plan, sampling: Sampling) -> Callable[[], None]:
        step = StaticStep(self.model, self.static, plan, sampling)
        return _Captured(step) if self._events else step


class _Captured:
    """A step as a graph, which keeps what it reads alive.

    It runs before the capture, so that nothing is compiled, loaded or looked up meanwhile; the next token's row is
    written to the same place each time, and everything else is as it was.
    """

    def __init__(self, step: StaticStep) -> None:
        self.step = step
        before = step.static.state()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
                step.static.restore(before)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile, such as a dashboard's.
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            step()

    def __call__(self) -> None:
        self.graph.replay()
