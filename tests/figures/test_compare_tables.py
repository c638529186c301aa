"""Names as data in every format, differences of settings, groups, and the table of results."""

from __future__ import annotations

import csv
import io
import math
import re

import pytest

from bottleneck_core.figures.differences import common_name, differences, seed_groups, value_groups, written
from bottleneck_core.figures.results import REFERENCE, Side, results_frame, written_rows
from bottleneck_core.figures.tables import (
    csv_text,
    html_text,
    latex_table,
    latex_text,
    markdown_table,
    markdown_text,
    plain,
)

HOSTILE = "=x|<img src=x onerror=alert(1)>`a`[b](javascript:c)*d*_e_${f}\\input{/etc/passwd}%g&h~i^j#k\nl https://m"


def test_markdown_means_nothing_else():
    text = markdown_text(HOSTILE)
    assert "\n" not in text and "://" not in text
    bare = re.sub(r"\\.", "", text)
    assert not set(bare) & set("|<>`[]*_$\\#&~{}")
    assert re.sub(r"\\(.)", r"\1", text) == plain(HOSTILE)  # and it reads as it was


def test_latex_has_no_command_but_ours():
    text = latex_text(HOSTILE)
    ours = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}|\\[&%$#_{}]|\{[\[\]*]\}"
    bare = re.sub(ours, "", text)
    assert not set(bare) & set("\\&%$#_{}~^<>|[]*\n")
    assert latex_text("±−×") == r"$\pm$$-$$\times$"


def test_plotly_shows_tags_as_text():
    assert html_text("<b>&lt;</b>") == "&lt;b&gt;&amp;lt;&lt;/b&gt;"


def test_a_cell_cannot_end_its_row_or_its_table():
    rows = [["a|b\nc", "1"], ["[x] \\\\ \\end{tabular}", "2"]]
    lines = markdown_table(["run", "n"], rows, [False, True]).split("\n")
    assert lines[1] == "| :-- | --: |" and len(lines) == 4
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 3 for line in lines)
    table = latex_table(["run", "n"], rows, [False, True])
    assert table.startswith("\\begin{tabular}{lr}\n") and table.count("\\end{tabular}") == 1
    assert table.count(r" \\" + "\n") == 3


def test_csv_is_quoted_and_starts_no_formula():
    text = csv_text(["run", "loss"], [[HOSTILE, -1.5], ['a,"b"\nc', None]])
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [["run", "loss"], ["'" + HOSTILE, "-1.5"], ['a,"b"\nc', ""]]


@pytest.mark.parametrize(("most", "text"), [(None, "abcdefghij"), (10, "abcdefghij"), (7, "abc…hij"), (6, "ab…hij")])
def test_long_names_are_cut_in_the_middle(most, text):
    assert plain("abcdefghij", most) == text


def test_only_settings_that_differ_are_listed_in_order():
    configs = [
        {"lr": 3e-4, "attn_dim": 96, "mlp": "swiglu", "out_dir": "runs/a", "steps": 10},
        {"lr": 1e-3, "attn_dim": 96.0, "mlp": "gelu", "out_dir": "runs/b", "steps": 10, "compile": True},
    ]
    found = differences(configs, order=["mlp", "lr"])
    assert [(s.name, s.values, s.everywhere) for s in found] == [
        ("mlp", ("swiglu", "gelu"), True),
        ("lr", ("0.0003", "0.001"), True),
        ("compile", ("·", "yes"), False),
    ]
    assert differences(configs[:1]) == [] and differences([]) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unset"),
        (False, "no"),
        (1.0, "1"),
        (0.1234567891, "0.1234567891"),
        ([1, "a"], "1 a"),
        (math.inf, "inf"),
        (math.nan, "nan"),
        (10**20, str(10**20)),
    ],
)
def test_values_in_words(value, text):
    assert written(value) == text


def test_repetitions_differ_in_seed_and_names_only():
    base = {"lr": 1e-3, "attn_mode": "gqa"}
    configs = [
        {**base, "seed": 1, "out_dir": "a"},
        {**base, "seed": 1, "lr": 2e-3},
        {**base, "seed": 2, "out_dir": "b"},
        {},
        {},
    ]
    assert seed_groups(configs) == [[0, 2], [1], [3], [4]]
    assert seed_groups([configs[0], configs[2], configs[0]]) == [[0, 1], [2]]  # the same seed twice repeats nothing
    assert value_groups(configs, "lr") == {"0.001": [0, 2], "0.002": [1], "·": [3, 4]}


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["tiny_seed1", "tiny_seed2"], "tiny"),
        (["a/tiny-s10", "a/tiny-s11"], "a/tiny"),
        (["same"], "same"),
        (["b_seed1", "b_seed10"], "b"),
        (["x1", "y2", "z3"], "x1 and 2 more"),
        (["classes1", "classes2"], "classes"),
        (["a_seed1", "a_seed2"], "a"),
    ],
)
def test_repetitions_are_called_by_what_they_share(names, name):
    assert common_name(names) == name


def side(name, *losses, **values):
    return Side(name=name, losses=losses, values=values, runs=max(len(losses), 1))


def test_results_against_the_first():
    frame = results_frame([side("a", 4.0, 4.02, 4.04), side("b", 3.0, 3.02, 3.04, tok_s=1.15e6), side("c", 5.0)])
    assert frame["difference"].tolist() == [REFERENCE, "lower (p < 0.001)", "one seed on one side: no statement"]
    assert frame["Δ loss"].tolist()[1:] == pytest.approx([-1.0, 0.98])
    assert "KV per token" not in frame and "time" not in frame
    cells = written_rows(frame)
    columns = list(frame)
    assert cells[0][columns.index("Δ loss")] == "–" and cells[1][columns.index("Δ loss")] == "−1.0000"
    assert cells[1][columns.index("tok/s")] == "1.15M" and cells[2][columns.index("± 95 %")] == "–"
    assert cells[1][columns.index("Δ 95 %")] == "−1.0453 to −0.9547"


def test_results_of_single_runs_say_so():
    frame = results_frame([side("a", 4.0), side("b", 3.0), side("c")])
    assert frame["difference"].tolist()[1:] == ["one seed each: no statement", "no validation loss: no statement"]
    assert "runs" not in frame and "Δ 95 %" not in frame
