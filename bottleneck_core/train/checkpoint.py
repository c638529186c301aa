"""Checkpoints: tensors, numbers, text, dicts and lists only, so that `weights_only=True` loads them.

`last.pt` holds all that training needs to go on exactly; `best.pt` weights and configuration. Both are written to a
temporary file, synced and renamed: a kill leaves the old one or the new one.
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
    content: dict[str, Any] = {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "model": model,
        "step": step,
    }
    if training is not None:
        content["training"] = training
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def find_checkpoint(where: str | Path, prefer: str) -> Path | None:
    """The checkpoint that `where` (a file, or a run folder) means; in a folder `prefer` first. None: there is none."""
    path = Path(where)
    if path.is_file():
        return path
    other = {"last": "best", "best": "last"}[prefer]
    candidates = (getattr(RunPaths(path), prefer), getattr(RunPaths(path), other))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a checkpoint onto `device`. Raises UserError for a file that is no checkpoint of ours or is damaged."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        config = RunConfig(**content["config"])
        return Checkpoint(
            path=path,
            config=config,
            model=content["model"],
            step=int(content["step"]),
            training=content.get("training"),
        )
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give a checkpoint file or a run folder") from None
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
