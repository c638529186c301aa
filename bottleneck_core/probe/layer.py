"""Sums of one layer's metrics over windows, chunk by chunk, on the device where its projections live.

Legend: B windows of a chunk, H heads, T tokens of a window, C chosen heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bottleneck_core.probe.attention import (
    AttentionRows,
    attend,
    pair_products,
    redundancy,
    row_metrics,
)
from bottleneck_core.probe.spectra import effective_rank, singular_values

if TYPE_CHECKING:
    from bottleneck_core.model.attention.base import Projected

# Scores of a chunk, B x H x R x T entries: 2**20 doubles are 8 MiB, and about five such tensors live at once. A GPU has
# the memory, and is faster with few large operations.
CHUNK_ENTRIES, CHUNK_ENTRIES_CUDA = 2**20, 2**23


@dataclass(frozen=True)
class Wanted:
    """What to measure of a layer beside the means of all heads."""

    topk: int
    local_window: int
    heads: tuple[int, ...]  # the chosen heads; () in a layer that is not chosen
    maps: bool
    svd: bool
    scores: bool


class LayerSums:
    """Running sums of one layer: `add` the windows in order, then read the means and the first one's maps."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.windows = 0
        self.tokens = 0
        self.maps: Tensor | None = None  # (C, T, T) float32
        self.sem_scores: Tensor | None = None  # (C, T, T) float32, NaN where the key is hidden
        self.geo_scores: Tensor | None = None
        self._over_queries: dict[str, Tensor] = {}  # (H,)
        self._over_pairs: dict[str, Tensor] = {}  # (H,)
        self._over_windows: dict[str, Tensor] = {}  # redundancy (), erank (C,), svd (C, T)
        self._undecomposed: list[Tensor] = []  # maps (B, C, T, T) whose singular values are still to be taken

    def add(self, projected: Projected) -> None:
        """Take in the windows of `projected`, as many at a time as the chunk size allows."""
        B, H, self.tokens, _ = projected.q.shape
        entries = CHUNK_ENTRIES_CUDA if projected.q.is_cuda else CHUNK_ENTRIES
        for windows in _chunks(B, entries // (H * self.tokens**2)):
            self._add_windows(projected, windows, entries)

    def _add_windows(self, projected: Projected, windows: slice, entries: int) -> None:
        wanted, B, T = self.wanted, windows.stop - windows.start, self.tokens
        H, device = projected.q.shape[1], projected.q.device
        products = torch.zeros(B, H, H, dtype=torch.float64, device=device)
        maps = None
        if wanted.heads and (wanted.maps or wanted.svd):
            maps = torch.zeros(B, len(wanted.heads), T, T, dtype=torch.float64, device=device)
        for span in _chunks(T, entries // (B * H * T)):
            rows = attend(projected, windows, span.start, span.stop)
            for name, values in row_metrics(rows, topk=wanted.topk, local_window=wanted.local_window).items():
                _increase(self._over_queries, name, values.sum((0, 2)))
            products += pair_products(rows)
            if maps is not None:
                maps[:, :, span, : span.stop] = rows.probs[:, wanted.heads]
            if rows.sem is not None and rows.geo is not None:
                self._add_logits(rows, rows.sem, rows.geo)
        if H > 1:
            _increase(self._over_windows, "redundancy", redundancy(products).sum())
        if maps is not None and wanted.svd:
            self._undecomposed.append(maps)
            # On a GPU they wait until the means are asked for, so that whoever trains need not wait for the CPU.
            if not maps.is_cuda or sum(each.numel() for each in self._undecomposed) > entries:
                self._decompose()
        if maps is not None and wanted.maps and self.windows == 0:
            self.maps = maps[0].float()
        self.windows += B

    def _add_logits(self, rows: AttentionRows, sem: Tensor, geo: Tensor) -> None:
        """The two parts of decoupled attention: their energy, and the chosen heads of the first window."""
        _increase(self._over_pairs, "sem", sem.square().sum((0, 2, 3)))
        _increase(self._over_pairs, "geo", geo.square().sum((0, 2, 3)))
        if not (self.wanted.scores and self.wanted.heads) or self.windows > 0:
            return
        if self.sem_scores is None or self.geo_scores is None:
            empty = torch.full((len(self.wanted.heads), self.tokens, self.tokens), torch.nan, device=sem.device)
            self.sem_scores, self.geo_scores = empty, empty.clone()
        R, S = rows.distance.shape
        for store, logits in ((self.sem_scores, sem), (self.geo_scores, geo)):
            chosen = logits[0, self.wanted.heads].float()  # (C, R, S)
            store[:, rows.first : rows.first + R, :S] = chosen.masked_fill(rows.distance < 0, torch.nan)

    def _decompose(self) -> None:
        for maps in self._undecomposed:
            values = singular_values(maps)  # (B, C, T)
            _increase(self._over_windows, "svd", values.sum(0))
            _increase(self._over_windows, "erank", effective_rank(values).sum(0))
        self._undecomposed = []

    def head_means(self) -> dict[str, Tensor]:
        """Means over queries and windows, and the energy ratios: {metric: (H,)} float64, on the device."""
        means = {}
        for name, total in self._over_queries.items():
            queries = self.tokens - 1 if name == "prev_mass" else self.tokens
            if queries:
                means[name] = total / (self.windows * queries)
        if self._over_pairs:
            # both are sums over the same visible pairs, so their ratio is that of the mean squares
            sem, geo = self._over_pairs["sem"], self._over_pairs["geo"]
            means["sem_energy_ratio"] = sem / (sem + geo)
            means["geo_energy_ratio"] = geo / (sem + geo)
        return means

    def window_means(self) -> dict[str, Tensor]:
        """Means over windows of `redundancy` (), `erank` (C,) and `svd` (C, T), those that were taken."""
        self._decompose()
        return {name: total / self.windows for name, total in self._over_windows.items()}


def _increase(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    sums[name] = sums[name] + value if name in sums else value


def _chunks(count: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most `size`, and at least one, that cover range(count)."""
    size = max(1, size)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
