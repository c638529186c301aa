"""`runs`: list run folders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bottleneck_core.cli.words import read_words

HELP = "List run folders."
JSON_KEYS = (
    "id",
    "path",
    "status",
    "attn_mode",
    "size",
    "exp",
    "last_step",
    "best_val_loss",
    "best_val_step",
    "n_params",
    "kv_bytes_128k",
    "errors",
)


@dataclass(frozen=True)
class Words:
    """List the run folders at DIR and below it: status, attention, losses, KV bytes, and what is broken in them."""

    root: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR", help="folder of runs")] = Path("runs")
    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="one JSON document, nothing else")] = False


def main(argv: list[str]) -> int:
    words = read_words(Words, argv, prog="python -m bottleneck_core runs")
    from bottleneck_core.sizing import index

    rows = index([words.root])
    if words.json:
        print(json.dumps([{key: row[key] for key in JSON_KEYS} for row in rows], indent=2, allow_nan=False))
    else:
        _print_table(rows, words.root)
    return 0


def _print_table(rows: list[dict[str, Any]], root: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from bottleneck_core.figures import numbers

    console = Console()
    if not rows:
        console.print(f"No runs in {root}: start one with `python -m bottleneck_core train --size nano`.")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("run", overflow="fold")  # narrow terminals fold names, never numbers
    for name in ("status", "attention"):
        table.add_column(name, no_wrap=True)
    for name in ("step", "best loss", "params", "KV @128k", "errors"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["id"],
            row["status"],
            row["attn_mode"] or "–",
            numbers.steps(row["last_step"]),
            numbers.loss(row["best_val_loss"]),
            numbers.count(row["n_params"]),
            numbers.size(row["kv_bytes_128k"]),
            str(len(row["errors"])) if row["errors"] else "",
        )
    console.print(table)
