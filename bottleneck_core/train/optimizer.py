"""Optimisers: AdamW on all parameters, or Muon on the hidden matrices and AdamW on the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bottleneck_core.config import RunConfig
from bottleneck_core.train.muon import BatchedMuon

# The learning rate is set before each step; as a tensor it is what a captured step reads.
_OF_THE_START = ("lr", "capturable", "fused")


class Optimizers:
    """One or two optimisers that step together, all at one learning rate."""

    def __init__(self, parts: Iterable[torch.optim.Optimizer]) -> None:
        self.parts = list(parts)

    def set_lr(self, lr: float) -> None:
        for part in self.parts:
            for group in part.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(lr)
                else:
                    group["lr"] = lr

    def step(self, scaler: torch.amp.GradScaler) -> None:
        for part in self.parts:
            scaler.step(part)
        scaler.update()

    def unscale(self, scaler: torch.amp.GradScaler) -> None:
        if scaler.is_enabled():
            for part in self.parts:
                scaler.unscale_(part)

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Moments and counts; how the optimiser runs is this start's, not that of the one that saved."""
        for part, state in zip(self.parts, states, strict=True):
            own = [{name: group[name] for name in _OF_THE_START if name in group} for group in part.param_groups]
            part.load_state_dict(state)
            for group, options in zip(part.param_groups, own, strict=True):
                group.update(options)


def build_optimizer(model: nn.Module, config: RunConfig, *, capturable: bool = False) -> Optimizers:
    """The optimiser of `config`: decay on all parameters, epsilon 1e-8. `capturable`: for a CUDA graph of the step.

    Muon takes the matrices of the blocks and keeps AdamW's learning rate by scaling its update to AdamW's root mean
    square (Liu et al. 2025, "Muon is Scalable for LLM Training"); embeddings, norms, nulls and temperatures stay on
    AdamW.
    """
    parameters = dict(model.named_parameters())
    hidden = (
        [
            name
            for name, p in parameters.items()
            if name.startswith("blocks.") and name.endswith("weight") and p.ndim == 2
        ]
        if config.optimizer == "muon"
        else []
    )
    rest = [p for name, p in parameters.items() if name not in hidden]
    fused = all(p.device.type in ("cpu", "cuda") for p in rest)
    lr: Any = torch.tensor(config.lr, device=rest[0].device) if capturable else config.lr
    adamw = torch.optim.AdamW(
        rest,
        lr=lr,
        betas=(config.beta1, config.beta2),
        eps=1e-8,
        weight_decay=config.weight_decay,
        fused=fused,
        capturable=capturable,
    )
    if not hidden:
        return Optimizers([adamw])
    muon = BatchedMuon(
        [parameters[name] for name in hidden],
        lr=lr.clone() if capturable else lr,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return Optimizers([muon, adamw])
