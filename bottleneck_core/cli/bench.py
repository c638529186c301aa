"""`bench`: the benchmarks of a checkout: what each answers, what the last ones found, and running one."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError
from bottleneck_core.store.status import read_json

PROG = "python -m bottleneck_core bench"
CHECKOUT = Path(__file__).resolve().parents[2]

Row = dict[str, Any]


@dataclass(frozen=True)
class Words:
    """The benchmarks, the question that each answers, and tables of what was measured last; with NAME, that benchmark
    is run with the flags that follow it (`bench NAME --help` lists them). Needs a checkout: an installed package has
    no benchmarks."""

    name: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="NAME", help="benchmark to run")] = None
    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="one JSON document, nothing else")] = False


def main(argv: list[str]) -> int:
    """The exit code of the benchmark that was run, else 0."""
    at = next((i for i, word in enumerate(argv) if not word.startswith("-")), len(argv))
    words = read_words(Words, argv[: at + 1], prog=PROG)
    questions = _questions(CHECKOUT / "benchmarks")
    if words.name is not None:
        if words.json:
            raise UserError("--json is of the list: leave it out, or NAME")
        if words.name not in questions:
            raise UserError(f"there is no benchmark {words.name}: choose one of {', '.join(questions)}")
        # The flags may name files from here, so the checkout comes along instead of this process going there; with
        # PYTHONSAFEPATH a folder `benchmarks` that happens to be here is not taken for its own.
        path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
        command = [sys.executable, "-m", f"benchmarks.{words.name}", *argv[at + 1 :]]
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}).returncode
    results, errors = _results(CHECKOUT / "benchmarks" / "results")
    document = {
        "benchmarks": [{"name": name, "question": question} for name, question in questions.items()],
        "results": [_facts(name, result) for name, result in results.items()],
        "speed": [row for name, result in results.items() for row in _speed(name, result)],
        "parts": [row for name, result in results.items() for row in _parts(name, result)],
        "errors": errors,
    }
    if words.json:
        print(json.dumps(document, indent=2, allow_nan=False))
    else:
        _print(document)
    return 0


def _questions(folder: Path) -> dict[str, str]:
    """The first paragraph of every module that can be run; modules that others use have no main part."""
    if not (folder / "record.py").is_file():
        raise UserError("bench needs a checkout of the repository, and this is an installed package: run it there")
    questions = {}
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if '__name__ == "__main__"' in text:
            questions[path.stem] = " ".join((ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].split())
    return questions


def _results(folder: Path) -> tuple[dict[str, Row], list[str]]:
    """Documents of `benchmarks.record` by name, and a sentence for each file that is none."""
    results, errors = {}, []
    for path in sorted(folder.glob("*.json")):
        document = read_json(path)
        if isinstance(document.get("measured"), dict):
            results[path.stem] = document
        else:
            errors.append(f"{path.name} is no result of a benchmark: measure it again")
    return results, errors


def _facts(name: str, result: Row) -> Row:
    hardware = result.get("hardware") or {}
    device = ", ".join(hardware.get("gpus") or []) or f"{hardware.get('usable_cores', '?')} CPU cores"
    return {"name": name, "date": result.get("date"), "device": device, "command": result.get("command")}


def _speed(name: str, result: Row) -> list[Row]:
    """Rows of training speed, of the reference and with few logits at a time, too."""
    measured, keys = result["measured"], ("flags", "tok_s", "of_reference", "mfu", "peak_gib", "last_loss")
    runs = [run for kind in ("reference", "runs", "gelu", "chunked") for run in _listed(measured, kind)]
    runs = [run for run in runs if isinstance(run.get("tok_s"), (int, float)) and "exp" in run]
    return [
        {"result": name, "model": run["exp"], "batch": run.get("batch")} | {key: run.get(key) for key in keys}
        for run in runs
    ]


def _parts(name: str, result: Row) -> list[Row]:
    """Rows of where a training step's time goes, as shares of it."""
    rows = [row for row in _listed(result["measured"], "rows") if isinstance(row.get("shares"), dict)]
    keys = ("case", "batch_size", "step_us", "shares")
    return [{"result": name} | {key: row.get(key) for key in keys} for row in rows]


def _listed(measured: Row, key: str) -> list[Row]:
    value = measured.get(key)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _print(document: Row) -> None:
    from rich.console import Console

    console = Console()
    console.print(_table(("benchmark", "what it answers"), [[*row.values()] for row in document["benchmarks"]], 2))
    console.print(f"\n{PROG} NAME --help lists the flags of one.")
    for result in document["results"]:
        where = ", ".join(str(result[key]) for key in ("name", "date", "device"))
        rows = [_speed_cells(row) for row in document["speed"] if row["result"] == result["name"]]
        if rows:
            console.print(f"\nTraining speed ({where})", style="bold", highlight=False)
            head = ("model", "flags", "batch", "tok/s", "of reference", "MFU", "peak GiB", "last loss")
            console.print(_table(head, rows, 2))
        shares = [row for row in document["parts"] if row["result"] == result["name"]]
        if shares:
            names = list(dict.fromkeys(part for row in shares for part in row["shares"]))
            console.print(f"\nWhere a training step's time goes ({where})", style="bold", highlight=False)
            console.print(
                _table(("model", "batch", "µs a step", *names), [_parts_cells(row, names) for row in shares], 1)
            )
    if document["results"]:
        console.print("\nAll results, in benchmarks/results", style="bold")
        rows = [[str(row[key] or "–") for key in ("name", "date", "device")] for row in document["results"]]
        console.print(_table(("result", "date", "on"), rows, 3))
    for error in document["errors"]:
        console.print(error)


def _speed_cells(row: Row) -> list[str]:
    batch = " × ".join(f"{side:,}" for side in row["batch"] or ())
    numbers = [_number(row["tok_s"], ",.0f"), _percent(row["of_reference"]), _percent(row["mfu"])]
    rest = [_number(row["peak_gib"], ".2f"), _number(row["last_loss"], ".4f")]
    return [row["model"], " ".join(row["flags"] or ()).replace("--", ""), batch, *numbers, *rest]


def _parts_cells(row: Row, names: list[str]) -> list[str]:
    numbers = [_number(row["batch_size"], ",.0f"), _number(row["step_us"], ",.0f")]
    return [str(row["case"]), *numbers, *(_percent(row["shares"].get(name)) for name in names)]


def _table(head: tuple[str, ...], rows: list[list[str]], texts: int) -> Any:
    """The first `texts` columns hold words, the others numbers."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i < texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, (int, float)) else "–"


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, (int, float)) else "–"
