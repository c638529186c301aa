"""Views of a run's configuration under the names that run summaries use.

A summary lists a *Model Config* (19 keys) and *Training Args* (the flags of one command line). The schema holds
positive booleans only; the `no_*` keys and the forcing `rope` exist in these views alone and tell what was given
explicitly.
"""

from __future__ import annotations

from typing import Any

from bottleneck_core.config.model import ModelConfig
from bottleneck_core.config.run import RunConfig

_NEGATIVES = ("rope", "tie_qk", "null_attn", "learned_temp")


def model_view(config: RunConfig, vocab_size: int | None = None) -> dict[str, Any]:
    """The Model Config of a summary; the vocabulary is the resolved one, or `assumed_vocab_size` without data."""
    view = {name: getattr(config, name) for name in ModelConfig.model_fields}
    view["vocab_size"] = vocab_size or config.assumed_vocab_size
    return dict(sorted(view.items()))


def training_args(config: RunConfig) -> dict[str, Any]:
    """The Training Args of a summary: every seed flag with its resolved value; settings of ours are left out."""
    given = set(config.given)
    view: dict[str, Any] = {"mode": "train", "print_config": False}
    for name, field in RunConfig.model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra["seed"]:
            view[str(extra["flag"] or name)] = getattr(config, name)
    for name in _NEGATIVES:
        view[f"no_{name}"] = name in given and not getattr(config, name)
    view["rope"] = "rope" in given and config.rope
    del view["learned_temp"]
    if "vocab_size" not in given:
        view["vocab_size"] = None
    return dict(sorted(view.items()))
