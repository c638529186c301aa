"""How fast this machine trained before: throughput of finished runs, scaled to another model by FLOPs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import streamlit as st

from bottleneck_core.memory import training_flops_per_token
from bottleneck_core.store.status import read_json
from dashboard.state import run_rows
from dashboard.train.devices import Device, usable_cores

# Newest first; thousands of manifests say nothing more.
_MOST_RUNS = 500
_KEPT_SECONDS = 30.0
_SAME = 0.05  # runs whose FLOPs a token differ by less are of one size


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One finished run: tokens a second, and all that this depends on."""

    run: str
    tok_s: float
    flops: int
    machine: str
    reduced: bool
    processes: int


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Expected tokens a second, scaled from `runs` which reached `measured` in the median at `factor` of the FLOPs."""

    tok_s: float
    measured: float
    runs: tuple[str, ...]
    factor: float


def pace(runs: Iterable[Measured], flops: int, device: Device, *, reduced: bool, processes: int = 1) -> Pace | None:
    """From the runs of the closest size on the same kind of device, precision and number of processes; None: none."""
    machine = machine_of(device)
    alike = [r for r in runs if (r.machine, r.reduced, r.processes) == (machine, reduced, processes)]
    if not alike:
        return None
    nearest = min(alike, key=lambda r: abs(math.log(r.flops / flops))).flops
    chosen = [r for r in alike if abs(r.flops / nearest - 1) < _SAME]
    measured, factor = median(r.tok_s for r in chosen), nearest / flops
    return Pace(tok_s=measured * factor, measured=measured, runs=tuple(r.run for r in chosen), factor=factor)


def machine_of(device: Device) -> str:
    """A card by its model; a processor also by its cores."""
    return device.model if device.name != "cpu" else f"{device.model} x {usable_cores()}"


@st.cache_data(ttl=_KEPT_SECONDS, show_spinner="Reading how fast runs were")
def measured_runs(roots: tuple[str, ...]) -> list[Measured]:
    """Finished runs below the roots with a throughput, newest first. `roots` only tells one dashboard from another."""
    rows = [row for row in run_rows() if row["status"] == "done" and row.get("tok_s") and row.get("model")]
    newest = sorted(rows, key=lambda row: str(row.get("created") or ""), reverse=True)[:_MOST_RUNS]
    found = (measured(row, read_json(Path(row["path"]) / "manifest.json")) for row in newest)
    return [run for run in found if run]


def measured(row: Mapping[str, Any], manifest: Mapping[str, Any]) -> Measured | None:
    """A row of the table of runs with its manifest; None where they do not say enough."""
    runtime, hardware = manifest.get("runtime"), manifest.get("hardware")
    model = row.get("model")
    if not (isinstance(runtime, dict) and isinstance(hardware, dict) and isinstance(model, dict)):
        return None
    name = str(runtime.get("device") or "")
    if name == "cpu":
        machine = f"{hardware.get('cpu')} x {hardware.get('usable_cores')}"
    else:  # "cuda:0 (NVIDIA H200)"
        machine = name.partition("(")[2].rstrip(")")
    try:
        flops = training_flops_per_token(model, int(model["vocab_size"]))
        tok_s, processes = float(row["tok_s"]), int(runtime.get("world_size") or 1)
    except (KeyError, TypeError, ValueError):
        return None
    if flops <= 0 or not tok_s > 0 or not machine:
        return None
    return Measured(
        run=str(row["id"]),
        tok_s=tok_s,
        flops=flops,
        machine=machine,
        reduced=runtime.get("amp") is not None,
        processes=processes,
    )
