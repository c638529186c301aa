"""From run folders to a report: what is said, and the files that say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottleneck_core.figures.scatter import CACHE, LOSS, pareto
from bottleneck_core.figures.static_sheet import drawn, png_bytes, svg_bytes
from bottleneck_core.memory import TOKENS_128K

from .attention import attention_section, run_sections
from .curves import curves_section
from .document import Document, listed
from .files import FIGURES, FORMATS, HTML, LATEX, MARKDOWN, TABLES, stems
from .folder import check_folder, write_folder
from .groups import Group, grouped
from .latex import latex_document, latex_tables
from .markdown import markdown
from .missing import missing_section
from .page import page
from .reported import KV_BYTES, Reported, reported_runs
from .results import quality_section, results_section, runs_section
from .settings import settings_section

_MOST_NAMES = 4


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to report and how. `smooth`: logged rows that a training curve averages over, None for a fitting number."""

    runs: Sequence[Path]
    title: str | None = None
    context: int = TOKENS_128K
    formats: Sequence[str] = FORMATS
    smooth: int | None = None
    said: Callable[[str], None] = field(default=lambda text: None)


def write_report(request: Request, out: Path) -> dict[str, Any]:
    """Write the report to the folder `out` and return what it says as plain values.

    Raises UserError for runs that are none, and for a folder that holds something else.
    """
    check_folder(out)
    request.said("reading the runs")
    runs = reported_runs(request.runs, request.context)
    groups = grouped(runs)
    document = document_of(groups, request)
    about = summary(document, groups, request)
    write_folder(out, _files(document, request), about)
    return about


def document_of(groups: Sequence[Group], request: Request) -> Document:
    """The report's sections."""
    names = [group.label for group in groups]
    return Document(
        title=request.title or f"Report on {listed(names, _MOST_NAMES)}",
        sections=[
            runs_section(groups),
            results_section(groups, request.context),
            curves_section(groups, request.smooth),
            quality_section(groups, request.context),
            settings_section(groups),
            attention_section(groups),
            *run_sections(groups),
            missing_section(groups),
        ],
    )


def summary(document: Document, groups: Sequence[Group], request: Request) -> dict[str, Any]:
    """The numbers of the report as plain values, each under its run's id."""
    best = {point.name for point in pareto([group.point() for group in groups])}
    return {
        "title": document.title,
        "context": request.context,
        "formats": list(request.formats),
        "groups": [
            {"name": group.name, "runs": [run.id for run in group.runs], "on_frontier": group.label in best}
            for group in groups
        ],
        "runs": [_run_values(run) for group in groups for run in group.runs],
        "tables": [table.name for table in document.tables],
        "figures": stems([picture.sheet.name for picture in document.pictures]),
    }


def _run_values(run: Reported) -> dict[str, Any]:
    return {
        "id": run.id,
        "status": run.status,
        "attn_mode": run.config.get("attn_mode"),
        "seed": run.config.get("seed"),
        "last_step": run.run.last_step,
        "best_val_loss": run.values[LOSS],
        "best_val_step": run.run.best_val_step,
        "kv_bytes": run.values[KV_BYTES],
        "kv_bytes_per_token": run.values[CACHE],
        "n_params": run.values["n_params"],
        "tokens": run.values["tokens"],
        "missing": list(run.missing),
    }


def _files(document: Document, request: Request) -> dict[str, bytes]:
    """Contents by path below the report's folder."""
    names = [picture.sheet.name for picture in document.pictures]
    stem_of: Mapping[str, str] = dict(zip(names, stems(names), strict=True))
    drawings = [kind for kind in ("png", "svg") if kind in request.formats]
    files: dict[str, bytes] = {}
    if "md" in request.formats:
        files[MARKDOWN] = markdown(document, stem_of, drawings).encode()
    if "tex" in request.formats:
        files[LATEX] = latex_document(document).encode()
        files |= {f"{TABLES}/{table.name}.tex": latex_tables(table).encode() for table in document.tables}
    if "html" in request.formats:
        files[HTML] = page(document).encode()
    for picture in document.pictures if drawings else []:
        stem = stem_of[picture.sheet.name]
        request.said(f"drawing {stem}")
        figure = drawn(picture.sheet)
        if "png" in drawings:
            files[f"{FIGURES}/{stem}.png"] = png_bytes(figure)
        if "svg" in drawings:
            files[f"{FIGURES}/{stem}.svg"] = svg_bytes(figure, stem)
    return files
