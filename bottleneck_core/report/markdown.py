"""A report as Markdown, its figures as pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bottleneck_core.figures.tables import markdown_table, markdown_text

from .document import Block, Bullets, Document, Paragraph, Picture, Table
from .files import FIGURES

# What begins a list or a heading where it begins a line.
_START = re.compile(r"^(\d+[.)]|[-+=])(?=\s|$)")


def markdown(document: Document, stems: Mapping[str, str], kinds: Sequence[str]) -> str:
    """The whole file. `stems` are the pictures' files by sheet; `kinds` are those drawn: png, svg, both or none."""
    parts = [f"# {_line(document.title)}"]
    for section in document.sections:
        parts.append(f"## {_line(section.title)}")
        parts += [_block(block, stems, kinds) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def _block(block: Block, stems: Mapping[str, str], kinds: Sequence[str]) -> str:
    if isinstance(block, Paragraph):
        return _line(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {_line(item)}" for item in block.items)
    if isinstance(block, Table):
        notes = "\n".join(f"- {_line(note)}" for note in block.notes)
        table = markdown_table(block.header, block.rows, block.right)
        return "\n\n".join(part for part in (_line(block.caption), table, notes) if part)
    return _picture(block, stems[block.sheet.name], kinds)


def _picture(picture: Picture, stem: str, kinds: Sequence[str]) -> str:
    caption = _line(picture.caption)
    if not kinds:
        return caption
    image = f"![{_line(picture.sheet.title)}]({FIGURES}/{stem}.{kinds[0]})"
    others = "".join(f" ([{kind.upper()}]({FIGURES}/{stem}.{kind}))" for kind in kinds[1:])
    return f"{image}\n\n{caption}{others}"


def _line(text: str) -> str:
    return _START.sub(r"\\\1", markdown_text(text))
