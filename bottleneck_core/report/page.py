"""A report as one HTML file with interactive figures. It holds plotly.js once and needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from bottleneck_core.figures.layout import FONT, layout_of
from bottleneck_core.figures.palette import ink
from bottleneck_core.figures.tables import plain

from .document import Block, Bullets, Document, Paragraph, Picture, Table

_STYLE = f"""
body {{ font: 15px/1.5 {FONT}; color: {ink("text")}; background: #fff;
  margin: 0 auto; padding: 24px; max-width: 1500px; }}
h1 {{ font-size: 26px; }} h2 {{ font-size: 20px; margin-top: 40px; }}
nav a {{ margin-right: 14px; color: #0072B2; }}
p, li {{ max-width: 900px; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; padding-bottom: 6px; color: {ink("muted")}; }}
th, td {{ padding: 4px 12px; text-align: left; white-space: nowrap; border-bottom: 1px solid #eceae7; }}
th {{ font-weight: 600; }} .n {{ text-align: right; }}
small {{ display: block; color: {ink("muted")}; max-width: 900px; margin-top: 6px; }}
figure {{ margin: 24px 0; overflow-x: auto; }}
figcaption {{ color: {ink("muted")}; font-size: 14px; max-width: 900px; }}
.sheet {{ display: grid; gap: 10px; }}
"""

# Labels are reckoned in the pages' font, which a reader of a file need not have; others are up to so much wider.
_FONT_ROOM = 1.2

# A figure is drawn when it comes into sight, and all of them before printing: a hundred at once take long.
_SCRIPT = """
const draw = (place) => {
  if (place.dataset.drawn) return;
  place.dataset.drawn = "1";
  const figure = JSON.parse(place.querySelector("script").textContent);
  place.replaceChildren();
  Plotly.newPlot(place, figure.data, figure.layout, {responsive: true, displaylogo: false});
};
const places = document.querySelectorAll(".plot");
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
}, {rootMargin: "400px"});
places.forEach((place) => watcher.observe(place));
addEventListener("beforeprint", () => places.forEach(draw));
"""


def page(document: Document) -> str:
    """The whole file."""
    title = _text(document.title)
    links = "".join(f'<a href="#s{i}">{_text(s.title)}</a>' for i, s in enumerate(document.sections))
    body = []
    for i, section in enumerate(document.sections):
        body.append(f'<h2 id="s{i}">{_text(section.title)}</h2>')
        body += [_block(block) for block in section.blocks]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{_STYLE}</style>",
            f"<script>{get_plotlyjs()}</script></head><body>",
            f"<h1>{title}</h1>\n<nav>{links}</nav>",
            *body,
            f"<script>{_SCRIPT}</script></body></html>\n",
        ]
    )


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f"<p>{_text(block.text)}</p>"
    if isinstance(block, Bullets):
        return f"<ul>{''.join(f'<li>{_text(item)}</li>' for item in block.items)}</ul>"
    return _table(block) if isinstance(block, Table) else _picture(block)


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        written = (
            f"<{tag}{' class=n' if number else ''}>{_text(cell)}</{tag}>"
            for cell, number in zip(cells, table.right, strict=True)
        )
        return f"<tr>{''.join(written)}</tr>"

    rows = "".join(row(cells, "td") for cells in table.rows)
    notes = f"<small>{'<br>'.join(map(_text, table.notes))}</small>" if table.notes else ""
    head = f"<caption>{_text(table.caption)}</caption><thead>{row(table.header, 'th')}</thead>"
    return f'<div class="table"><table>{head}<tbody>{rows}</tbody></table></div>{notes}'


def _picture(picture: Picture) -> str:
    sheet = picture.sheet
    columns = " ".join(f"minmax({min(width, 200)}px, {width}fr)" for width in sheet.widths)
    cells = "".join(_plot(cell) for row in sheet.rows for cell in row)
    style = f"grid-template-columns: {columns}; max-width: {round(1.25 * sum(sheet.widths))}px"
    return (
        f'<figure><div class="sheet" style="{style}">{cells}</div>'
        f"<figcaption>{_text(picture.caption)}</figcaption></figure>"
    )


def _plot(figure: go.Figure | None) -> str:
    if figure is None:
        return "<div></div>"
    shown = go.Figure(figure)
    if layout_of(figure).showlegend or any(note.xanchor == "left" for note in layout_of(figure).annotations or ()):
        shown.update_layout(margin_r=round(_FONT_ROOM * layout_of(figure).margin.r))
    # Plotly writes `<` as an escape, so that no name ends the script.
    document = shown.to_json()
    return (
        f'<div class="plot" style="height: {int(layout_of(figure).height)}px">'
        f'<script type="application/json">{document}</script></div>'
    )


def _text(text: str) -> str:
    return escape(plain(text))
