"""What a cache policy costs in quality: held-out text, read with teacher forcing through caches of every policy.

A window holds context + 1 tokens. Its first `context` tokens are read into the cache, and the predictions made at the
last `scored` of them count: each attends to context - scored + 1 or more cached positions, the last one to all of them.
What a model predicts from a short cache is no evidence for a long one, so `scored` is at most half the context.

Definitions, over all scored predictions of all windows, p the baseline's distribution and q the policy's:

- nll: mean of -ln q(token), nats a token. delta_nll: nll minus the baseline's on the same tokens; its standard error
  `delta_nll_se` is that of the mean over windows (sample standard deviation / sqrt(windows)).
- ppl: exp(nll). ppl_ratio: exp(delta_nll).
- kl_mean: mean of KL(p || q) = sum of p (ln p - ln q), nats. kl_p999: its 99.9 % quantile over the predictions, between
  the two nearest ones by linear interpolation: below 1,000 predictions hardly less than the largest.
- same_top1: share of predictions whose most likely token is the same.
- packed_share: of the cached positions that the scored predictions read, the mean share that lies beyond the fp16
  window and is read as packed. Where it is 0, a policy's quality was not measured at all.

Legend: W windows, N vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bottleneck_core.errors import UserError
from bottleneck_core.generate.engine import Engine
from bottleneck_core.generate.heldout import EAGER, check_ids, log_probs, logits_chunk, reading_up_to, spread
from bottleneck_core.generate.layer import inference_dtype
from bottleneck_core.memory import FORMATS, PACKABLE, CachePolicy, cached_widths, kv_memory
from bottleneck_core.memory.policy_text import policy_label
from bottleneck_core.model import GPT

Policy = CachePolicy | None  # None: native, the model's own dtype
FP16 = CachePolicy()


@dataclass(frozen=True, kw_only=True)
class PolicyQuality:
    """One policy at one context; the module's docstring defines the numbers.

    `bytes` are those of one request's cache at `context` tokens (logical), `slope_bytes_per_token` those of one more
    token there. `scored_tokens` counts all windows, `scored` one. `delta_nll_se` is None for a single window,
    `packed_share` for a policy without quantised tensors.
    """

    policy: str
    context: int
    windows: int
    scored: int
    scored_tokens: int
    nll: float
    delta_nll: float
    delta_nll_se: float | None
    ppl: float
    ppl_ratio: float
    kl_mean: float
    kl_p999: float
    same_top1: float
    packed_share: float | None
    bytes: int
    slope_bytes_per_token: int

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for strict JSON: an infinite perplexity is null."""
        return {name: finite_or_none(value) for name, value in asdict(self).items()}


def cache_quality(
    model: GPT,
    ids: np.ndarray,
    policies: Sequence[Policy],
    *,
    contexts: Sequence[int],
    windows: int = 8,
    scored: int = 128,
    baseline: Policy = FP16,
    chunk: int | None = None,
    tick: Callable[[], None] = lambda: None,
) -> list[PolicyQuality]:
    """Quality of each policy at each context on held-out token ids (M,), the baseline's own row first.

    `windows` windows are spread evenly over the text, fewer where scored tokens would be counted twice. `scored`
    predictions a window, at most half the context. Text is read in pieces of `chunk` tokens (unset: as many as keep
    the logits small). `tick` is called after each window. A context beyond the block size is a warning. Raises
    UserError for text that is too short, for fewer than two scored tokens, and for a policy that is not the model's.
    """
    chosen = [baseline, *(policy for policy in policies if policy != baseline)]
    for policy in chosen:
        check_policy(model, policy)
    rows: list[PolicyQuality] = []
    for context in contexts:
        each = scored_of(context, scored)
        texts = spread(ids, context + 1, windows, stride=each)
        check_ids(model, texts)
        with reading_up_to(model, context):
            tallies = [_Tally() for _ in chosen]
            for text in torch.from_numpy(texts):
                _read(model, chosen, text, each, chunk or logits_chunk(model), tallies)
                tick()
        rows += [
            _row(model, policy, context, each, tally, tallies[0]) for policy, tally in zip(chosen, tallies, strict=True)
        ]
    return rows


def scored_of(context: int, scored: int) -> int:
    """Scored predictions of a window: those asked for, at most half the context. Raises UserError below two."""
    count = min(scored, context // 2)
    if count < 2:
        raise UserError(
            f"a context of {context} tokens and --scored {scored} leave {max(count, 0)} scored tokens a window: one "
            "token says nothing of quality, so give --scored 2 or more and contexts of at least 4"
        )
    return count


def label_of(policy: Policy) -> str:
    """The policy's text; `native` for the model's own dtype."""
    return "native" if policy is None else policy_label(policy)


def check_policy(model: GPT, policy: Policy) -> None:
    """Raise UserError for a policy that this model's cache cannot have."""
    if policy is None:
        return
    names, n_layer = list(cached_widths(model.config)), len(model.blocks)
    of_layers = policy.layer_kinds.values()
    named = {*policy.kinds, *policy.qblocks, *(name for kinds in of_layers for name in kinds)}
    if strange := sorted(named - set(names)):
        raise UserError(
            f"policy {label_of(policy)} names {strange[0]}, this model caches {', '.join(names)}: name one of these"
        )
    if any(layer >= n_layer for layer in policy.layer_kinds):
        raise UserError(f"policy {label_of(policy)} names a layer beyond the last, {n_layer - 1}: count from 0")
    for kind in _kinds(model, policy):
        if kind not in PACKABLE:
            raise UserError(
                f"policy {label_of(policy)} needs {kind}, which is sized but not stored: use {', '.join(PACKABLE)}"
            )
    try:
        kv_memory(model.config, 1, policy=policy)
    except ValueError as error:
        raise UserError(f"policy {label_of(policy)} does not fit this model: {error}") from None


def finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Tally:
    """Per window: (scored,) float64 arrays of NLL, KL, and whether the most likely token is the baseline's."""

    def __init__(self) -> None:
        self.nll: list[np.ndarray] = []
        self.kl: list[np.ndarray] = []
        self.same: list[np.ndarray] = []


def _read(
    model: GPT, policies: Sequence[Policy], text: Tensor, scored: int, chunk: int, tallies: Sequence[_Tally]
) -> None:
    """One window through all caches side by side, so that only one piece's distributions are held at a time."""
    context = len(text) - 1
    engines = [Engine(model, policy, plan=EAGER) for policy in policies]
    prefix = text[: context - scored].tolist()
    for engine in engines:
        engine.prefill([prefix])
    pieces: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in engines]
    for begin in range(context - scored, context, chunk):
        stop = min(begin + chunk, context)
        idx = text[None, begin:stop].to(engines[0].device)
        expected: Tensor | None = None
        for engine, piece in zip(engines, pieces, strict=True):
            found = log_probs(engine.feed(idx)[0])  # (stop - begin, N)
            expected = found if expected is None else expected
            targets = text[begin + 1 : stop + 1, None].to(found.device)
            kl = (expected.exp() * (expected - found)).sum(-1).clamp_min(0)  # rounding leaves -1e-17
            same = found.argmax(-1) == expected.argmax(-1)
            piece.append((-found.gather(-1, targets)[:, 0], kl, same))
    for tally, piece in zip(tallies, pieces, strict=True):
        nll, kl, same = (torch.cat(part).cpu().numpy() for part in zip(*piece, strict=True))
        tally.nll.append(nll)
        tally.kl.append(kl)
        tally.same.append(same)


def _row(model: GPT, policy: Policy, context: int, scored: int, tally: _Tally, base: _Tally) -> PolicyQuality:
    nll, kl, same = (np.stack(part) for part in (tally.nll, tally.kl, tally.same))  # (W, scored) each
    delta = (nll - np.stack(base.nll)).mean(1)  # (W,)
    windows = len(delta)
    size = kv_memory(model.config, context, policy=policy or FP16)
    # A native cache is the fp16 one with other values: nothing quantised, nothing in blocks.
    wider = 1 if policy is not None else inference_dtype(model).itemsize / 2
    return PolicyQuality(
        policy=label_of(policy),
        context=context,
        windows=windows,
        scored=scored,
        scored_tokens=nll.size,
        nll=float(nll.mean()),
        delta_nll=float(delta.mean()),
        delta_nll_se=float(delta.std(ddof=1) / windows**0.5) if windows > 1 else None,
        ppl=_exp(float(nll.mean())),
        ppl_ratio=_exp(float(delta.mean())),
        kl_mean=float(kl.mean()),
        kl_p999=float(np.quantile(kl, 0.999)),
        same_top1=float(same.mean()),
        packed_share=_packed_share(model, policy, context, scored),
        bytes=int(size.bytes * wider),
        slope_bytes_per_token=int(size.slope_bytes_per_token * wider),
    )


def _packed_share(model: GPT, policy: Policy, context: int, scored: int) -> float | None:
    if policy is None or not any(FORMATS[kind].quantised for kind in _kinds(model, policy)):
        return None
    seen = np.arange(context - scored + 1, context + 1)  # by each scored query, itself included
    return float((np.maximum(seen - policy.residual, 0) / seen).mean())


def _kinds(model: GPT, policy: CachePolicy) -> set[str]:
    names, n_layer = list(cached_widths(model.config)), len(model.blocks)
    return {policy.layer_kind(name, layer, n_layer) for name in names for layer in range(n_layer)}


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
