"""Checkpoints: tensors, numbers, text, dicts and lists only, so that `weights_only=True` loads them.

`last.pt` holds all that training needs to go on exactly, and so does `last.dcp/`, which sharded training writes in its
place; `best.pt` weights and configuration. Each is written under a temporary name, synced and renamed: a kill leaves
the old one or the new one.
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bottleneck_core.config import RunConfig
from bottleneck_core.errors import UserError
from bottleneck_core.store.atomic import atomic_path
from bottleneck_core.store.layout import RunPaths
from bottleneck_core.train.shard_folder import existing_folder, read_state, read_whole, remove_folder, save_shards
from bottleneck_core.train.world import World

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A loaded checkpoint. `step` steps are done; `training` is None in a file that holds weights only (best.pt)."""

    path: Path
    config: RunConfig
    model: dict[str, Tensor]
    step: int
    training: dict[str, Any] | None


def save_checkpoint(
    path: Path, config: RunConfig, model: dict[str, Tensor], step: int, training: dict[str, Any] | None = None
) -> None:
    """Write a checkpoint; `training` is the state that `last.pt` has beside weights and configuration."""
    content = _content(config, model, step, training)
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def save_last(
    paths: RunPaths, config: RunConfig, model: dict[str, Tensor], step: int, training: dict[str, Any], world: World
) -> None:
    """Write the checkpoint to resume from: last.dcp where `config` is sharded, else last.pt, by the first process.

    A run has one of the two: once it is written, the other is removed. Every process calls this.
    """
    if config.shard:
        save_shards(paths.last_dcp, _content(config, model, step, training), world)
    elif world.is_main:
        save_checkpoint(paths.last, config, model, step, training)
    if world.is_main and config.shard:
        paths.last.unlink(missing_ok=True)
    elif world.is_main:
        remove_folder(paths.last_dcp)


def find_last(paths: RunPaths) -> Path | None:
    """The checkpoint to resume from: last.pt or last.dcp, of two the newer. None: there is none."""
    folder = existing_folder(paths.last_dcp)
    if folder is None or not paths.last.is_file():
        return folder or (paths.last if paths.last.is_file() else None)
    # A kill came between one's writing and the other's removal.
    return max(paths.last, folder, key=lambda path: path.stat().st_mtime_ns)


def find_checkpoint(where: str | Path, prefer: str) -> Path | None:
    """The checkpoint that `where` (one, or a run folder) means; in a run folder `prefer` first. None: there is none."""
    path = Path(where)
    if path.is_file():
        return path
    if folder := existing_folder(path):
        return folder
    paths = RunPaths(path)
    last, best = find_last(paths), paths.best if paths.best.is_file() else None
    return {"last": last or best, "best": best or last}[prefer]


def read_checkpoint(path: Path, device: torch.device | str = "cpu", *, whole: bool = True) -> Checkpoint:
    """Load a checkpoint, a file or a last.dcp, onto `device`.

    Without `whole` nothing large is read: tensors of a folder stay on the meta device, those of a file on the disk
    until they are used. Raises UserError for what is no checkpoint of ours or is damaged.
    """
    try:
        if path.is_dir():
            content = read_whole(path, device) if whole else read_state(path)
        else:
            content = torch.load(path, map_location=device if whole else "cpu", weights_only=True, mmap=not whole)
        config = RunConfig(**content["config"])
        return Checkpoint(
            path=path,
            config=config,
            model=content["model"],
            step=int(content["step"]),
            training=content.get("training"),
        )
    except FileNotFoundError:
        raise UserError(f"{path} does not exist or is not complete: give a checkpoint file or a run folder") from None
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError) as error:
        reason = _first_line(error)
        raise UserError(f"{path} cannot be read as a checkpoint ({reason}): give another file") from None
    except (KeyError, TypeError, ValueError) as error:
        reason = _first_line(error)
        raise UserError(f"{path} is a checkpoint of another program ({reason}): give one written by train") from None


def load_checkpoint(path: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """The checkpoint at `path`, a file or a run folder (its best one). Raises UserError where there is none."""
    found = find_checkpoint(path, prefer="best")
    if found is None:
        raise UserError(f"{path} holds no checkpoint: give a .pt file or the folder of a run that was trained")
    return read_checkpoint(found, device)


def _content(config: RunConfig, model: dict[str, Tensor], step: int, training: dict[str, Any] | None) -> dict[str, Any]:
    content = {"format": FORMAT, "config": config.model_dump(mode="json"), "model": model, "step": step}
    return content if training is None else content | {"training": training}


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of PyTorch's generators, as far as training on `device` draws from them."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    elif device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"].cpu())


def _first_line(error: Exception) -> str:
    """What went wrong, short: torch's own messages run over many lines, and some errors have none."""
    return (str(error) or type(error).__name__).splitlines()[0][:120]
