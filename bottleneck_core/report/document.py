"""What a report says, before it is Markdown, LaTeX or HTML. All texts are plain: each writer escapes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bottleneck_core.figures.static_sheet import Sheet


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """One or a few sentences."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Bullets:
    """Sentences that stand beside each other."""

    items: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as people read them; `right` says which columns are numbers, `notes` what the columns mean.

    `name` is the LaTeX file's, `keys` the number of first columns that are repeated where a table is too wide.
    """

    name: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[bool]
    notes: Sequence[str] = ()
    keys: int = 1


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A sheet of figures with what it shows and of which runs."""

    sheet: Sheet
    caption: str


Block = Paragraph | Bullets | Table | Picture


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Document:
    """A whole report."""

    title: str
    sections: Sequence[Section]

    @property
    def tables(self) -> list[Table]:
        """All tables in order."""
        return [block for block in self._blocks() if isinstance(block, Table)]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures in order."""
        return [block for block in self._blocks() if isinstance(block, Picture)]

    def _blocks(self) -> Iterator[Block]:
        for section in self.sections:
            yield from section.blocks


def listed(names: Sequence[str], most: int = 8) -> str:
    """`a, b and c`; of many the first and how many more."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
