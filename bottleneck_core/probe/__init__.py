"""Attention and weight metrics of a model on a fixed batch: a separate eager pass that disturbs nothing."""

from bottleneck_core.probe.attention import uniform_entropy
from bottleneck_core.probe.probe import attention_metrics
from bottleneck_core.probe.result import ProbeResult

__all__ = ["ProbeResult", "attention_metrics", "uniform_entropy"]
