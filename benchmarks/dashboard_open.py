"""How long one long run takes to open and to follow: 800,000 logged steps, some 460 MB of train.jsonl.

    python -m benchmarks.dashboard_open [--rows 800000] [--repeats 5] [--out DIR]

The run is made up in a temporary folder. A session over the websocket of the real server asks for the Run page;
times are from the request to the message that carries the loss figure. Each cold open has a server of its own, which
has shown another page and come to rest, so that Python's imports are done, and has read nothing; its cache folder is
empty. The file is in the system's page cache. Beside it, from process start: the same with the server's start and the
first page's imports, and TensorBoard on the same scalars.
Writes `results/dashboard_open.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import bottleneck_core as bc
from benchmarks.calibration import calibration, calm, measured
from benchmarks.dashboard_data import event_line, train_event, write_run
from benchmarks.dashboard_session import DashboardServer, Session, timed
from benchmarks.record import RESULTS, record
from benchmarks.tensorboard_events import seconds_to_serve, write_events

RUN = "long_decoupled"
_POLLS = 50


def cold_open(root: Path) -> tuple[float, float]:
    """From the request for the Run page to its loss figure, on a server that has not seen the run."""
    with DashboardServer(root) as server, Session(server) as session:
        session.open("kv")
        calm()
        run = session.open("run", {"id": RUN})
        return run.charts["loss"], run.cpu


def from_start(root: Path) -> tuple[float, float]:
    """From the start of the server's process to the loss figure."""
    start = time.perf_counter()
    with DashboardServer(root) as server, Session(server) as session:
        session.open("run", {"id": RUN})
        return time.perf_counter() - start, server.cpu()


def warm(root: Path, repeats: int) -> dict[str, Any]:
    """Reruns of the Run page, and opening it again in a new session."""
    with DashboardServer(root) as server:
        with Session(server) as session:
            session.open("run", {"id": RUN})
            rerun = measured(lambda: timed(session.rerun()), repeats)

        def again() -> tuple[float, float]:
            with Session(server) as other:
                return timed(other.open("run", {"id": RUN}))

        return {"rerun": rerun, "open_warm": measured(again, repeats)}


def polls(folder: Path, rows: int) -> dict[str, Any]:
    """One new row at a time: reading it, and reading it and having the frames to draw from, in this process."""
    run = bc.load_run(folder)
    run.refresh()
    path, refreshed, framed = folder / "train.jsonl", [], []
    size = path.stat().st_size
    assert len(run.train) == rows and len(run.eval)
    with open(path, "ab", buffering=0) as file:
        for step in range(rows, rows + _POLLS):
            file.write(event_line("train", step, train_event(step, 3.5, np.zeros(9)), datetime.now(UTC)))
            start = time.perf_counter()
            run.refresh()
            refreshed.append(time.perf_counter() - start)
            assert len(run.train) == step + 1 and len(run.eval)
            framed.append(time.perf_counter() - start)
        file.truncate(size)
    return {
        "polls": _POLLS,
        "refresh_median_ms": round(1e3 * statistics.median(refreshed), 3),
        "refresh_worst_ms": round(1e3 * max(refreshed), 3),
        "refresh_and_frames_median_ms": round(1e3 * statistics.median(framed), 3),
    }


def tensorboard(folder: Path, rows: int, repeats: int) -> dict[str, Any]:
    """TensorBoard on equal scalars: all numbers of the train events, under their names."""
    names = [name for name in train_event(0, 3.5, np.zeros(9))]
    random = np.random.default_rng(0)
    size = write_events(folder, {name: random.random(rows, np.float32) for name in names})
    times = measured(lambda: seconds_to_serve(folder, "loss", rows - 1), repeats)
    return {"scalars_a_step": len(names), "bytes": size, "start_to_served": times}


def main() -> None:
    parser = argparse.ArgumentParser(description="Opening and following one long run.")
    parser.add_argument("--rows", type=int, default=800_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        size = write_run(root / RUN, rows=words.rows)
        found: dict[str, Any] = {"rows": words.rows, "bytes": size, "calibration_before": calibration()}
        found["cold_open"] = measured(lambda: cold_open(root), words.repeats)
        print(json.dumps(found), flush=True)
        found["from_start"] = measured(lambda: from_start(root), words.repeats)
        found |= warm(root, words.repeats)
        found["live_poll"] = polls(root / RUN, words.rows)
        found["tensorboard"] = tensorboard(Path(folder) / "tb", words.rows, words.repeats)
        found["calibration_after"] = calibration()
    print(json.dumps(found, indent=2))
    print(record("dashboard_open", found, out=words.out))


if __name__ == "__main__":
    main()
