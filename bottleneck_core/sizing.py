"""`kv_memory` for whatever a user has at hand: a configuration, a dict, a run, or the path of a run folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from bottleneck_core.errors import UserError
from bottleneck_core.memory import CachePolicy, KVMemory
from bottleneck_core.memory import kv_memory as memory_of_model


def kv_memory(
    source: Any, context: int, batch: int = 1, policy: CachePolicy | Mapping[str, Any] | None = None
) -> KVMemory:
    """Bytes of the KV cache of `source` at `context` tokens for `batch` requests.

    `source`: a RunConfig, a dict with the Model Config names, a Run, or the path of a run folder. `policy`: a
    CachePolicy or a dict of `kv_*` settings; unset: the source's own, else fp16. Raises UserError, one sentence, for a
    source that lacks what the cache depends on, and for sizes below 1.
    """
    if isinstance(source, (str, os.PathLike)):
        from bottleneck_core.store.run import load_run

        source = load_run(source)
    model = getattr(source, "config", source)  # a Run's flat dict
    try:
        chosen = CachePolicy.of(policy) if isinstance(policy, Mapping) else policy
        return memory_of_model(model, context, batch, chosen)
    except ValueError as error:
        raise UserError(str(error)) from None
