"""`last.dcp/`: a checkpoint that all processes write together, each its own shards.

The folder is what torch.distributed.checkpoint makes of the sharded tensors, under names that are their places in a
checkpoint ("training/optimizer/0/state/3/exp_avg"), and `state.pt`: the checkpoint itself with those tensors on the
meta device, shape and dtype without values. `torch.load(weights_only=True)` reads that, and any number of processes the
rest. A new folder is written beside the old one, synced, and takes its place.
"""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from bottleneck_core.errors import UserError
from bottleneck_core.train.world import World

Keys = tuple[Any, ...]
Change = Callable[[Keys, Tensor], Tensor]
_STATE = "state.pt"


def save_shards(folder: Path, content: Mapping[str, Any], world: World) -> None:
    """Write `content`, a checkpoint whose DTensors are sharded over all processes, to `folder`. Collective.

    A kill leaves the old folder or the new one: see `existing_folder`.
    """
    sharded: dict[str, Any] = {}

    def take(keys: Keys, value: Tensor) -> Tensor:
        if not isinstance(value, DTensor):
            return value
        sharded[_name(keys)] = value
        return torch.empty(value.shape, dtype=value.dtype, device="meta")

    state = map_tensors(content, take)
    temporary = _beside(folder, "tmp")
    if world.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    world.part()
    save(sharded, storage_writer=FileSystemWriter(temporary), process_group=world.control)
    if world.is_main:
        with open(temporary / _STATE, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        _sync(temporary)
        _take_place(temporary, folder)


def read_state(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The checkpoint in `folder`, sharded tensors on the meta device. Raises what torch.load raises."""
    return torch.load(folder / _STATE, map_location=device, weights_only=True)


def read_whole(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The checkpoint in `folder` with all tensors whole on `device`, for one process by itself.

    Raises what torch.load raises, and UserError where shards are missing or damaged.
    """

    def allocate(_: Keys, value: Tensor) -> Tensor:
        return torch.empty(value.shape, dtype=value.dtype, device=device) if value.is_meta else value

    return fill_shards(folder, read_state(folder, device), allocate, None)


def fill_shards(folder: Path, content: Mapping[str, Any], allocate: Change, world: World | None) -> dict[str, Any]:
    """`content`, as `read_state` gave it or a part of that, with the values from `folder`.

    `allocate` gives the tensor to fill for each meta tensor: a DTensor gets this process's part, which is collective,
    a tensor all. Without `world` the process reads by itself. Raises UserError where shards are missing or damaged.
    """
    sharded: dict[str, Any] = {}

    def fill(keys: Keys, value: Tensor) -> Tensor:
        tensor = allocate(keys, value)
        if value.is_meta:
            sharded[_name(keys)] = tensor
        return tensor

    filled = map_tensors(content, fill)
    try:
        _check_metadata(folder)
        reader = FileSystemReader(folder)
        if world is not None:
            load(sharded, storage_reader=reader, process_group=world.control)
            return filled
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*load in a single process")  # which is meant
            load(sharded, storage_reader=reader, no_dist=True)
    except (CheckpointException, Exception) as error:  # a broken pickle raises anything
        cause = error
        if isinstance(error, CheckpointException):
            cause = next((failure for failure, _ in error.failures.values()), error)
        reason = (str(cause) or type(cause).__name__).splitlines()[0][:120]
        raise UserError(f"{folder} cannot be read as a checkpoint ({reason}): give another one") from None
    return filled


def existing_folder(folder: Path) -> Path | None:
    """`folder` if it is there, or the old one where a kill left that on its way out; None: neither."""
    for place in (folder, _beside(folder, "old")):
        if (place / _STATE).is_file() and (place / ".metadata").is_file():
            return place
    return None


def remove_folder(folder: Path) -> None:
    """Remove `folder`, and what kills left beside it."""
    if folder.is_dir():
        shutil.rmtree(_beside(folder, "tmp"), ignore_errors=True)
        folder.rename(_beside(folder, "tmp"))  # gone at once: half a folder would look like a damaged checkpoint
    for name in ("old", "tmp"):
        shutil.rmtree(_beside(folder, name), ignore_errors=True)


def map_tensors(tree: Any, change: Change, keys: Keys = ()) -> Any:
    """A copy of a tree of dicts, lists and tuples, with `change(keys that lead there, tensor)` for each tensor."""
    if isinstance(tree, Tensor):
        return change(keys, tree)
    if isinstance(tree, Mapping):
        return {key: map_tensors(value, change, (*keys, key)) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(map_tensors(value, change, (*keys, i)) for i, value in enumerate(tree))
    return tree


def _check_metadata(folder: Path) -> None:
    """Raise for metadata that hold more than torch's own descriptions: their pickle could name any function."""
    with open(folder / ".metadata", "rb") as file:
        _Descriptions(file).load()


class _Descriptions(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        found = super().find_class(module_name, global_name)
        if isinstance(found, type):
            # A dotted name reaches what a module imports: the class has to be its own.
            described = module_name.startswith("torch.distributed.checkpoint.") and found.__module__ == module_name
            allowed = described or found is torch.Size or issubclass(found, PurePath)
        else:
            allowed = isinstance(found, torch.dtype) or global_name == "_get_layout"
        if not allowed:
            raise pickle.UnpicklingError(f"its metadata name {module_name}.{global_name}")
        return found


def _name(keys: Keys) -> str:
    return "/".join(map(str, keys))


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


def _take_place(new: Path, folder: Path) -> None:
    """Folders cannot be replaced by one rename: for an instant there is only the old one, under another name."""
    old = _beside(folder, "old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
