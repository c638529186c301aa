"""Whether the dashboard's memory stays flat while a run is followed: its server's, over 1,000 live updates.

    python -m benchmarks.dashboard_memory [--updates 1000] [--rows 20000] [--out DIR]

A made-up run in training (its lock is held) gets one row, the live fragments of its page are rerun as the browser's
timers do it, and the resident memory of the server's process is read; a second session looks at the table of runs. The
slope is that of a least-squares line over the second half, when caches are warm; the run grows by its rows as well.
Writes `results/dashboard_memory.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.calibration import calibration
from benchmarks.dashboard_data import event_line, train_event, write_run
from benchmarks.dashboard_session import DashboardServer, Session
from benchmarks.record import RESULTS, record
from bottleneck_core.store.lock import RunLock

RUN = "live_decoupled"
_EVERY = 20


def follow(root: Path, rows: int, updates: int) -> dict[str, Any]:
    """`updates` rows, one at a time, each followed by a live update of the page."""
    memory, seconds = [], []
    with (
        RunLock(root / RUN),
        DashboardServer(root) as server,
        Session(server) as session,
        Session(server) as other,
        open(root / RUN / "train.jsonl", "ab", buffering=0) as file,
    ):
        page = session.open("run", {"id": RUN})
        table = other.open()
        assert len(page.fragments) > 2, "the page does not follow the run"
        for update in range(updates):
            step = rows + update
            file.write(event_line("train", step, train_event(step, 3.5, np.zeros(9)), datetime.now(UTC)))
            run = session.follow(page.fragments)
            seconds.append(run.seconds)
            assert run.charts and not run.exceptions
            if update % _EVERY == 0:
                other.follow(table.fragments)
                memory.append(server.memory())
    half = memory[len(memory) // 2 :]
    slope = float(np.polyfit(np.arange(len(half)) * _EVERY, half, 1)[0])
    return {
        "updates": updates,
        "rows_at_start": rows,
        "fragments_a_page": len(page.fragments),
        "update_median_ms": round(1e3 * statistics.median(seconds), 2),
        "memory_mib_start": round(memory[0] / 2**20, 1),
        "memory_mib_end": round(memory[-1] / 2**20, 1),
        "memory_mib_every_20": [round(value / 2**20, 1) for value in memory],
        "slope_bytes_per_update": round(slope),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The server's memory over live updates.")
    parser.add_argument("--updates", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    before = calibration()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_run(root / RUN, rows=words.rows, ended=False)
        found = {"calibration_before": before} | follow(root, words.rows, words.updates)
    found["calibration_after"] = calibration()
    print(json.dumps(found))
    print(record("dashboard_memory", found, out=words.out))


if __name__ == "__main__":
    main()
