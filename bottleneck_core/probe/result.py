"""What a probe returns: arrays by metric, and their means for the event log."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# {(layer, head): array} of the chosen layers and heads
HeadArrays = dict[tuple[int, int], np.ndarray]


@dataclass(frozen=True)
class ProbeResult:
    """Metrics of one model on one batch of N windows of T tokens.

    attn        {metric: [L, H]} float32, means over queries and windows. `erank` is NaN outside the chosen
                layers and heads. What cannot exist is absent: the energy ratios unless attention is
                decoupled, `prev_mass` where T is 1, `erank` unless it was asked for.
    weights     {metric: [L]} float32: `stable_rank_<name>` and `stable_rank_<name>_norm` of each query and
                key projection (absent unless asked for); `redundancy` (absent with one head).
    maps        {(layer, head): [T, T]} float32, first window, rows are queries, null column dropped.
    svd         {(layer, head): [T]} float32, the maps' singular values, descending, mean over windows.
    sem_scores  {(layer, head): [T, T]} float32, scaled logits of the first window, NaN where the key is
    geo_scores  hidden; decoupled attention only.
    layers      the chosen layers and
    heads       the chosen heads, ascending.

    A non-finite weight makes the metrics that depend on it NaN and raises nothing; the caller reports it.
    """

    attn: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    maps: HeadArrays = field(default_factory=dict)
    svd: HeadArrays = field(default_factory=dict)
    sem_scores: HeadArrays = field(default_factory=dict)
    geo_scores: HeadArrays = field(default_factory=dict)

    def scalars(self) -> dict[str, float]:
        """Means over layers and heads under the keys of an `analysis` event.

        `attn_<metric>_mean` (`attn_erank_mean` over the chosen layers and heads), `sem_energy_ratio_mean`,
        `geo_energy_ratio_mean`, and over all query and key projections `proj_stable_rank_mean` and
        `proj_stable_rank_norm_mean`. What is absent from the arrays has no key; what is not finite stays so.
        """
        means = {}
        for metric, values in self.attn.items():
            if metric == "erank":
                values = values[np.ix_(self.layers, self.heads)]
            prefix = "" if metric.endswith("_energy_ratio") else "attn_"
            means[f"{prefix}{metric}_mean"] = _mean(values)
        for metric, values in self.weights.items():
            if metric == "redundancy":
                means["attn_redundancy_mean"] = _mean(values)
        ranks = {name: values for name, values in self.weights.items() if name.startswith("stable_rank_")}
        if ranks:
            normed = [values for name, values in ranks.items() if name.endswith("_norm")]
            plain = [values for name, values in ranks.items() if not name.endswith("_norm")]
            means["proj_stable_rank_mean"] = _mean(np.stack(plain))
            means["proj_stable_rank_norm_mean"] = _mean(np.stack(normed))
        return means


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64))
