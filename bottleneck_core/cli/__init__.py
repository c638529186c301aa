"""`python -m bottleneck_core <command>`: finds the command, prints a user's mistake as one sentence."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from bottleneck_core.errors import UserError

COMMANDS = {
    "prepare": "make a token file from a corpus",
    "train": "train an instrumented run",
    "sample": "continue a prompt with a trained model",
    "evaluate": "measure what cache policies cost a trained model in quality",
    "tune": "choose the cache policy and decode plan of a trained model for this device",
    "bench": "list the benchmarks of a checkout and what they found, or run one",
    "kv": "size a KV cache: ours, a run's, or a public model's",
    "runs": "list run folders",
    "report": "write what runs show: Markdown, LaTeX tables, figures",
    "export": "copy a run folder to give away: no checkpoints, few attention maps",
    "jobs": "list, queue, order, start, resume and stop background jobs",
    "serve": "open the dashboard",
    "demo": "prepare, train a nano run in the background, open the dashboard",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 2 a user's mistake, others as the command says."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(version("bottleneck-core"))
        except PackageNotFoundError:
            print("a checkout that is not installed")
        return 0
    command, rest = _command(words)
    try:
        return importlib.import_module(f"bottleneck_core.cli.{command}").main(rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `runs | head`: the reader left, nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _command(words: list[str]) -> tuple[str, list[str]]:
    """The command and its words; `--mode train ...`, as run summaries spell it, is the command `train`."""
    if "--mode" in words and words[0].startswith("--"):
        at = words.index("--mode")
        words = [*words[at + 1 : at + 2], *words[:at], *words[at + 2 :]]
    if not words or words[0] not in COMMANDS:
        got = words[0] if words else "nothing"
        print(f"error: unknown command {got}: choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    return words[0], words[1:]


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: python -m bottleneck_core <command> [flags]",
            "",
            *lines,
            "",
            "<command> --help lists its flags.",
        ]
    )
