"""The processes that train together: one alone, or those that torchrun started.

Rank 0 writes; every process computes its share of the global batch. Decisions (stop, resume, failure) are agreed on a
gloo group on the CPU, so that no process leaves the others waiting in a collective.
"""

from __future__ import annotations

import itertools
import os
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.fsdp import FSDPModule
from torch.distributed.rendezvous import rendezvous

from bottleneck_core.errors import UserError

_TIMEOUT = timedelta(minutes=30)
_RUNS = itertools.count()  # of this process; all processes start the same ones


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
                store, _, _ = next(rendezvous("env://", self.rank, self.size, timeout=_TIMEOUT))
                store = PrefixStore(self._start_name(), store)
                dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=_TIMEOUT)
                self._owns_group = True
            self._control = dist.new_group(backend="gloo") if device.type == "cuda" else dist.group.WORLD

    def _start_name(self) -> str:
        """A name that all processes have in common, and no earlier start in torchrun's store.

        That store outlives a run (paper_all is four) and a restart of the processes, and a process that finds its
        peer's old address there waits for it for ever. Hosts count restarts each for itself: there, only runs count.
        """
        alone = os.environ.get("LOCAL_WORLD_SIZE") == str(self.size)
        restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"
        return f"restart {restart} run {next(_RUNS)}"

    @property
    def control(self) -> Any:
        """The gloo group of all processes, for what is decided on the CPU; None alone."""
        return self._control

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

    def norm_of_parts(self, norm: Tensor) -> Tensor:
        """2-norm of a vector on the training device, each process giving the norm of its own part."""
        if self.size == 1:
            return norm
        squared = norm.square().to(self.device)
        dist.all_reduce(squared)
        return squared.sqrt()

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
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
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
