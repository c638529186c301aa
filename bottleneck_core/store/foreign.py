"""Folders of earlier systems: their settings and events under our names.

They call two settings `layers` and `block`, hold switches as pairs (`tie_qk` and `no_tie_qk`), list the
network twice (among the arguments, and resolved as Model Config), and the later ones renamed some columns of
train events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_RENAMED = {"layers": "n_layer", "block": "block_size"}
_ON_BY_DEFAULT = frozenset({"rope", "learned_temp", "decoupled_gate"})  # only `no_x` can change these
_NOT_SETTINGS = frozenset({"mode", "print_config"})
_TRAIN_COLUMNS = {  # theirs -> ours
    "ms_step": "step_ms",
    "ms_fwd": "fwd_ms",
    "ms_bwd": "bwd_ms",
    "ms_opt": "opt_ms",
    "gbs": "global_batch",
    "grad_clip_norm": "grad_clip_total_norm",
}


def normalised_config(args: Mapping[str, Any], *models: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings under our names from arguments and Model Configs; what comes later wins.

    Works on the arguments that our own events and summaries list, too. Unknown settings keep their names.
    """
    config: dict[str, Any] = {}
    for name, value in args.items():
        half = name.removeprefix("no_")
        if name in _NOT_SETTINGS or (half != name and (half in args or half in _ON_BY_DEFAULT)):
            continue
        if isinstance(value, bool):
            value = value and args.get(f"no_{name}") is not True
        config[_RENAMED.get(name, name)] = value
    for name in _ON_BY_DEFAULT:
        if isinstance(args.get(f"no_{name}"), bool):
            config[name] = not args[f"no_{name}"]
    for model in models:
        config |= {_RENAMED.get(name, name): value for name, value in model.items()}
    return config


def their_column(name: str) -> str | None:
    """What the later systems call a column of train events; None where they have no name of their own for it."""
    return next((theirs for theirs, ours in _TRAIN_COLUMNS.items() if ours == name), None)


def with_our_columns(train: pd.DataFrame) -> pd.DataFrame:
    """The train frame with renamed columns also under our names; one that is there already stays."""
    added = {
        ours: train[theirs]
        for theirs, ours in _TRAIN_COLUMNS.items()
        if theirs in train.columns and ours not in train.columns
    }
    return train.assign(**added) if added else train
