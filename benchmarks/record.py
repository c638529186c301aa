"""Results of benchmarks: a JSON file with the numbers and with what they were measured on, and how."""

from __future__ import annotations

import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

from bottleneck_core.store.atomic import atomic_write_text
from bottleneck_core.store.manifest import hardware, package_versions

RESULTS = Path(__file__).parent / "results"


def record(name: str, measured: dict[str, Any], *, gpus: list[str] | None = None, out: Path = RESULTS) -> Path:
    """Write `<name>.json` below `out`: measured numbers, hardware, versions, date, command. Returns its path."""
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "benchmark": name,
        "date": date.today().isoformat(),
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "hardware": hardware(gpus or []),
        "versions": package_versions(["torch", "triton", "numpy", "h5py", "pandas", "streamlit", "plotly", "duckdb"]),
        "measured": measured,
    }
    path = out / f"{name}.json"
    atomic_write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")
    return path
