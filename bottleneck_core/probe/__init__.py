"""Attention and weight metrics of a model on a fixed batch: a separate eager pass that disturbs nothing."""

from bottleneck_core.probe.attention import uniform_entropy
from bottleneck_core.probe.probe import Probe, attention_metrics, begin_probe
from bottleneck_core.probe.result import ProbeResult

__all__ = ["Probe", "ProbeResult", "attention_metrics", "begin_probe", "uniform_entropy"]
