"""What is missing or broken in a run folder, one sentence each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bottleneck_core.store.run import Run

_ROUNDING = 1e-5  # summaries give six decimals
_NO_ANALYSIS_FILE = ("off", "basic", "medium")


def quick_checks(run: Run) -> list[str]:
    """Everything but the inside of analysis.h5."""
    paths, config, about = run.paths, run.config, run.description
    starting = run.status in ("queued", "running")  # files are still to come
    writes_events = config.get("instrument") != "off"
    found = list(about.faults)
    if run.events.types or (not starting and (writes_events or paths.events.is_file())):
        found += run.events.errors
    due = {
        paths.config: not about.is_foreign,
        paths.manifest: not about.is_foreign,
        paths.summary: writes_events,
        paths.analysis: bool(config)
        and config.get("instrument") not in _NO_ANALYSIS_FILE
        and config.get("analysis_every") != 0,
    }
    if not starting:
        found += [f"{path.name} is missing" for path, is_due in due.items() if is_due and not path.exists()]
    recorded, seen = about.results.best_val_loss, run.least_val_loss
    if about.is_foreign and recorded is not None and seen is not None and abs(recorded - seen) > _ROUNDING:
        found.append(f"summary.md says best validation loss {recorded:.6f}, the events say {seen:.6f}")
    return found


def analysis_checks(run: Run) -> list[str]:
    """Whether analysis.h5 can be read, where there is one."""
    from bottleneck_core.store.analysis import AnalysisError, AnalysisFile

    path = run.paths.analysis
    if not path.is_file():
        return []
    try:
        AnalysisFile.open(path)
    except AnalysisError as error:
        return [f"{path.name} cannot be opened: {str(error).removeprefix(f'{path}: ')}"]
    return []
