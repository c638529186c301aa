"""The KV cache of one of our models: what each layer stores, how long it is, and what is done to all of it at once."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bottleneck_core.config import MODES
from bottleneck_core.errors import UserError
from bottleneck_core.kvcache.formats import storable
from bottleneck_core.kvcache.tensor import NATIVE, CachedTensor, Page
from bottleneck_core.memory import CachePolicy, cached_widths

PAGE = 256
SNAPSHOT = 1
UNSTORABLE = "keys or values of the model are infinite, undefined or beyond fp16's 65504: choose --kv-cache fp32"


class KVCache:
    """Keys and values of `batch` requests, `length` positions each, layer by layer as a policy says.

    `model`: object or dict with the Model Config names. Without a policy every tensor is stored in `dtype`, the model's
    own. Requests of different length are padded on the left: `first` (B,) int32 is each request's first real position.
    Rows are written layer by layer with `write` and counted by `advance` once all layers have theirs. Raises ValueError
    for sizes below 1.
    """

    def __init__(
        self,
        model: Any,
        policy: CachePolicy | None = None,
        *,
        batch: int = 1,
        page: int = PAGE,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if batch < 1 or page < 1:
            raise ValueError(f"batch and page must be at least 1, got {batch} and {page}")
        self.policy = policy
        self.batch = batch
        self.page = page
        self.device = torch.device(device)
        self.dtype = dtype
        self.shape = _shape(model)
        self.length = 0
        self.ring_from = 0  # positions before it have lost their fp16 copy by a truncation
        self.first: Tensor | None = None
        n_layer = self.shape["n_layer"]
        self.layers = [
            {name: self._tensor(name, width, layer, n_layer) for name, width in cached_widths(self.shape).items()}
            for layer in range(n_layer)
        ]
        self._storable: list[Tensor] = []

    @property
    def allocated_bytes(self) -> int:
        """Bytes of all tensors that this cache can reach; pages shared with a fork are counted in both."""
        return sum(tensor.nbytes for layer in self.layers for tensor in layer.values())

    @property
    def residual(self) -> int:
        """Newest positions that some tensor holds in fp16 as well."""
        return max(tensor.residual for layer in self.layers for tensor in layer.values())

    def write(self, layer: int, rows: Mapping[str, Tensor]) -> None:
        """Store rows (B, T, W) of each tensor of a layer behind the positions that are counted."""
        for name, tensor in self.layers[layer].items():
            if tensor.kind != NATIVE:
                self._storable.append(storable(rows[name], "fp16" if tensor.residual else tensor.kind))
            tensor.write(rows[name], self.length)

    def advance(self, tokens: int) -> None:
        """Count `tokens` more positions: every layer has written them."""
        self.length += tokens

    def check(self) -> None:
        """Look whether all that was written since the last look could be stored. Raises UserError where it could not.

        One synchronisation with the device for all layers, instead of one for each tensor.
        """
        seen, self._storable = self._storable, []
        if seen and not bool(torch.stack(seen).all()):
            raise UserError(UNSTORABLE)

    def truncate(self, length: int) -> None:
        """Forget positions from `length` on and free their memory. Raises ValueError beyond the end."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} positions to {length}")
        self.ring_from = min(max(self.ring_from, self.length - self.residual), length)
        self.length = length
        for layer in self.layers:
            for tensor in layer.values():
                tensor.truncate(length)

    def fork(self, length: int | None = None, requests: Sequence[int] | None = None) -> KVCache:
        """A cache that starts as the first `length` positions of this one: a prefix, used again.

        Full copies are avoided: pages are shared until one of the two writes into them. `requests` picks and repeats
        rows of the batch (one prompt, many continuations), and copies them.
        """
        length = self.length if length is None else length
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot take {length} of {self.length} positions")
        rows = None if requests is None else torch.tensor(list(requests), device=self.device)
        other = KVCache(
            self.shape,
            self.policy,
            batch=self.batch if rows is None else rows.numel(),
            page=self.page,
            device=self.device,
            dtype=self.dtype,
        )
        other.length = length
        other.ring_from = self.ring_from
        if length < self.length:
            other.ring_from = min(max(self.ring_from, self.length - self.residual), length)
        other.first = self.first if rows is None or self.first is None else self.first[rows]
        other.layers = [{name: t.fork(length, rows) for name, t in layer.items()} for layer in self.layers]
        return other

    def save(self, path: str | os.PathLike[str], tokens: Sequence[Sequence[int]] = ()) -> None:
        """Write a snapshot to a file, temporary file first. `tokens`: the ids that it holds, where they are known."""
        from bottleneck_core.store.atomic import atomic_path

        content = {
            "format": SNAPSHOT,
            "shape": self.shape,
            "policy": None if self.policy is None else _plain(self.policy),
            "batch": self.batch,
            "page": self.page,
            "dtype": str(self.dtype).removeprefix("torch."),
            "length": self.length,
            "ring_from": self.ring_from,
            "first": self.first,
            "tokens": [list(row) for row in tokens],
            "layers": [
                {
                    name: {"pages": [page.parts() for page in tensor.pages], "ring": tensor.ring}
                    for name, tensor in layer.items()
                }
                for layer in self.layers
            ],
        }
        with atomic_path(Path(path)) as temporary:
            torch.save(content, temporary)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> tuple[KVCache, list[list[int]]]:
        """A snapshot and the token ids saved with it. Raises UserError for a file that is none."""
        try:
            content = torch.load(path, map_location=device, weights_only=True)
            policy = None if content["policy"] is None else CachePolicy(**content["policy"])
            cache = cls(
                content["shape"],
                policy,
                batch=content["batch"],
                page=content["page"],
                device=device,
                dtype=getattr(torch, content["dtype"]),
            )
            for layer, stored in zip(cache.layers, content["layers"], strict=True):
                for name, tensor in layer.items():
                    tensor.pages = [
                        Page(*parts) if len(parts) > 1 else Page(parts[0], None) for parts in stored[name]["pages"]
                    ]
                    tensor.ring = stored[name]["ring"]
            cache.length, cache.ring_from, cache.first = content["length"], content["ring_from"], content["first"]
            return cache, content["tokens"]
        except FileNotFoundError:
            raise UserError(f"{path} does not exist: give a cache snapshot") from None
        except Exception as error:  # torch.load raises what pickle, zipfile and the dict happen to raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path} is no cache snapshot of ours ({reason}): give another file") from None

    def _tensor(self, name: str, width: int, layer: int, n_layer: int) -> CachedTensor:
        policy = self.policy
        return CachedTensor(
            kind=NATIVE if policy is None else policy.layer_kind(name, layer, n_layer),
            width=width,
            qblock=1 if policy is None else policy.qblock_of(name),
            residual=0 if policy is None else policy.residual,
            batch=self.batch,
            page=self.page,
            device=self.device,
            dtype=self.dtype,
        )


_WIDTHS = dict.fromkeys(setting for mode in MODES.values() for setting in mode.settings)
_SHAPE = ("n_layer", "attn_mode", "n_head", "kv_head", *_WIDTHS)


def _shape(model: Any) -> dict[str, Any]:
    """The settings that a cache depends on, as a plain dict."""
    return {name: model[name] if isinstance(model, Mapping) else getattr(model, name) for name in _SHAPE}


def _plain(policy: CachePolicy) -> dict[str, Any]:
    """The policy as dicts of plain values, which a snapshot may hold."""
    fields = {field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)}
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in fields.items()}
    plain["layer_kinds"] = {layer: dict(kinds) for layer, kinds in policy.layer_kinds.items()}
    return plain
