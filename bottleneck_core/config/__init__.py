"""Typed, validated configuration of a run: schema, presets, views. Imports no torch."""

from bottleneck_core.config.attention import MODES, AttentionMode
from bottleneck_core.config.model import ModelConfig, Settings, flag_of, setting
from bottleneck_core.config.presets import EXPERIMENTS
from bottleneck_core.config.run import GROUPS, RunConfig
from bottleneck_core.config.views import model_view, training_args

__all__ = [
    "EXPERIMENTS",
    "GROUPS",
    "MODES",
    "AttentionMode",
    "ModelConfig",
    "RunConfig",
    "Settings",
    "flag_of",
    "model_view",
    "setting",
    "training_args",
]
