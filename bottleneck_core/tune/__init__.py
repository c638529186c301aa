"""The self-optimiser of the cache: which formats, window and decode plan to use under a memory budget. Needs torch."""

from bottleneck_core.tune.choose import Choice, choose, recheck
from bottleneck_core.tune.guard import Guard, Quality
from bottleneck_core.tune.online import Online

__all__ = ["Choice", "Guard", "Online", "Quality", "choose", "recheck"]
