"""A model in shards (FSDP2): each process holds a part of every parameter, its gradient and its optimiser state.

A block's whole weights are there only while it computes: gathered before its forward and its backward pass, freed
after each. The root holds what is outside of blocks, the tied embedding with the rest, so that `embed.weight` is whole
from the first lookup to the loss. Weights stay float32 and travel as such: autocast then rounds the same numbers as in
one process. Functions that gather are collective: every process calls them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from bottleneck_core.config import RunConfig
from bottleneck_core.model import GPT, build_model
from bottleneck_core.train.checkpoint import Checkpoint
from bottleneck_core.train.optimizer import Optimizers
from bottleneck_core.train.runtime import Runtime
from bottleneck_core.train.shard_folder import Keys, fill_shards, map_tensors
from bottleneck_core.train.world import World


def shard_model(model: GPT, runtime: Runtime, world: World) -> None:
    """Shard `model` in place over all processes, each block by itself, and compile it where the runtime says so.

    The model stays what is called, saved and iterated over; its parameters become DTensors under the same names.
    """
    if runtime.compile_mode is not None:
        _compile_parts(model, runtime.compile_mode)
    mesh = init_device_mesh(runtime.device.type, (world.size,))
    for block in model.blocks:
        fully_shard(cast(nn.Module, block), mesh=mesh)
    fully_shard(model, mesh=mesh)


def whole_weights(model: GPT, world: World) -> dict[str, Tensor]:
    """The state dict of `model`, sharded or not; gathered on the CPU of the first process, empty on the others."""
    weights: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value  # one at a time: all may not fit
        if world.is_main:
            weights[name] = whole.cpu() if isinstance(value, DTensor) else whole
    return weights


def whole_model(model: GPT, config: RunConfig, runtime: Runtime, world: World) -> GPT:
    """`model` as one that the first process can run alone: itself, or where it is sharded a copy made from all shards.

    On the other processes what is returned has no weights.
    """
    if not config.shard:
        return model
    weights = whole_weights(model, world)
    copy = build_model(config, device="meta")
    if world.is_main:
        copy.to_empty(device=runtime.device)
        copy.load_state_dict(weights)
    return copy


def in_shards(checkpoint: Checkpoint, model: GPT, optimizer: Optimizers, world: World) -> Checkpoint:
    """`checkpoint` with weights and optimiser state in shards like those of `model`, which `optimizer` steps.

    Each process takes its own part, of a last.pt as of a last.dcp that any number of processes wrote. Raises UserError
    for a folder that cannot be read.
    """
    parameters = model.state_dict()
    stepped = [[p for group in part.param_groups for p in group["params"]] for part in optimizer.parts]

    def parameter(keys: Keys) -> Any:
        match keys:
            case ("model", name):
                return parameters[name]
            case ("training", "optimizer", int(part), "state", int(index), _):
                return stepped[part][index]
        return None

    def place(keys: Keys, value: Tensor) -> Tensor:
        like = parameter(keys)
        if not isinstance(like, DTensor) or like.shape != value.shape:  # a count of steps, a generator's state
            return value
        if value.is_meta:
            return torch.empty_like(like, dtype=value.dtype)
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)

    content = {"model": checkpoint.model, "training": checkpoint.training}
    if checkpoint.path.is_dir():
        placed = fill_shards(checkpoint.path, content, place, world)
    else:
        placed = map_tensors(content, place)
    return replace(checkpoint, model=placed["model"], training=placed["training"])


def _compile_parts(model: GPT, mode: str) -> None:
    """Compile each block and what surrounds them, in place.

    FSDP's hooks sit between these parts, where a graph would break in any case. All blocks share one graph.
    """
    for block in model.blocks:
        block.forward = torch.compile(block.forward, mode=mode, dynamic=False)
    model.embed_tokens = torch.compile(model.embed_tokens, mode=mode, dynamic=False)
    model.loss = torch.compile(model.loss, mode=mode, dynamic=False)
