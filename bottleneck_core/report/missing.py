"""The last section: what is missing or broken in each run."""

from __future__ import annotations

from collections.abc import Sequence

from .document import Bullets, Paragraph, Section
from .groups import Group


def missing_section(groups: Sequence[Group]) -> Section:
    """What could not be read or was never written, by run."""
    items = [f"{run.id}: {sentence}" for group in groups for run in group.runs for sentence in run.missing]
    block = Bullets(items=items) if items else Paragraph(text="Nothing: all runs have all their files, readable.")
    return Section(title="Missing or broken", blocks=[block])
