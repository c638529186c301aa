"""Training: `train(config)` runs one configuration to its end.

`bottleneck_core.train` is that function, for users, and this room: Python gives its name to the package's attribute as
soon as anything in it is imported. So the room can be called.
"""

import sys
from types import ModuleType

from bottleneck_core.config import RunConfig
from bottleneck_core.train.checkpoint import Checkpoint, load_checkpoint
from bottleneck_core.train.session import TrainResult, train

__all__ = ["Checkpoint", "TrainResult", "load_checkpoint", "train"]


class _Room(ModuleType):
    def __call__(self, config: RunConfig, *, console: bool = False) -> TrainResult:
        return train(config, console=console)


_Room.__call__.__doc__ = train.__doc__
sys.modules[__name__].__class__ = _Room
