"""Attention of a chunk of query rows, and the metrics of each of its heads.

Everything is float64: a probe is small, and the entropy of a peaked row loses four digits in float32. Only
the keys that a chunk can see are computed, so no T x T tensor of all windows and heads ever exists.

Legend: B windows, H heads, G kv heads, T tokens of a window, R query rows of the chunk (`first` and those
after it), S = first + R keys of the chunk, K head dim of queries and keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bottleneck_core.model.attention.base import Projected


@dataclass(frozen=True)
class AttentionRows:
    """Where the query rows `first` .. `first + R - 1` look, in float64.

    A row of `probs` sums to 1 together with its entry in `null`. For the keys after a query, which are hidden
    from it, `probs` and the scaled logits `sem` and `geo` of decoupled attention are 0.
    """

    first: int
    probs: Tensor  # (B, H, R, S)
    null: Tensor | None  # (B, H, R): probability of the null key; None without null attention
    entropy: Tensor  # (B, H, R), nats, null included
    sem: Tensor | None = None  # (B, H, R, S)
    geo: Tensor | None = None  # (B, H, R, S)

    @property
    def distance(self) -> Tensor:
        """How many tokens each key lies behind its query: (R, S), negative where the key is hidden."""
        return key_distance(self.first, self.probs.shape[-2], self.probs.device)

    @property
    def visible(self) -> Tensor:
        """Number of keys that each row sees, the null key counted: (R,)."""
        rows = torch.arange(self.probs.shape[-2], device=self.probs.device)
        return self.first + 1 + rows + (self.null is not None)


def key_distance(first: int, rows: int, device: torch.device) -> Tensor:
    """Query position minus key position for the rows from `first` on: (R, first + R)."""
    queries = torch.arange(first, first + rows, device=device)
    return queries[:, None] - torch.arange(first + rows, device=device)


def attend(projected: Projected, windows: slice, first: int, stop: int) -> AttentionRows:
    """Attention of the query rows `first` .. `stop - 1` of some windows of a layer, null key included."""
    q = projected.q[windows, :, first:stop].double() * projected.scale  # (B, H, R, K)
    k = projected.k[windows, :, :stop].double()  # (B, G, S, K)
    sem = geo = null = null_scores = None
    if width := projected.sem_width:
        sem = _scores(q[..., :width], k[..., :width])
        geo = _scores(q[..., width:], k[..., width:])
        scores = sem + geo
    else:
        scores = _scores(q, k)  # (B, H, R, S)
    if projected.null_k is not None:
        null_k = projected.null_k.double().expand(len(q), -1, -1)[:, :, None]  # (B, G, 1, K)
        null_scores = _scores(q, null_k)[..., 0]  # (B, H, R)

    hidden = key_distance(first, stop - first, q.device) < 0  # (R, S)
    scores.masked_fill_(hidden, -math.inf)
    lse = scores.logsumexp(-1)
    if null_scores is not None:
        lse = torch.logaddexp(lse, null_scores)
    log_probs = scores.sub_(lse[..., None])
    probs = log_probs.exp()
    # hidden pairs have p = 0 and must not bring 0 * -inf; lse - sum p s would cancel where logits are large
    entropy = -(probs * log_probs.masked_fill_(hidden, 0.0)).sum(-1)
    if null_scores is not None:
        null = (null_scores - lse).exp()
        entropy = entropy - null * (null_scores - lse)
    if sem is not None and geo is not None:
        sem.masked_fill_(hidden, 0.0)
        geo.masked_fill_(hidden, 0.0)
    return AttentionRows(first, probs, null, entropy, sem, geo)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    """q k^T, query head h with kv head h // (H // G): (B, H, R, K), (B, G, S, K) -> (B, H, R, S)."""
    B, H, R, K = q.shape
    G = k.shape[1]
    # the H / G heads of a group are stacked as rows, so that k is not repeated
    grouped = q.reshape(B, G, (H // G) * R, K) @ k.mT  # (B, G, H/G * R, S)
    return grouped.view(B, H, R, -1)


def row_metrics(rows: AttentionRows, *, topk: int, local_window: int) -> dict[str, Tensor]:
    """The metrics that are a mean over queries, one value a query row: {name: (B, H, R)}.

    `prev_mass` has no value for query 0. Without null attention `null_mass` is 0.
    """
    return {
        "entropy": rows.entropy,
        "entropy_norm": entropy_norm(rows),
        "topk_mass": topk_mass(rows, topk),
        "local_mass": local_mass(rows, local_window),
        "null_mass": torch.zeros_like(rows.entropy) if rows.null is None else rows.null,
        "sink_mass": rows.probs[..., 0],
        "prev_mass": prev_mass(rows),
        "distance": mean_distance(rows),
    }


def entropy_norm(rows: AttentionRows) -> Tensor:
    """Entropy over its maximum, the ln of the number of visible keys; a row with one visible key has 0."""
    most = rows.visible.double().log()
    return rows.entropy / most.masked_fill(rows.visible == 1, math.inf)


def topk_mass(rows: AttentionRows, k: int) -> Tensor:
    """Mass of the k most probable keys, the null key among them; all of it where fewer are visible."""
    best = rows.probs.topk(min(k, rows.probs.shape[-1]), dim=-1, sorted=False).values
    if rows.null is not None:
        best = torch.cat([best, rows.null[..., None]], dim=-1)
        best = best.topk(min(k, best.shape[-1]), dim=-1, sorted=False).values
    return best.sum(-1)


def local_mass(rows: AttentionRows, window: int) -> Tensor:
    """Mass on the keys [max(0, q - window), q] of query q; window 0 is the query's own position."""
    return rows.probs.masked_fill(rows.distance > window, 0.0).sum(-1)


def prev_mass(rows: AttentionRows) -> Tensor:
    """Mass on the key just before the query, (B, H, R); query 0 has none, so R - 1 if `first` is 0."""
    return rows.probs.diagonal(rows.first - 1, dim1=-2, dim2=-1)


def mean_distance(rows: AttentionRows) -> Tensor:
    """Distance of key to query in tokens, weighted by mass; what the null key takes is not redistributed."""
    return (rows.probs * rows.distance.double()).sum(-1)


def pair_products(rows: AttentionRows) -> Tensor:
    """Inner products of the heads' maps, (B, H, H); their sum over chunks is that of the whole maps."""
    flat = rows.probs.flatten(2)  # (B, H, R * S)
    return flat @ flat.mT


def redundancy(products: Tensor) -> Tensor:
    """Mean cosine over the pairs of different heads, from their inner products: (B, H, H) -> (B,), H > 1."""
    H = products.shape[-1]
    norms = products.diagonal(dim1=-2, dim2=-1).sqrt()
    cosines = products / (norms[..., :, None] * norms[..., None, :])
    one, other = torch.triu_indices(H, H, offset=1, device=products.device)
    return cosines[..., one, other].mean(-1)


def uniform_entropy(tokens: int, null: bool) -> float:
    """Entropy in nats of attention spread evenly over the visible keys, mean over the queries of a window.

    The mean of ln(q + 1 + null) for q = 0 .. tokens - 1, a sum that is ln((tokens + null)!) either way.
    """
    if tokens < 1:
        raise ValueError(f"a window has at least one token, got {tokens}")
    return math.lgamma(tokens + null + 1) / tokens
