"""The processes that train together: one alone, or those that torchrun started.

Rank 0 writes; every process computes its share of the global batch. Decisions (stop, resume, failure) are agreed on a
gloo group on the CPU, so that no process leaves the others waiting in a collective.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from bottleneck_core.errors import UserError


class World:
    """`rank` of `size` processes. Alone it costs nothing: every method is the identity."""

    def __init__(self, device: torch.device) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = device
        self._control: Any = None
        self._owns_group = False
        if self.size > 1:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            if not dist.is_initialized():
                backend = "nccl" if device.type == "cuda" else "gloo"
                dist.init_process_group(backend, timeout=timedelta(minutes=30))
                self._owns_group = True
            self._control = dist.new_group(backend="gloo") if device.type == "cuda" else dist.group.WORLD

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def largest(self, value: int) -> int:
        """The largest `value` of all processes: 0 where nobody has anything to say."""
        if self.size == 1:
            return value
        flag = torch.tensor(value)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._control)
        return int(flag)

    def mean(self, value: Tensor) -> Tensor:
        """Mean over processes of a tensor on the training device."""
        if self.size == 1:
            return value
        total = value.clone()
        dist.all_reduce(total)
        return total / self.size

    def share(self, value: Any) -> Any:
        """Rank 0's `value`, on every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._control)
        return box[0]

    def first(self, action: Any) -> Any:
        """`action()` on rank 0, its result everywhere; a user's mistake found there is raised on every process."""
        if self.size == 1:
            return action()
        outcome: tuple[str, Any] = ("value", None)
        if self.is_main:
            try:
                outcome = ("value", action())
            except UserError as error:
                outcome = ("mistake", str(error))
        kind, result = self.share(outcome if self.is_main else None)
        if kind == "mistake":
            raise UserError(result)
        return result

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to call in training: DDP averages the gradients where there are several processes."""
        if self.size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        # The only buffers are rotary tables, which every process computes alike.
        return nn.parallel.DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True, broadcast_buffers=False
        )

    def accumulating(self, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Around a micro-step: gradients travel with the last one only."""
        if last or not isinstance(model, nn.parallel.DistributedDataParallel):
            return nullcontext()
        return model.no_sync()

    def part(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            dist.barrier(group=self._control)

    def close(self) -> None:
        self._control = None
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()
            self._owns_group = False
