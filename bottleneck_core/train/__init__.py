"""Training: `train(config)` runs one configuration to its end."""

from bottleneck_core.train.checkpoint import Checkpoint, load_checkpoint
from bottleneck_core.train.session import TrainResult, train

__all__ = ["Checkpoint", "TrainResult", "load_checkpoint", "train"]
