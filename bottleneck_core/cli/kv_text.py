"""What `kv` prints for people: totals with their units, the tensors, and the sums line by line."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from bottleneck_core.figures import numbers
from bottleneck_core.memory import KVMemory


def list_models(as_json: bool) -> int:
    from bottleneck_core.memory.zoo import zoo_rows

    rows = zoo_rows()
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("layers", overflow="fold")
    for name in ("first token", "one more", "fixed", "weights"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        sizes = (row["bytes_per_token"], row["slope_bytes_per_token"], row["fixed_bytes_per_request"])
        table.add_row(row["name"], row["kind"], *map(numbers.size, sizes), numbers.count(row["params"]))
    console = Console(highlight=False)
    console.print(table)
    console.print("fp16, one request: its first token, one more at long context, and what is fixed", soft_wrap=True)
    return 0


def print_size(title: str, size: KVMemory, answers: dict[str, Any] | None) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]{title}[/bold]: {size.context:,} tokens, batch {size.batch:,}", soft_wrap=True)
    totals = Table(box=None, show_header=False, pad_edge=False)
    facts = {
        "logical": size.totals["logical"],
        **{f"reserved by {engine}": value for engine, value in size.engines.items()},
        "conservative": size.totals["conservative"],
        "first token": size.bytes_per_token,
        "one more token here": size.slope_bytes_per_token,
        "fixed a request": size.fixed_bytes_per_request,
        "fp16 baseline": size.baseline_fp16_bytes,
    }
    for name, value in facts.items():
        totals.add_row(name, numbers.size(value), numbers.exact_size(value))
    totals.add_row("compression", numbers.ratio(size.compression), "")
    console.print(totals)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("tensor", "kind"):
        table.add_column(name, no_wrap=True)
    for name in ("layers", "values", "block", "a row", "tokens", "size"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in size.tensors:
        row = (part.layers, f"{part.width:,}", part.qblock, numbers.exact_size(part.row_bytes), f"{part.tokens:,}")
        table.add_row(part.name, part.kind, *map(str, row), numbers.size(part.bytes))
    console.print(table)
    for line in size.derivation:
        console.print(f"  {line}", soft_wrap=True)
    if answers:
        _print_answers(console, size, answers)


def _print_answers(console: Console, size: KVMemory, answers: dict[str, Any]) -> None:
    for line in answers["budget_derivation"]:
        console.print(line, soft_wrap=True)
    longest, largest, choice = (answers[name] for name in ("longest_context", "largest_batch", "cheapest_policy"))
    said = "any: the length costs nothing" if longest is None else f"{longest:,} tokens"
    console.print(f"longest context at batch {size.batch:,}: {said}", soft_wrap=True)
    said = "any: a request costs nothing" if largest is None else f"{largest:,} requests"
    console.print(f"largest batch at {size.context:,} tokens: {said}", soft_wrap=True)
    if choice is None:
        console.print("policy that fits: none of those in the order of expected loss", soft_wrap=True)
    else:
        kinds = ", ".join(f"{name} {value}" for name, value in choice["settings"].items())
        console.print(
            f"policy of least expected loss that fits (by bits a value, not measured): {kinds}: {choice['bytes']:,} B",
            soft_wrap=True,
        )
