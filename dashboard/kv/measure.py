"""Whether a real allocation agrees with the calculator. It happens in a process of its own: this one has no torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import streamlit as st

from bottleneck_core.errors import UserError
from bottleneck_core.memory import PACKABLE, CachePolicy
from bottleneck_core.memory.layers import optional_setting
from dashboard.kv.models import Model

MOST_BYTES = 512 * 2**20
_SECONDS = 120
_COMMAND = [sys.executable, "-m", "bottleneck_core.kvcache.allocation"]
_SHAPE = ("n_layer", "attn_mode", "d_model", "n_head", "kv_head", "attn_dim", "sem_dim", "geo_dim")
_one_at_a_time = threading.Lock()


def unmeasurable(model: Model, policy: CachePolicy, size: int) -> str:
    """Why no allocation can confirm the number; empty where one can."""
    if model.public:
        return "A cache of ours holds our models only."
    edges = [policy.edge_kind] if policy.first_layers or policy.last_layers else []
    single = [kind for kinds in policy.layer_kinds.values() for kind in kinds.values()]
    counted = sorted({*(policy.kind_of(name) for name in model.tensors), *edges, *single} - set(PACKABLE))
    if counted:
        return f"A cache of ours does not store {', '.join(counted)}."
    return f"Up to {MOST_BYTES // 2**20} MiB are allocated here." if size > MOST_BYTES else ""


def request_of(model: Model, policy: CachePolicy, context: int, batch: int) -> str:
    """What is to be allocated, as text: also the name that the answer is remembered by."""
    shape = {name: optional_setting(model.config, name) for name in _SHAPE}
    fields: dict[str, Any] = {f.name: getattr(policy, f.name) for f in dataclasses.fields(policy)}
    return json.dumps({"model": shape, "policy": fields, "context": context, "batch": batch}, sort_keys=True)


@st.cache_resource(show_spinner=False)
def measured() -> dict[str, int]:
    """What was allocated since the server started: bytes by request."""
    return {}


def measure(request: str) -> int:
    """Allocates and remembers. Raises UserError."""
    with _one_at_a_time:
        if request not in measured():
            measured()[request] = _allocate(request)
    return measured()[request]


def _allocate(request: str) -> int:
    root = Path(__file__).parents[2]
    try:
        done = subprocess.run(
            _COMMAND, input=request, capture_output=True, text=True, timeout=_SECONDS, cwd=root, check=True
        )
        return int(json.loads(done.stdout)["bytes"])
    except subprocess.TimeoutExpired:
        raise UserError(f"the allocation took more than {_SECONDS} seconds: ask for a smaller cache") from None
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        last = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1:]
        raise UserError(f"the allocation failed: {''.join(last)}") from None
