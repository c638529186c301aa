"""One optimiser step: forward and backward over the micro-steps, gradient norms, clipping, update.

Nothing here waits for the device, so that a step can be captured as a CUDA graph (`train/graph.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from bottleneck_core.train.optimizer import Optimizers
from bottleneck_core.train.runtime import Runtime
from bottleneck_core.train.world import World

Batch = tuple[Tensor, Tensor]  # x and y, (B, T) each, of one micro-step


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Scalars on the device, the same on all processes. `loss` is the mean over micro-steps and processes; norms are
    those before clipping."""

    loss: Tensor
    total_norm: Tensor
    group_norms: dict[str, Tensor]

    def norm_of(self, group: str) -> float:
        """The gradient norm of a group, 0 for one that the model does not have. Waits for the device."""
        return self.group_norms[group].item() if group in self.group_norms else 0.0


class GradientNorms:
    """2-norms of the gradients of groups of parameters, which may overlap, and of all of them; each is read once.

    Where parameters are sharded, each process reads its own part, and all parts meet in one collective of `world`.
    """

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]], world: World, *, sharded: bool = False) -> None:
        self._world, self._sharded = world, sharded
        self.groups = {name: list(parameters) for name, parameters in groups.items()}
        self._parts: dict[tuple[str, ...], list[nn.Parameter]] = {}  # parameters by the groups that they are in
        for parameter in {id(p): p for group in self.groups.values() for p in group}.values():
            names = tuple(name for name, group in self.groups.items() if any(p is parameter for p in group))
            self._parts.setdefault(names, []).append(parameter)

    def __call__(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The norm of all gradients, and those by group; 0 where there are none."""
        parts = {names: norm(parameters) for names, parameters in self._parts.items()}
        if self._sharded:
            parts = dict(zip(parts, self._world.norm_of_parts(torch.stack(list(parts.values()))), strict=True))
        by_group = {name: _together(value for names, value in parts.items() if name in names) for name in self.groups}
        return _together(parts.values()), by_group


class TrainStep:
    """The step of `model`, wrapped by `world` where several processes train; `optimizer` has its learning rate set."""

    def __init__(
        self,
        model: nn.Module,
        norms: GradientNorms,
        optimizer: Optimizers,
        scaler: torch.amp.GradScaler,
        *,
        runtime: Runtime,
        world: World,
        grad_clip: float,
    ) -> None:
        self.model, self.norms, self.optimizer, self.scaler = model, norms, optimizer, scaler
        self.runtime, self.world, self.grad_clip = runtime, world, grad_clip
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, batches: Iterable[Batch], count: int) -> StepResult:
        """One step over `count` micro-steps; gradients are gone after it."""
        loss = torch.zeros((), device=self.runtime.device)
        for micro, (x, y) in enumerate(batches):
            with self.world.accumulating(self.model, last=micro == count - 1):
                with self.runtime.autocast():
                    micro_loss = self.model(x, y) / count
                self.scaler.scale(micro_loss).backward()
            loss += micro_loss.detach()
        self.optimizer.unscale(self.scaler)
        total, by_group = self.norms()
        if self.grad_clip:
            nn.utils.clip_grads_with_norm_(self.parameters, self.grad_clip, total)
        self.optimizer.step(self.scaler)
        self.optimizer.zero_grad()
        return StepResult(loss=self.world.mean(loss), total_norm=total, group_norms=by_group)


def norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Global 2-norm of the gradients, of sharded ones this process's part; 0 where there are none."""
    gradients = [p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad for p in parameters if p.grad is not None]
    return nn.utils.get_total_norm(gradients) if gradients else torch.zeros(())


def _together(norms: Iterable[Tensor]) -> Tensor:
    """The norm of what has these norms."""
    found = list(norms)
    return torch.linalg.vector_norm(torch.stack(found)) if found else torch.zeros(())
