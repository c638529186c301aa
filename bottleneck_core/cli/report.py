"""`report`: what a set of runs shows, as Markdown, LaTeX tables and figures, from the folders alone."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from bottleneck_core.cli.amounts import tokens, whole_number
from bottleneck_core.cli.words import read_words
from bottleneck_core.errors import UserError

PROG = "python -m bottleneck_core report"
Text = str | None


@dataclass(frozen=True)
class Words:
    """Write a report on the runs RUN (run folders, or folders of runs): results, curves, loss against KV bytes,
    attention, settings that differ. The first run is what the others are compared with."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN...", help="folders")] = ()
    out: Annotated[Text, tyro.conf.arg(metavar="DIR", help="folder to write; an earlier report is replaced")] = None
    title: Annotated[Text, tyro.conf.arg(metavar="TEXT", help="unset: the names of the runs")] = None
    context: Annotated[str, tyro.conf.arg(metavar="N", help="tokens that KV bytes are counted for")] = "128k"
    formats: Annotated[str, tyro.conf.arg(metavar="LIST", help="what to write, of these")] = "md,tex,png,svg,html"
    smooth: Annotated[
        Text, tyro.conf.arg(metavar="N", help="logged rows that training curves average over; unset: up to 10")
    ] = None
    json: Annotated[tyro.conf.FlagCreatePairsOff[bool], tyro.conf.arg(help="one JSON document, nothing else")] = False


def main(argv: list[str]) -> int:
    words = read_words(Words, argv, prog=PROG)
    if not words.runs:
        raise UserError(f"no run is given: name run folders, as {PROG} runs/* --out report")
    if words.out is None:
        raise UserError("--out is missing: name the folder to write the report to")
    context = tokens(words.context)
    smooth = whole_number(words.smooth, "--smooth") if words.smooth is not None else None
    formats = _formats(words.formats)
    from bottleneck_core.report import Request, write_report

    request = Request(
        runs=words.runs,
        title=words.title,
        context=context,
        formats=formats,
        smooth=smooth,
        said=lambda text: print(text, file=sys.stderr) if sys.stderr.isatty() else None,
    )
    about = write_report(request, Path(words.out))
    if words.json:
        print(json.dumps({"out": words.out, **about}, indent=2, ensure_ascii=False, allow_nan=False))
        return 0
    runs, figures, tables = (len(about[name]) for name in ("runs", "figures", "tables"))
    print(f"{words.out}: {_counted(runs, 'run')}, {_counted(tables, 'table')}, {_counted(figures, 'figure')}")
    for run in about["runs"]:
        for sentence in run["missing"]:
            print(f"  {run['id']}: {sentence}")
    return 0


def _formats(text: str) -> list[str]:
    from bottleneck_core.report.files import FORMATS

    wanted = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in wanted if part not in FORMATS]
    if unknown or not wanted:
        raise UserError(f"--formats needs some of {','.join(FORMATS)}, got {text}")
    return [name for name in FORMATS if name in wanted]


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
