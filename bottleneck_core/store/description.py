"""What the small files of a run folder say: config.json, manifest.json, summary.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bottleneck_core.store.layout import RunPaths
from bottleneck_core.store.summary import Results, read_header, read_results, read_summary

Stamp = tuple[int, int] | None


@dataclass(frozen=True)
class Description:
    """The small files as they were read. `config` is None where config.json is absent or broken."""

    config: dict[str, Any] | None
    manifest: dict[str, Any]
    summary: str
    is_foreign: bool  # from a system that writes neither config.json nor manifest.json
    faults: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, paths: RunPaths) -> Description:
        """Read them; what is broken is named in `faults`."""
        faults: list[str] = []
        return cls(
            config=_object(paths.config, faults),
            manifest=_object(paths.manifest, faults) or {},
            summary=read_summary(paths.summary),
            is_foreign=not paths.config.exists() and not paths.manifest.exists(),
            faults=faults,
        )

    @staticmethod
    def stamps(paths: RunPaths) -> tuple[Stamp, ...]:
        """Equal as long as the files are."""
        return tuple(file_stamp(path) for path in (paths.config, paths.manifest, paths.summary))

    @property
    def header(self) -> dict[str, str]:
        """The summary's first lines by name."""
        return read_header(self.summary)

    @property
    def results(self) -> Results:
        """The summary's results."""
        return read_results(self.summary)


def file_stamp(path: Path) -> Stamp:
    """Size and modification time in ns, None for an absent file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _object(path: Path, faults: list[str]) -> dict[str, Any] | None:
    try:
        value = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        value = None
    if isinstance(value, dict):
        return value
    faults.append(f"{path.name} is not valid JSON, ignored")
    return None
