"""Training batches that are on their way to the GPU while the step before them is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from bottleneck_core.data.batches import Batches

Place = tuple[int, int]  # (step, micro step)


class Prefetch:
    """The training batches of `batches`, which are on a CUDA device, asked for in the order of training.

    The copy of the next one runs on a stream of its own. Batches depend on their place alone, so one that was fetched
    in vain (the run ends, or goes on elsewhere) changes nothing.
    """

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self._stream = torch.cuda.Stream(batches.device)
        self._ahead: tuple[Place, tuple[Tensor, Tensor]] | None = None

    def train_batch(self, step: int, micro: int = 0) -> tuple[Tensor, Tensor]:
        """As `Batches.train_batch`: (x, y), each (B, T)."""
        place = (step, micro)
        ahead = self._ahead if self._ahead and self._ahead[0] == place else self._fetched(place)
        current = torch.cuda.current_stream(self._batches.device)
        current.wait_stream(self._stream)
        for tensor in ahead[1]:
            tensor.record_stream(current)  # its memory is not used again before this step has read it
        last = micro == self._batches.grad_accum - 1
        self._ahead = self._fetched((step + 1, 0) if last else (step, micro + 1))
        return ahead[1]

    def _fetched(self, place: Place) -> tuple[Place, tuple[Tensor, Tensor]]:
        with torch.cuda.stream(self._stream):
            return place, self._batches.train_batch(*place)
