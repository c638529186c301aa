"""How long the dashboard's pages take on the server: 10,000 runs, every page again, big comparisons, the calculator.

    python -m benchmarks.dashboard_pages [--runs 10000] [--repeats 5] [--out DIR]

All runs are made up in a temporary folder. A session over the websocket of the real server asks for pages; times are
from the request to the end of the page's script, so the way over the socket is in them. `cold`: a new server with an
empty cache folder, its first page; `cold_with_cache`: a new server that finds the table another one kept on disk;
`complete`: until the table has all rows, where a page shows it before. Writes `results/dashboard_pages.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.calibration import calibration, measured
from benchmarks.dashboard_data import write_analysis, write_many, write_run
from benchmarks.dashboard_session import DashboardServer, Session, timed
from benchmarks.record import RESULTS, record
from dashboard.state import LIVE_SECONDS

COMPARED = 50
PROBES = 5_000
_PATIENCE_S = 300.0


def table(root: Path, count: int, repeats: int) -> dict[str, Any]:
    """The table of `count` runs."""
    found: dict[str, Any] = {"runs": count}
    with tempfile.TemporaryDirectory() as cache:
        with DashboardServer(root, cache=Path(cache)) as server, Session(server) as session:
            session.open("kv")
            first = session.open()
            found["cold_ms"] = round(1e3 * first.seconds)
            found["cold_bytes"] = sum(first.frames)
            found["cold_rows"] = rows = first.rows
            asked = time.perf_counter()
            while time.perf_counter() - asked < _PATIENCE_S and rows < count:
                time.sleep(LIVE_SECONDS)  # as a page asks; the server reads on meanwhile
                rows = session.rerun().rows or rows
            found["complete_ms"] = round(1e3 * (time.perf_counter() - asked) + found["cold_ms"])
            found["complete_rows"] = rows
            found["warm"] = measured(lambda: timed(session.rerun()), repeats)

        def again() -> tuple[float, float]:
            with DashboardServer(root, cache=Path(cache)) as server, Session(server) as session:
                session.open("kv")
                return timed(session.open())

        found["cold_with_cache"] = measured(again, repeats)
    return found


def pages(root: Path, repeats: int) -> dict[str, Any]:
    """Every page: opened by a new session, and its script again. Two runs of 6,000 steps with 60 probes each."""
    addresses: dict[str, tuple[str, dict[str, str]]] = {
        "Runs": ("", {}),
        "Run": ("run", {"id": "one"}),
        "Run, attention": ("run", {"id": "one", "tab": "Attention"}),
        "Compare": ("compare", {"runs": "one,two"}),
        "Attention": ("attention", {"run": "one"}),
        "KV calculator": ("kv", {}),
        "Train": ("train", {}),
        "Generate": ("generate", {}),
    }
    found = {}
    with DashboardServer(root) as server:
        for name, (page, query) in addresses.items():
            with Session(server) as session:
                first = session.open(page, query)
                rerun = measured(lambda session=session: timed(session.rerun()), repeats)
                found[name] = {"open_ms": round(1e3 * first.seconds), "rerun": rerun, "exceptions": first.exceptions}
    return found


def calculator(root: Path, repeats: int) -> dict[str, Any]:
    """A batch typed into the KV calculator, until both of its figures have come, and until the script's end."""
    with DashboardServer(root) as server, Session(server) as session:
        session.open("kv")
        widget = session.rerun().widgets["Batch"]
        batches = itertools.count(2)
        ends = []

        def change() -> tuple[float, float]:
            run = session.rerun(number=(widget, next(batches)))
            ends.append(round(1e3 * run.seconds, 2))
            return max(run.charts.values()), run.cpu

        return measured(change, repeats) | {"script_ms": ends}


def opening(root: Path, page: str, query: dict[str, str], repeats: int) -> dict[str, Any]:
    """A page on a server that has read nothing yet, and again."""
    found: dict[str, Any] = {}

    def cold() -> tuple[float, float]:
        with DashboardServer(root) as server, Session(server) as session:
            session.open("kv")
            run = session.open(page, query)
            found["frames"] = {"largest": sorted(run.frames)[-2:], "all": sum(run.frames)}
            found["exceptions"] = run.exceptions
            found["rerun"] = measured(lambda: timed(session.rerun()), repeats)
            return timed(run)

    return found | {"open": measured(cold, repeats)} | found


def main() -> None:
    parser = argparse.ArgumentParser(description="The dashboard's pages on the server.")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", help="one of: table, pages, calculator, compare, attention")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"calibration_before": calibration()}
        for name in ("pages", "calculator", "table", "compare", "attention"):
            if words.only in (None, name):
                found[name] = _measure(name, Path(folder) / name, words.runs, words.repeats)
                print(json.dumps({name: found[name]}), flush=True)
        found["calibration_after"] = calibration()
    print(record("dashboard_pages", found, out=words.out))


def _measure(name: str, root: Path, runs: int, repeats: int) -> dict[str, Any]:
    if name == "table":
        write_many(root, runs)
        return table(root, runs, repeats)
    if name == "compare":
        for number in range(COMPARED):
            write_run(root / f"run_{number:02d}", rows=6_000, seed=number, exp="paper_bottleneck", eval_every=100)
        tokens = ",".join(f"run_{number:02d}" for number in range(COMPARED))
        return {"runs": COMPARED, "rows": 6_000} | {
            metric: opening(root, "compare", {"runs": tokens, "metric": metric, "group": "each run"}, repeats)
            for metric in ("val_loss", "loss")
        }
    if name == "attention":
        write_run(root / "deep", rows=PROBES * 10, eval_every=100, n_layer=24, n_head=16)
        write_analysis(root / "deep", steps=PROBES)
        return {"layers": 24, "heads": 16, "steps": PROBES} | opening(root, "attention", {"run": "deep"}, repeats)
    for number, run in enumerate(("one", "two")):
        write_run(root / run, rows=6_000, seed=number, exp="paper_bottleneck", eval_every=100)
        write_analysis(root / run, steps=60, layers=6, heads=8)
    return pages(root, repeats) if name == "pages" else calculator(root, repeats)


if __name__ == "__main__":
    main()
