"""What every measured number means: name, label, unit and definition, in one place.

Pages show the definitions on hover and analysis.h5 carries them as attributes, so a file explains itself.
Attention metrics are means over the queries of the probe windows. q is the query's position, its keys are 0
to q, and p is its softmax row over these and the null key, where the model has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One measured quantity.

    `per` says what one value belongs to: a head of a layer, a layer, or the whole model at one step.
    `better` is the direction of improvement, None where neither is. `lower` and `upper` are the bounds that
    hold for every model, None where there is none or where it depends on the model or the window's length.
    """

    name: str
    label: str
    unit: str
    definition: str
    per: Literal["layer_head", "layer", "scalar"] = "scalar"
    better: Literal["lower", "higher"] | None = None
    lower: float | None = None
    upper: float | None = None


def _attention(name: str, label: str, unit: str, definition: str, lower: float, upper: float | None) -> Metric:
    return Metric(name, label, unit, definition, per="layer_head", lower=lower, upper=upper)


def _norm(name: str, label: str, parameters: str) -> Metric:
    definition = f"L2 norm of the loss gradient over {parameters}, before clipping."
    return Metric(name, label, "1", definition, lower=0.0)


_ATTENTION = (
    _attention(
        "entropy",
        "Entropy",
        "nats",
        "-sum p ln p of a query's attention row, the null key included. 0: one key takes everything; "
        "ln(number of visible keys): uniform.",
        0.0,
        None,
    ),
    _attention(
        "entropy_norm",
        "Normalised entropy",
        "share",
        "Each row's entropy divided by ln of its number of visible keys, the null key counted, "
        "then averaged; a row with a single visible key counts as 0. 1 is uniform attention.",
        0.0,
        1.0,
    ),
    _attention(
        "topk_mass",
        "Top-k mass",
        "share",
        "Sum of the k largest weights of a row, the null key included; k is the run's analysis_topk. "
        "Rows with at most k visible keys give 1.",
        0.0,
        1.0,
    ),
    _attention(
        "local_mass",
        "Local mass",
        "share",
        "Weight on the query itself and the w keys before it, max(0, q - w) to q; w is the run's "
        "analysis_local_window. Weight on the null key counts as not local.",
        0.0,
        1.0,
    ),
    _attention(
        "null_mass",
        "Null mass",
        "share",
        "Weight on the learned null key, which lets a query attend to nothing; 0 in a model without one.",
        0.0,
        1.0,
    ),
    _attention(
        "sink_mass",
        "Sink mass",
        "share",
        "Weight on the first token of the window, key 0. Not renormalised for weight on the null key.",
        0.0,
        1.0,
    ),
    _attention(
        "prev_mass",
        "Previous-token mass",
        "share",
        "Weight on the token just before the query, key q - 1, averaged over the queries q >= 1. "
        "Not renormalised for weight on the null key.",
        0.0,
        1.0,
    ),
    _attention(
        "distance",
        "Distance",
        "tokens",
        "How far back a row looks: sum over keys j of p_j (q - j). The null key adds nothing, "
        "and the rest is not renormalised.",
        0.0,
        None,
    ),
    _attention(
        "sem_energy_ratio",
        "Semantic energy",
        "share",
        "Mean square of the scaled semantic logits over all visible query-key pairs, divided by the sum "
        "of the mean squares of the semantic and the geometric logits. Decoupled attention only.",
        0.0,
        1.0,
    ),
    _attention(
        "geo_energy_ratio",
        "Geometric energy",
        "share",
        "Mean square of the scaled geometric logits over all visible query-key pairs, divided by the sum "
        "of the mean squares of the semantic and the geometric logits; 1 minus the semantic energy.",
        0.0,
        1.0,
    ),
    _attention(
        "erank",
        "Effective rank",
        "dimensions",
        "exp of the entropy of the singular values, normalised to sum 1, of the attention map without its "
        "null column; float64, mean over windows. Measured for the chosen layers and heads only.",
        1.0,
        None,
    ),
)


def _stable_ranks() -> list[Metric]:
    """Stable rank of each query and key projection, plain and divided by its maximum."""
    matrices = {
        "q": "query projection",
        "k": "key projection",
        "q_sem": "semantic query projection",
        "k_sem": "semantic key projection",
        "q_geo": "geometric query projection",
        "k_geo": "geometric key projection",
    }
    ranks = []
    for key, matrix in matrices.items():
        name, label = f"stable_rank_{key}", f"Stable rank, {matrix}"
        definition = (
            f"Squared Frobenius norm of the layer's {matrix} divided by the square of its largest singular "
            "value; a count of directions that carry weight."
        )
        share = f"Stable rank of the layer's {matrix} divided by its maximum, the matrix's smaller dimension."
        ranks.append(Metric(name, label, "dimensions", definition, per="layer", lower=1.0))
        ranks.append(Metric(f"{name}_norm", f"{label}, of maximum", "share", share, per="layer", lower=0.0, upper=1.0))
    return ranks


_WEIGHTS = (
    *_stable_ranks(),
    Metric(
        "redundancy",
        "Head redundancy",
        "cosine",
        "Mean cosine similarity of the attention maps of all pairs of heads of a layer, the maps flattened "
        "without the null column. 1: all heads do the same.",
        per="layer",
        lower=0.0,
        upper=1.0,
    ),
)

_TRAINING = (
    Metric(
        "loss",
        "Training loss",
        "nats/token",
        "Mean cross-entropy of the step's batch, before the update.",
        better="lower",
        lower=0.0,
    ),
    Metric("ppl", "Training perplexity", "1", "exp of the training loss.", better="lower", lower=1.0),
    Metric(
        "train_loss",
        "Training loss (eval)",
        "nats/token",
        "Mean cross-entropy over the evaluation windows of the training split, model in evaluation mode.",
        better="lower",
        lower=0.0,
    ),
    Metric(
        "val_loss",
        "Validation loss",
        "nats/token",
        "Mean cross-entropy over the fixed evaluation windows of the validation split.",
        better="lower",
        lower=0.0,
    ),
    Metric(
        "best_val",
        "Best validation loss",
        "nats/token",
        "Least validation loss of the run up to this step.",
        better="lower",
        lower=0.0,
    ),
    Metric("val_ppl", "Validation perplexity", "1", "exp of the validation loss.", better="lower", lower=1.0),
    Metric("lr", "Learning rate", "1", "Step size of the optimiser at this step, after the schedule.", lower=0.0),
    Metric("tokens", "Tokens", "tokens", "Training tokens consumed from the run's start, this step included."),
    Metric(
        "tok_s",
        "Throughput",
        "tokens/s",
        "Tokens of a step divided by the wall time of its forward pass, backward pass and optimiser update.",
        better="higher",
        lower=0.0,
    ),
    Metric("step_ms", "Step time", "ms", "Wall time of one optimiser step.", better="lower", lower=0.0),
    Metric(
        "mfu",
        "Model FLOPs utilisation",
        "share",
        "FLOPs the model's arithmetic needs per second at this throughput, divided by the device's peak; "
        "unknown where the peak is.",
        better="higher",
        lower=0.0,
        upper=1.0,
    ),
    _norm("grad_norm_embed", "Gradient norm, embedding", "the embedding parameters"),
    _norm("grad_norm_attn", "Gradient norm, attention", "all attention parameters"),
    _norm("grad_norm_ffn", "Gradient norm, feed-forward", "the feed-forward parameters"),
    _norm("grad_norm_attn_sem", "Gradient norm, semantic", "the semantic query and key parameters"),
    _norm("grad_norm_attn_geo", "Gradient norm, geometric", "the geometric query and key parameters"),
    _norm("grad_clip_total_norm", "Gradient norm, total", "all parameters"),
)


def _mean(name: str, of: Metric, over: str = "all layers and heads") -> Metric:
    """The scalar of the `analysis` event that averages one metric over the model, within the same bounds."""
    label = (of.label[0].lower() + of.label[1:]).replace(", query projection", "")
    return Metric(name, f"Mean {label}", of.unit, f"Mean {label}, over {over}.", lower=of.lower, upper=of.upper)


_MEANS = (
    *(
        _mean(
            f"{metric.name}_mean" if metric.name.endswith("_energy_ratio") else f"attn_{metric.name}_mean",
            metric,
        )
        for metric in _ATTENTION
        if metric.name != "erank"
    ),
    _mean("attn_erank_mean", _ATTENTION[-1], "the chosen layers and heads"),
    _mean("attn_redundancy_mean", _WEIGHTS[-1], "all layers"),
    _mean("proj_stable_rank_mean", _WEIGHTS[0], "the query and key projections of all layers"),
    _mean("proj_stable_rank_norm_mean", _WEIGHTS[1], "the query and key projections of all layers"),
)

METRICS: dict[str, Metric] = {m.name: m for m in (*_ATTENTION, *_WEIGHTS, *_TRAINING, *_MEANS)}
"""Every metric by its name: per head, per layer, per step, in the order in which pages list them."""
