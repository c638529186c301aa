"""Writes docs/RESULTS.md and its figures from the run folders in runs/, with the `report` command alone.

    make results            or: python docs/results.py

RESULTS.md is its own template: what stands between `<!-- report SET: SECTION -->` and `<!-- end -->` is made anew, the
prose around it is kept. A set is all run folders of a pattern, so a run that is added takes part by itself. A number in
the prose is `<!-- value FILE: KEY.KEY .4f -->` and `<!-- end -->` around what a JSON file of the repository has there.
`docs/results/figures.json` has what the figures show as numbers, which `tests/e2e/test_results_page.py` compares.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bottleneck_core import cli
from bottleneck_core.report import Request
from bottleneck_core.report.document import Document
from bottleneck_core.report.groups import grouped
from bottleneck_core.report.reported import reported_runs
from bottleneck_core.report.write import document_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "RESULTS.md"
FIGURES = ROOT / "docs" / "results"
SETS = {"tiny": "tiny_*_ref", "nano": "nano_*_ref"}
MAPS = "maps"  # the stored attention map of every run, which the report has in a section a run

_MARKED = re.compile(r"(<!-- report (\w+): ([^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_VALUE = re.compile(r"(<!-- value ([\w./-]+): ([\w.-]+) (\S+) -->)[^<]*(<!-- end -->)")
_PICTURE = re.compile(r"^!\[[^\n]*\]\(figures/([^)]+)\)$", re.MULTILINE)


def run_folders(name: str) -> list[Path]:
    """The runs of a set, in the order of their names."""
    return sorted(path for path in (ROOT / "runs").glob(SETS[name]) if (path / "train.jsonl").is_file())


def page(text: str, reports: Mapping[str, str]) -> str:
    """RESULTS.md with each marked part taken from the report of its set, which is Markdown."""

    def part(match: re.Match[str]) -> str:
        start, name, title, end = match.groups()
        body = _maps(reports[name]) if title == MAPS else _section(reports[name], title)
        return f"{start}\n{_PICTURE.sub(lambda m: m.group().replace('figures/', f'results/{name}/'), body)}\n\n{end}"

    return _VALUE.sub(_value, _MARKED.sub(part, text))


def pictures(text: str) -> list[str]:
    """The figures that RESULTS.md shows, as `tiny/attention.svg`."""
    return re.findall(r"\]\(results/([^)]+)\)", text)


def shown_values(documents: Mapping[str, Document], names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """What the traces of each figure hold, in a few numbers: enough to tell that another run is shown."""
    sheets = {f"{name}/{p.sheet.name}.svg": p.sheet for name, document in documents.items() for p in document.pictures}
    return {name: [_trace(trace) for figure in sheets[name].figures for trace in figure.data] for name in names}


def document(name: str) -> Document:
    """The report on a set, before it is written."""
    request = Request(runs=run_folders(name))
    return document_of(grouped(reported_runs(request.runs, request.context)), request)


def main() -> None:
    """Runs the report on each set, writes the page, and keeps the figures that it shows."""
    with tempfile.TemporaryDirectory() as folder:
        reports = {}
        for name in SETS:
            out = Path(folder) / name
            cli.main(["report", *map(str, run_folders(name)), "--out", str(out), "--formats", "md,svg"])
            reports[name] = (out / "report.md").read_text(encoding="utf-8")
        text = page(PAGE.read_text(encoding="utf-8"), reports)
        shutil.rmtree(FIGURES, ignore_errors=True)
        for picture in pictures(text):
            name, _, file = picture.partition("/")
            (FIGURES / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(folder) / name / "figures" / file, FIGURES / name / file)
    PAGE.write_text(text, encoding="utf-8")
    values = shown_values({name: document(name) for name in SETS}, pictures(text))
    lines = [f"{json.dumps(name)}: {json.dumps(traces)}" for name, traces in values.items()]
    (FIGURES / "figures.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    size = sum(path.stat().st_size for path in FIGURES.rglob("*") if path.is_file())
    print(f"{PAGE.relative_to(ROOT)}, {len(pictures(text))} figures, {size / 1e6:.2f} MB")


def _value(match: re.Match[str]) -> str:
    """The number of a JSON file that a mark names, as it is asked for."""
    start, file, keys, form, end = match.groups()
    value = json.loads((ROOT / file).read_text(encoding="utf-8"))
    for key in keys.split("."):
        value = value[int(key) if isinstance(value, list) else key]
    return f"{start}{value:{form}}{end}"


def _section(report: str, title: str) -> str:
    """What stands under a heading of the report."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", report, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"the report has no section {title}")
    return found.group(1).strip()


def _maps(report: str) -> str:
    """Each run's attention map with its caption."""
    blocks = report.split("\n\n")
    return "\n\n".join(f"{image}\n\n{caption}" for image, caption in pairwise(blocks) if "](figures/map-" in image)


def _trace(trace: Any) -> dict[str, Any]:
    """Name, and of each axis count, mean, first and last value."""
    values = {axis: list(_numbers(getattr(trace, axis, None))) for axis in ("x", "y", "z")}
    return {"name": trace.name, **{axis: _few(numbers) for axis, numbers in values.items() if numbers}}


def _few(numbers: list[float]) -> list[float]:
    told = (math.fsum(numbers) / len(numbers), numbers[0], numbers[-1])
    return [len(numbers), *(float(f"{value:.6g}") for value in told)]


def _numbers(values: Any) -> Iterator[float]:
    for value in [] if values is None else np.asarray(values, dtype=object).ravel():
        if isinstance(value, (int, float, np.number)) and math.isfinite(value):
            yield float(value)


if __name__ == "__main__":
    main()
