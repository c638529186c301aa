"""A training step captured once as a CUDA graph and replayed.

A step of the tiny model is some 300 kernels in 11 ms on an H200, and launching them one by one from Python takes about
as long. A replay is one launch. Shapes, addresses and the optimiser's scalars have to stay: batches are copied into the
captured ones, and the learning rate is a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from bottleneck_core.train.step import Batch, StepResult, TrainStep

# Steps before the capture: they compile, choose kernels and make the optimiser's state.
_WARM_UP = 3


class GraphedStep:
    """`TrainStep` with the same results; needs a capturable optimiser and a step that draws no random numbers."""

    def __init__(self, step: TrainStep) -> None:
        self._step = step
        self._stream = torch.cuda.Stream(step.runtime.device)
        self._done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batches: list[Batch] = []
        self._result: StepResult | None = None

    def __call__(self, batches: Iterable[Batch], count: int) -> StepResult:
        """As `TrainStep`; the result's tensors are overwritten by the next step."""
        current = torch.cuda.current_stream(self._step.runtime.device)
        if self._graph is None and self._done < _WARM_UP:
            # On the stream of the capture: autograd remembers on which one a gradient was first accumulated.
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                result = self._step(batches, count)
            current.wait_stream(self._stream)
            self._done += 1
            return result
        given = list(batches)
        if self._graph is None:
            self._capture(given)
        for (x, y), (captured_x, captured_y) in zip(given, self._batches, strict=True):
            captured_x.copy_(x)
            captured_y.copy_(y)
        assert self._graph is not None and self._result is not None
        self._graph.replay()
        return self._result

    def _capture(self, batches: list[Batch]) -> None:
        """Record the step; nothing is computed yet."""
        self._batches = [(x.clone(), y.clone()) for x, y in batches]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._result = self._step(self._batches, len(batches))
        self._graph = graph
