"""What `tune` prints for people: what was measured, what was chosen and why, and what was not."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from bottleneck_core.figures import numbers

_WIDTH = 120


def print_tuning(document: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH  # a file or a pipe has none of its own
    where = document["device"] if document["kind"] == "cuda" else f"{document['device']}, {document['threads']} threads"
    console.print(
        f"{document['checkpoint']}, {document['dtype']} on {where}: {document['context']:,} tokens, batch "
        f"{document['batch']:,}, timed at {document['prefix']:,} cached tokens"
    )
    console.print(f"budget {_bytes(document['budget_bytes'])}; base {document['base']['policy']}: "
                  f"{_bytes(document['base']['bytes'])}")  # fmt: skip
    if document["remembered"]:
        console.print("remembered from an earlier search: nothing was measured now")
    guard = document["guard"]
    if guard is not None:
        console.print(
            f"guard: largest logit difference to fp16 at most {guard['tolerance']:g}, on {guard['windows']} windows of "
            f"{guard['prefix']:,} tokens and {guard['scored']} scored ones; expected: the largest of "
            f"{guard['other_windows']} further windows, {guard['confidence']:.0%} sure, times {guard['margin']:g}"
        )
    elif document["scope"] != "decode":
        console.print("unguarded: nobody looked at what the policies do to the model's predictions")
    if document["policies"]:
        console.print(_policies(document))
    if len(document["plans"]) > 1:
        console.print(_plans(document))
    _print_choice(console, document)


def _policies(document: dict[str, Any]) -> Table:
    """The Pareto set, the chosen and the base."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("policy", overflow="fold", min_width=16)
    for name in ("size", "ms a token", "logits", "expected", "KL (nats)", "delta NLL"):
        table.add_column(name, justify="right", no_wrap=True)
    chosen, base = document["chosen"]["policy"], document["base"]["policy"]
    for row in document["policies"]:
        named = _named(row["policy"], chosen, base)
        if not row["pareto"] and not named:
            continue
        quality = document["chosen"]["quality"] if row["policy"] == chosen else row["quality"]
        table.add_row(
            named, row["policy"], numbers.size(row["bytes"]), f"{row['ms_per_token']:.3f}", *_quality(quality)
        )
    return table


def _named(name: str, chosen: str, base: str) -> str:
    return " ".join(word for word, other in (("chosen", chosen), ("base", base)) if other == name)


def _quality(quality: dict[str, Any] | None) -> list[str]:
    if quality is None:
        return [numbers.MISSING] * 4
    return [
        *(numbers.scalar(quality[name]) for name in ("largest", "expected_worst", "mean_kl")),
        _nats(quality["delta_nll"]),
    ]


def _nats(delta: float) -> str:
    return f"{round(delta, 5) + 0.0:+.5f}"  # no negative zero


def _plans(document: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "decode plan"):
        table.add_column(name, no_wrap=True)
    table.add_column("ms a token", justify="right", no_wrap=True)
    chosen, base = document["chosen"]["plan"], document["base"]["plan"]
    for row in document["plans"]:
        table.add_row(_named(row["plan"], chosen, base), row["plan"], f"{row['ms_per_token']:.3f}")
    return table


def _print_choice(console: Console, document: dict[str, Any]) -> None:
    chosen, check = document["chosen"], document["check"]
    console.print(f"policy: {chosen['policy']} ({document['why']['policy']})")
    compared = "; outputs compared with the base's" if document["verified"] and len(document["plans"]) > 1 else ""
    console.print(f"plan: {chosen['plan']} ({document['why']['plan']}{compared})")
    console.print(f"as flags: {_flags(chosen)}")
    if check is not None:
        quality, verdict = check["quality"], "met" if check["met"] else "NOT met"
        console.print(
            f"on {check['text']['name']}: tolerance {verdict}, largest logit difference "
            f"{numbers.scalar(quality['largest'])} over {quality['windows']} windows, delta NLL "
            f"{_nats(quality['delta_nll'])}"
        )
    measured, counts = len(document["policies"]), document["rejected_counts"]
    console.print(
        f"{document['candidates']:,} candidates: {measured} policies passed and were timed, {len(document['plans'])} "
        f"plans; beside them {document['probes']} probes for a prediction; rejected{':' if counts else ' none'}"
    )
    for reason, count in sorted(counts.items(), key=lambda item: -item[1]):
        example = next(each for each in document["rejected"] if each["reason"] == reason)
        console.print(f"  {count:,} {reason}, as {example['what']}: {example['detail']}")


def _flags(chosen: dict[str, Any]) -> str:
    """The choice as flags of `sample`; a kernel's tuning has none."""
    defaults = {"kv_first_layers": 0, "kv_last_layers": 0, "kv_edge_kind": "fp16", "kv_hadamard": False}
    settings = chosen["settings"] | {k: v for k, v in chosen["plan_settings"].items() if k != "tuning"}
    words = []
    for name, value in settings.items():
        if defaults.get(name) == value:
            continue
        flag = f"--{name.replace('_', '-')}"
        words.append(flag if value is True else f"{flag} {value}")
    return " ".join(words)


def _bytes(size: int) -> str:
    return f"{numbers.size(size)} ({numbers.exact_size(size)})"
