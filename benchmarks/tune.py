"""Whether the self-optimiser's choice keeps its tolerances on text that it was not chosen on: `tune`, recorded.

    python -m benchmarks.tune --run DIR --text FILE --check FILE [--name tune_cpu] [--results DIR] [flags of tune]

Writes `<name>.json`: the choice and its bytes, time and quality on the text, and the same guard on the other text.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.record import RESULTS, record

# What a reader of the result needs; the whole document has every candidate.
_KEPT = ("step", "calibration", "device", "kind", "dtype", "context", "batch", "budget_bytes", "guard", "verified")
_KEPT += ("base", "chosen", "runner_up", "why", "candidates", "probes", "check")


def main() -> int:
    parser = argparse.ArgumentParser(description="The self-optimiser's choice on other text.")
    parser.add_argument("--check", required=True, help="text that the choice is measured on once more")
    parser.add_argument("--name", default="tune_cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    words, rest = parser.parse_known_args()
    command = [sys.executable, "-m", "bottleneck_core", "tune", "--self-opt", "startup", "--check", words.check, *rest]
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode
    document = json.loads(done.stdout)
    measured = {name: document[name] for name in _KEPT if name in document}
    print(json.dumps({name: measured.get(name) for name in ("chosen", "why", "check")}, indent=2))
    print(
        record(words.name, measured, gpus=[document["device"]] if document["kind"] == "cuda" else [], out=words.results)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
