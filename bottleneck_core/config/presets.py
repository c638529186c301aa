"""Size and experiment presets, and the attention widths that an experiment gives at a size."""

from __future__ import annotations

from typing import Any

from bottleneck_core.errors import UserError

_SHAPE = ("d_model", "n_layer", "n_head", "d_ff", "block_size", "batch_size", "steps")
_SIZES = {
    "nano": (128, 4, 4, 512, 256, 16, 600),
    "tiny": (512, 6, 8, 2048, 1024, 16, 6000),
    "small": (768, 12, 12, 3072, 1024, 8, 10000),
    "medium": (1024, 24, 16, 4096, 2048, 4, 15000),
    "large": (1536, 24, 16, 6144, 2048, 2, 20000),
    "1b": (2048, 18, 16, 8192, 2048, 1, 20000),
}
# A run of minutes on a laptop: bytes need no tokenizer, and 600 steps need a high rate with a short warmup.
_NANO_RECIPE: dict[str, Any] = {
    "tokenizer": "byte",
    "lr": 2e-3,
    "lr_schedule": "cosine",
    "min_lr": 2e-4,
    "warmup_steps": 20,
    "log_every": 10,
    "eval_every": 50,
    "eval_iters": 8,
    "analysis_every": 50,
}

EXPERIMENTS = ("paper_baseline", "paper_bottleneck", "paper_decoupled", "paper_gqa")
_SWITCHES: dict[str, dict[str, Any]] = {
    "paper_baseline": {"attn_mode": "standard"},
    "paper_bottleneck": {"attn_mode": "bottleneck", "null_attn": True},
    "paper_decoupled": {"attn_mode": "decoupled", "null_attn": True, "tie_qk": True},
    "paper_gqa": {"attn_mode": "gqa"},
}
_PAPER_SIZES = ("tiny", "small", "medium", "large")


def size_preset(size: str) -> dict[str, Any]:
    """Settings of a size preset, by field name. Raises KeyError for an unknown size."""
    preset: dict[str, Any] = dict(zip(_SHAPE, _SIZES[size], strict=True))
    return preset | (_NANO_RECIPE if size == "nano" else {})


def experiment_preset(exp: str, size: str | None, d_model: int, n_head: int) -> dict[str, Any]:
    """Settings of an experiment preset, by field name.

    The paper's widths are shares of `d_model`: attention 3/16, semantic 1/16, geometric 1/8, and a quarter of the
    heads for grouped queries. At the paper's own sizes they are those of the size, also where `d_model` or `n_head`
    are given otherwise; elsewhere they follow what is given. Raises UserError where a share is no whole number.
    """
    preset = dict(_SWITCHES[exp])
    if exp == "paper_gqa":
        preset["attn_dim"] = d_model
    if size in _PAPER_SIZES:
        d_model, n_head = size_preset(size)["d_model"], size_preset(size)["n_head"]
    if exp == "paper_gqa":
        preset["kv_head"] = max(1, n_head // 4)
    if exp in ("paper_bottleneck", "paper_decoupled"):
        preset["attn_dim"] = _share(d_model, 3, "--attn-dim", exp)
    if exp == "paper_decoupled":
        preset["sem_dim"] = _share(d_model, 1, "--sem-dim", exp)
        preset["geo_dim"] = _share(d_model, 2, "--geo-dim", exp)
    return preset


def _share(d_model: int, sixteenths: int, flag: str, exp: str) -> int:
    if d_model * sixteenths % 16:
        raise UserError(
            f"--exp {exp} sets {flag} to {sixteenths}/16 of --d-model, and {d_model} does not divide: "
            "choose a --d-model that is a multiple of 16, or give --size"
        )
    return d_model * sixteenths // 16
