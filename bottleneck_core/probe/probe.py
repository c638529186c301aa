"""The probe: a separate pass over the layers of a model that measures where its attention looks.

It walks through the blocks itself (no hooks, nothing compiled), in evaluation mode and without gradients,
draws no random number, and leaves the model and PyTorch's settings as it found them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bottleneck_core.errors import UserError
from bottleneck_core.probe.layer import LayerSums, Wanted
from bottleneck_core.probe.result import HeadArrays, ProbeResult
from bottleneck_core.probe.selection import parse_selection
from bottleneck_core.probe.spectra import stable_rank

if TYPE_CHECKING:
    from bottleneck_core.model.attention.base import Projected

# Tokens that go through the model at once, unless the caller says otherwise: less than any size trains on.
TOKENS_AT_ONCE = 2048


def attention_metrics(model: nn.Module, idx: Tensor, **options: Any) -> ProbeResult:
    """Metrics of every layer and head of `model` on the token windows `idx` (N, T): the result of `begin_probe`, whose
    options it takes (`topk`, `local_window`, `layers`, `heads`, `full`, ...) and whose errors it raises."""
    return begin_probe(model, idx, **options).result()


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A probe whose pass over the model is queued on its device. The model may change from now on."""

    sums: list[LayerSums]
    ranks: dict[str, Tensor]
    layers: tuple[int, ...]
    heads: tuple[int, ...]

    def result(self) -> ProbeResult:
        """Waits for the device, takes the singular values on the CPU; in any thread, once."""
        return _collect(self.sums, self.ranks, self.layers, self.heads)


def begin_probe(
    model: nn.Module,
    idx: Tensor,
    *,
    topk: int = 8,
    local_window: int = 32,
    layers: str | Sequence[int] = "0,-1",
    heads: str | Sequence[int] = "0",
    full: bool = True,
    maps: bool = True,
    svd: bool = True,
    save_scores: bool = False,
    window_batch: int | None = None,
) -> Probe:
    """Metrics of every layer and head of `model` on the token windows `idx` (N, T).

    `ProbeResult` lists the metrics, `probe.attention` and `probe.spectra` define them. `layers` and `heads`
    choose the maps that are kept (`maps`), decomposed (`svd`: singular values and effective rank) and, in
    decoupled attention, stored as logits (`save_scores`). `full=False` leaves out all of these and the stable
    ranks. `window_batch` windows go through the model at once: it bounds memory and changes results by
    rounding only.

    The pass is float32, or float64 where the model is; the metrics are float64 throughout. `model` may be
    compiled or wrapped for data-parallel training. Raises UserError for an empty or misshapen batch, a token
    outside the vocabulary, and a layer or head that does not exist.
    """
    source = raw_module(model)
    config = source.config
    _check(idx, config.vocab_size, topk, local_window, window_batch)
    chosen_layers = parse_selection(layers, config.n_layer, "layer")
    chosen_heads = parse_selection(heads, config.n_head, "head")
    chosen = Wanted(topk, local_window, chosen_heads, full and maps, full and svd, full and save_scores)
    others = replace(chosen, heads=())
    sums = [LayerSums(chosen if layer in chosen_layers else others) for layer in range(config.n_layer)]

    with _undisturbed(source) as net:
        device = next(net.parameters()).device
        for windows in idx.split(window_batch or max(1, TOKENS_AT_ONCE // idx.shape[1])):
            for layer, projected in walk(net, windows.to(device)):
                sums[layer].add(_measurable(projected))
        ranks = _stable_ranks(net) if full else {}
    return Probe(sums=sums, ranks=ranks, layers=chosen_layers, heads=chosen_heads)


def raw_module(model: nn.Module) -> Any:
    """The module inside the wrappers of torch.compile and DistributedDataParallel, in any order."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif (compiled := getattr(model, "_orig_mod", None)) is not None:
            model = compiled
        else:
            return model


def walk(net: Any, idx: Tensor) -> Iterator[tuple[int, Projected]]:
    """Number and projections of each layer in order, for ids (B, T), along the pre-norm residual path."""
    x = net.embed_tokens(idx)  # (B, T, d_model)
    for layer, block in enumerate(net.blocks):
        normed = block.attn_norm(x)
        yield layer, block.attn.project(normed)
        if layer + 1 < len(net.blocks):  # no attention sees what the last block puts out
            x = x + block.attn(normed)
            x = x + block.mlp(block.mlp_norm(x))


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[nn.Module]:
    """`model`, or a float32 copy of a narrower one, ready for an exact pass; all is put back afterwards."""
    parameters = list(model.parameters())
    narrow = any(p.is_floating_point() and p.element_size() < 4 for p in parameters)
    modes = [(module, module.training) for module in model.modules()]
    # TF32 and bf16 products would show in the metrics
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # pyright: ignore
    precisions = [backend.fp32_precision for backend in backends]
    try:
        model.eval()
        for backend in backends:
            backend.fp32_precision = "ieee"
        # no_grad, not inference_mode: a rotary table cached by this pass must serve the next training step
        with torch.no_grad(), torch.autocast(parameters[0].device.type, enabled=False):
            yield deepcopy(model).float() if narrow else model
    finally:
        for backend, precision in zip(backends, precisions, strict=True):
            backend.fp32_precision = precision
        for module, training in modes:
            module.training = training


def _measurable(projected: Projected) -> Projected:
    """The projections on a device that has float64: Apple's GPUs do not."""
    if projected.q.device.type != "mps":
        return projected
    values = {field.name: getattr(projected, field.name) for field in fields(projected)}
    return replace(projected, **{name: v.cpu() for name, v in values.items() if isinstance(v, Tensor)})


def _stable_ranks(net: Any) -> dict[str, Tensor]:
    """{metric: (L,)} of each query and key projection, plain and divided by its maximum, the smaller side."""
    weights: dict[str, list[Tensor]] = {}
    for block in net.blocks:
        for name, weight in block.attn.query_key_weights().items():
            weights.setdefault(name, []).append(weight.cpu() if weight.device.type == "mps" else weight)
    ranks = {}
    for name, of_layers in weights.items():
        ranks[f"stable_rank_{name}"] = rank = stable_rank(torch.stack(of_layers))
        ranks[f"stable_rank_{name}_norm"] = rank / min(of_layers[0].shape)
    return ranks


def _collect(
    sums: list[LayerSums], ranks: dict[str, Tensor], layers: tuple[int, ...], heads: tuple[int, ...]
) -> ProbeResult:
    """The device's sums as arrays on the host; only the chosen layers' maps are transferred one by one."""
    head_means = [layer.head_means() for layer in sums]
    attn = _to_host({name: torch.stack([means[name] for means in head_means]) for name in head_means[0]})
    window_means = [layer.window_means() for layer in sums]
    if "redundancy" in window_means[0]:
        ranks["redundancy"] = torch.stack([means["redundancy"] for means in window_means])
    stored: dict[str, HeadArrays] = {"maps": {}, "svd": {}, "sem_scores": {}, "geo_scores": {}}
    for layer in layers:
        means = window_means[layer]
        if "erank" in means:
            erank = attn.setdefault("erank", np.full_like(attn["entropy"], np.nan))
            erank[layer, list(heads)] = means["erank"].cpu().numpy()
        for name, kept in (
            ("maps", sums[layer].maps),
            ("svd", means.get("svd")),
            ("sem_scores", sums[layer].sem_scores),
            ("geo_scores", sums[layer].geo_scores),
        ):
            if kept is not None:
                arrays = kept.float().cpu().numpy()
                stored[name].update({(layer, head): arrays[i] for i, head in enumerate(heads)})
    return ProbeResult(attn, _to_host(ranks), layers, heads, **stored)


def _to_host(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Equally shaped tensors as float32 arrays, in one transfer."""
    if not tensors:
        return {}
    arrays = torch.stack(list(tensors.values())).float().cpu().numpy()
    return dict(zip(tensors, arrays, strict=True))


def _check(idx: Tensor, vocab_size: int, topk: int, local_window: int, window_batch: int | None) -> None:
    if idx.ndim != 2 or idx.numel() == 0:
        raise UserError(
            f"the probe needs token ids (windows, tokens), at least one of each, got shape {tuple(idx.shape)}"
        )
    low, high = int(idx.min()), int(idx.max())
    if low < 0 or high >= vocab_size:
        wrong = low if low < 0 else high
        raise UserError(f"the probe's tokens must be ids 0 to {vocab_size - 1} of the vocabulary, got {wrong}")
    limits = (("topk", topk, 1), ("local_window", local_window, 0), ("window_batch", window_batch, 1))
    for name, value, least in limits:
        if value is not None and value < least:
            raise UserError(f"analysis {name} must be >= {least}, got {value}")
