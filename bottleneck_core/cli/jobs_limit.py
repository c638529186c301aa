"""`jobs limit`: how many jobs of the queue each device takes at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from bottleneck_core.cli.jobs import DEFAULT_DIR, print_rows
from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError
from bottleneck_core.jobs import device_limits, set_device_limit


@dataclass(frozen=True)
class Words:
    """Show how many jobs each device takes at once, or set it: `jobs limit cuda:0 2`."""

    device: tyro.conf.Positional[str | None] = None
    """cpu, mps, cuda:0, ...; unset: show all"""
    limit: tyro.conf.Positional[int | None] = None
    """number of jobs at once; 0 holds the queue of the device"""
    runs: Path = DEFAULT_DIR
    """parent of the run folders"""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """print one JSON document and nothing else"""


def main(argv: list[str]) -> int:
    """Exit codes: 0 shown or set; 2 a user's mistake."""
    words = read_words(Words, argv[1:], prog="python -m bottleneck_core jobs limit")
    if words.device is not None:
        if words.limit is None:
            raise UserError(f"jobs limit {words.device} needs the number of jobs at once, such as 1")
        set_device_limit(words.runs, words.device, words.limit)
    limits = device_limits(words.runs)
    if words.json:
        print(json.dumps(limits, indent=2))
    else:
        print_rows([("device", "jobs at once"), *((device, str(limit)) for device, limit in limits.items())])
    return 0
