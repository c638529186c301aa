"""Every metric of the probe again, in NumPy float64, by loops over whole attention matrices.

Written from the definitions and not from the code under test: only the queries and keys come from the model.
A matrix here is (T, T) with zeros above the diagonal, beside the (T,) mass of the null key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class Layer:
    """Queries and keys of one layer as float64 arrays."""

    q: np.ndarray  # (N, H, T, K)
    k: np.ndarray  # (N, G, T, K)
    scale: float
    null_k: np.ndarray | None  # (G, K)
    sem_width: int


@dataclass
class Matrix:
    """Attention of one head in one window."""

    keys: np.ndarray  # (T, T)
    null: np.ndarray  # (T,)
    has_null: bool
    sem: np.ndarray  # (T, T) scaled logits of the visible pairs, NaN elsewhere
    geo: np.ndarray

    def row(self, query: int) -> np.ndarray:
        """Probabilities of all that this query sees, the null key last."""
        seen = self.keys[query, : query + 1]
        return np.append(seen, self.null[query]) if self.has_null else seen


def pull_layers(model, idx: torch.Tensor) -> list[Layer]:
    """Queries and keys of each layer, the model itself doing every step between them."""
    layers = []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        x = model.embed_tokens(idx)
        for block in model.blocks:
            p = block.attn.project(block.attn_norm(x))
            null_k = None if p.null_k is None else p.null_k.double().numpy()
            layers.append(
                Layer(p.q.double().numpy(), p.k.double().numpy(), p.scale, null_k, p.sem_width),
            )
            x = block(x)
    model.train(was_training)
    return layers


def matrix(layer: Layer, window: int, head: int) -> Matrix:
    """The attention matrix of one head in one window, row by row."""
    q = layer.q[window, head]
    kv_head = head // (layer.q.shape[1] // layer.k.shape[1])
    k = layer.k[window, kv_head]
    T, width = len(q), layer.sem_width
    keys, null = np.zeros((T, T)), np.zeros(T)
    sem, geo = np.full((T, T), np.nan), np.full((T, T), np.nan)
    for i in range(T):
        logits = []
        for j in range(i + 1):
            if width:
                sem[i, j] = layer.scale * np.dot(q[i, :width], k[j, :width])
                geo[i, j] = layer.scale * np.dot(q[i, width:], k[j, width:])
            logits.append(layer.scale * np.dot(q[i], k[j]))
        if layer.null_k is not None:
            logits.append(layer.scale * np.dot(q[i], layer.null_k[kv_head]))
        weights = np.exp(np.array(logits) - max(logits))
        weights /= weights.sum()
        keys[i, : i + 1] = weights[: i + 1]
        if layer.null_k is not None:
            null[i] = weights[-1]
    return Matrix(keys, null, layer.null_k is not None, sem, geo)


def head_metrics(matrices: list[Matrix], topk: int, window: int) -> dict[str, float]:
    """The metrics of one head from its matrices in all windows."""
    rows: dict[str, list[float]] = {
        name: []
        for name in (
            "entropy",
            "entropy_norm",
            "topk_mass",
            "local_mass",
            "null_mass",
            "sink_mass",
            "prev_mass",
            "distance",
        )
    }
    squares: dict[str, list[float]] = {"sem": [], "geo": []}
    for m in matrices:
        for i in range(len(m.keys)):
            p = m.row(i)
            entropy = -sum(float(x) * np.log(x) for x in p if x > 0)
            rows["entropy"].append(entropy)
            rows["entropy_norm"].append(entropy / np.log(len(p)) if len(p) > 1 else 0.0)
            rows["topk_mass"].append(sum(sorted(p, reverse=True)[:topk]))
            rows["local_mass"].append(sum(m.keys[i, j] for j in range(max(0, i - window), i + 1)))
            rows["null_mass"].append(m.null[i])
            rows["sink_mass"].append(m.keys[i, 0])
            if i >= 1:
                rows["prev_mass"].append(m.keys[i, i - 1])
            rows["distance"].append(sum((i - j) * m.keys[i, j] for j in range(i + 1)))
            for part, logits in (("sem", m.sem), ("geo", m.geo)):
                squares[part] += [logits[i, j] ** 2 for j in range(i + 1)]
    means = {name: float(np.mean(values)) for name, values in rows.items() if values}
    energy = {part: np.mean(values) for part, values in squares.items()}
    for part, value in energy.items():
        means[f"{part}_energy_ratio"] = float(value / (energy["sem"] + energy["geo"]))
    return means


def singular_values(matrices: list[Matrix]) -> np.ndarray:
    """Mean over windows of the singular values of the maps without the null column: (T,)."""
    return np.mean([np.linalg.svd(m.keys, compute_uv=False) for m in matrices], axis=0)


def effective_rank(matrices: list[Matrix]) -> float:
    """Mean over windows of exp(entropy of the normalised singular values)."""
    ranks = []
    for m in matrices:
        values = np.linalg.svd(m.keys, compute_uv=False)
        share = [v / values.sum() for v in values]
        ranks.append(np.exp(-sum(s * np.log(s) for s in share if s > 0)))
    return float(np.mean(ranks))


def redundancy(heads: list[list[Matrix]]) -> float:
    """Mean cosine over the pairs of heads and the windows; `heads[h][n]` is head h in window n."""
    cosines = []
    for n in range(len(heads[0])):
        for h in range(len(heads)):
            for g in range(h):
                a, b = heads[h][n].keys, heads[g][n].keys
                cosines.append((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
    return float(np.mean(cosines))


def stable_rank(weight: np.ndarray) -> float:
    """Squared Frobenius norm over squared largest singular value."""
    return float((weight**2).sum() / np.linalg.norm(weight, 2) ** 2)
