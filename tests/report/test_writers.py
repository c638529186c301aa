"""Names as data in every format; LaTeX that article and booktabs can compile; a page that needs no network."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from bottleneck_core.figures.static_sheet import Sheet
from bottleneck_core.figures.tables import latex_text
from bottleneck_core.report import Request, write_report
from bottleneck_core.report.document import Document, Paragraph, Picture, Section, Table
from bottleneck_core.report.files import stems
from bottleneck_core.report.latex import folded, latex_document, latex_tables
from bottleneck_core.report.markdown import markdown
from bottleneck_core.report.page import page

from .folders import add_analysis, run_folder

HOSTILE = "</script><b>x|y</b> $a_1$ 100% \\input{x} {#} ~^& --flag 试验 naïve [i]* `c`"
OURS = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[&%$#_{}]"


def table(rows: list[list[str]], header: tuple[str, ...] = ("run", "loss")) -> Table:
    return Table(name="t", caption="Of " + HOSTILE, header=header, rows=rows, right=[False] * len(header))


def test_latex_cells_have_no_command_and_no_letter_but_those_that_compile() -> None:
    written = latex_text(HOSTILE)
    bare = re.sub(OURS, "", written)
    assert not set(bare) & set("\\%$#_~^&<>|")
    assert bare.count("{") == bare.count("}")
    assert "(U+8BD5)(U+9A8C)" in written and "naïve" in written and "-{}-flag" in written
    assert latex_text("---") == "-{}-{}-" and latex_text("–") == "--"
    assert latex_text("± 95 % Δ −1 ×") == r"$\pm$ 95 \% $\Delta$ $-$1 $\times$"


def test_latex_tables_use_booktabs_and_balance() -> None:
    text = latex_tables(table([[HOSTILE, "1.0"], ["plain", "2.0"]]))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 1
    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    assert all(line.endswith(r" \\") and line.count(" & ") == 1 for line in text.splitlines() if " & " in line)


def test_a_wide_table_goes_on_below_with_its_first_column() -> None:
    header = ("run", *(f"a long column heading {i}" for i in range(6)))
    parts = folded(table([["r", *"123456"], ["s", *"abcdef"]], header))
    assert len(parts) == 2 and all(part.header[0] == "run" and part.rows[1][0] == "s" for part in parts)
    assert [name for part in parts for name in part.header[1:]] == list(header[1:])
    long = folded(table([[str(i), "x"] for i in range(100)]))
    assert [row[0] for part in long for row in part.rows] == [str(i) for i in range(100)] and len(long) == 3


def test_the_document_takes_each_table_from_its_file() -> None:
    document = Document(title=HOSTILE, sections=[Section(title="s", blocks=[table([["a", "b"]])])])
    text = latex_document(document)
    assert re.findall(r"\\usepackage\{(\w+)\}", text) == ["booktabs"] and r"\documentclass{article}" in text
    assert r"\input{tables/t}" in text and text.index(r"\begin{document}") < text.index(r"\end{document}")


def test_markdown_shows_names_as_text() -> None:
    blocks = [Paragraph(text="1. " + HOSTILE), table([[HOSTILE, "1"]])]
    text = markdown(Document(title=HOSTILE, sections=[Section(title=HOSTILE, blocks=blocks)]), {}, ["png"])
    bare = re.sub(r"\\.", "", text)
    assert "<" not in bare and "`" not in bare and "$" not in bare
    line = next(line for line in text.splitlines() if line.startswith(r"| \<"))
    assert len(re.findall(r"(?<!\\)\|", line)) == 3
    assert r"\1. " in text  # not the beginning of a list


def test_the_page_holds_plotly_once_and_its_figures_as_data(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "a'</script><script>alert(1)".replace("/", "_"))
    add_analysis(folder)
    write_report(Request(runs=[folder], formats=["html"], title="</title>"), tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert text.count("<script>") == 2 and "plotly.js v" in text[:20_000] and text.count("plotly.js v") == 1
    assert not re.search(r"""<(script|link|img)[^>]+(src|href)=""", text)
    assert "&lt;/title&gt;" in text and "<script>alert" not in text
    figures = [json.loads(found) for found in re.findall(r'<script type="application/json">(.*?)</script>', text)]
    # two curves, the scatter, five means, five metrics by layer and as maps, 4 x 4 + 1 by head, one stored map
    assert len(figures) == 3 + 5 + 10 + 17 + 1
    assert all(figure["data"] for figure in figures)


def test_no_name_ends_the_script_that_holds_a_figure() -> None:
    figure = go.Figure([{"type": "scatter", "y": [1], "name": HOSTILE}], {"height": 100})
    picture = Picture(sheet=Sheet(name="s", title="s", rows=[[figure]], widths=[100]), caption=HOSTILE)
    text = page(Document(title="t", sections=[Section(title="s", blocks=[picture])]))
    (found,) = re.findall(r'<script type="application/json">(.*?)</script>', text)
    assert json.loads(found)["data"][0]["name"] == HOSTILE


def test_hostile_names_are_file_names_of_their_own() -> None:
    found = stems(["a/b", "a_b", "A_B", "../..", "", "x" * 300, "试验"])
    assert len({name.lower() for name in found}) == 7
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,90}", name) for name in found)


@pytest.mark.e2e
def test_the_page_draws_its_figures_without_a_network(tmp_path: Path, page: Any) -> None:
    folder = run_folder(tmp_path, "a")
    add_analysis(folder)
    write_report(Request(runs=[folder], formats=["html"]), tmp_path / "out")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "out" / "report.html").as_uri())
    page.locator(".plot .main-svg").first.wait_for()
    last = page.locator(".plot").last
    assert last.locator("svg").count() == 0  # drawn when it comes into sight
    last.scroll_into_view_if_needed()
    last.locator(".main-svg").first.wait_for()
    assert [url for url in requests if not url.startswith(("file:", "blob:"))] == []
