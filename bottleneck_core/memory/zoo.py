"""Public models that are known by name: `zoo.json` holds the fields of their configurations that the cache depends on.

`params` counts all weights, for the memory they take: exact where a checkpoint lists it, else the rounded count of the
model card. `source` is the address of the configuration, `confirmed` where the fields were checked against it second
hand: a file that repeats them, or the exact number of weights that they add up to.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from bottleneck_core.memory.hf import hf_layers
from bottleneck_core.memory.kv import kv_memory

_LONG = 2**24  # tokens: beyond every window and chunk


@dataclass(frozen=True, kw_only=True)
class PublicModel:
    """One entry: `config` has Hugging Face names."""

    name: str
    params: int
    source: str
    confirmed: str
    config: Mapping[str, Any]


@functools.cache
def zoo() -> dict[str, PublicModel]:
    """All public models by name, in the file's order."""
    text = files("bottleneck_core.memory").joinpath("zoo.json").read_text(encoding="utf-8")
    return {entry["name"]: PublicModel(**entry) for entry in json.loads(text)}


def public_model(name: str) -> PublicModel:
    """The entry of that name, upper and lower case aside. Raises ValueError with the close names."""
    models = zoo()
    wanted = name.strip().lower()
    if wanted in models:
        return models[wanted]
    near = difflib.get_close_matches(wanted, models, n=4, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "`kv --list` lists them"
    raise ValueError(f"unknown model {name}: {hint}")


def zoo_rows() -> list[dict[str, Any]]:
    """One dict a model: name, family, layers, kinds of layers, fp16 bytes of the first token, slope and fixed bytes."""
    rows = []
    for model in zoo().values():
        layers, size = hf_layers(model.config), kv_memory(model.config, _LONG)
        rows.append(
            {
                "name": model.name,
                "family": layers.family,
                "layers": len(layers.layers),
                "kind": " + ".join(f"{count} {kind}" for kind, count in layers.kinds.items()),
                "bytes_per_token": size.bytes_per_token,
                "slope_bytes_per_token": size.slope_bytes_per_token,
                "fixed_bytes_per_request": size.fixed_bytes_per_request,
                "params": model.params,
                "source": model.source,
                "confirmed": model.confirmed,
            }
        )
    return rows
