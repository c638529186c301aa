"""Quality against memory, and the curve in a table cell."""

# Figures get their attributes at run time.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from bottleneck_core.figures.frontier import comparable, frontier, quality_figure
from bottleneck_core.figures.sparkline import sparkline

ROWS = [
    {"id": "standard", "attn_mode": "standard", "best_val_loss": 4.2, "kv_bytes_128k": 1500e6},
    {"id": "unfinished", "attn_mode": "gqa", "best_val_loss": None, "kv_bytes_128k": 400e6},
    {"id": "bottleneck", "attn_mode": "bottleneck", "best_val_loss": 4.3, "kv_bytes_128k": 280e6},
    {"id": "worse", "attn_mode": "gqa", "best_val_loss": 4.4, "kv_bytes_128k": 400e6},
    {"id": "nan", "attn_mode": "gqa", "best_val_loss": float("nan"), "kv_bytes_128k": 400e6},
]


def test_runs_without_both_numbers_are_left_out():
    assert [row["id"] for row in comparable(ROWS)] == ["standard", "bottleneck", "worse"]


def test_the_frontier_is_what_nothing_beats_in_both():
    assert [row["id"] for row in frontier(ROWS)] == ["bottleneck", "standard"]
    twin = {**ROWS[2], "id": "twin"}
    assert len(frontier([*ROWS, twin])) == 2


def test_a_click_finds_its_row_and_modes_have_a_colour_each():
    figure = quality_figure(ROWS)
    points = [t for t in figure.data if t.name]
    found = {data[1]: data[0] for t in points for data in t.customdata}
    assert found == {"standard": 0, "bottleneck": 2, "worse": 3}
    assert len({t.marker.color for t in points}) == 3
    assert figure.layout.xaxis.type == "log"
    assert all("MiB" in text or "GiB" in text for text in figure.layout.xaxis.ticktext)


def test_a_single_run_has_a_range_around_it():
    figure = quality_figure(ROWS[:1])
    low, high = figure.layout.xaxis.range
    assert low < np.log10(1500e6) < high and figure.layout.yaxis.range[0] < 4.2


def test_among_many_runs_only_the_frontier_is_labelled():
    crowd = [{**ROWS[0], "id": f"run_{i}", "kv_bytes_128k": 1e9 * (1 + i), "best_val_loss": 5 + i} for i in range(50)]
    texts = [text for trace in quality_figure([ROWS[2], *crowd]).data if trace.name for text in trace.text]
    assert [text for text in texts if text] == ["bottleneck"]


def test_sparkline_is_short_keeps_the_end_and_cuts_the_start():
    values = np.concatenate([[11.0], np.linspace(5, 4, 5000), [np.nan]])
    line = sparkline(values, points=40)
    assert len(line) <= 200 and line[-1] == 4.0 and max(line) < 5.1
    assert sparkline([7.0, 3.0, np.nan]) == [7.0, 3.0] and sparkline([np.nan, 3.0]) == []


def points_of(figure):
    return [entry for trace in figure.data if trace.name for entry in trace.customdata]


def test_of_many_runs_on_one_spot_the_best_is_drawn():
    crowd = [
        {"id": f"run{i}", "attn_mode": "gqa", "best_val_loss": 3 + i / 1e6, "kv_bytes_128k": 10**8} for i in range(2000)
    ]
    apart = [{"id": "far", "attn_mode": "gqa", "best_val_loss": 5.0, "kv_bytes_128k": 10**9}]
    drawn = points_of(quality_figure([*apart, *reversed(crowd)]))
    assert len(drawn) < 5 and {"run0", "far"} <= {entry[1] for entry in drawn}
    assert next(entry[0] for entry in drawn if entry[1] == "run0") == 2000  # its place among all rows
    assert len(points_of(quality_figure(crowd[:400]))) == 400


def test_bytes_of_another_context_take_the_place_of_the_recorded_ones():
    sizes = [None, *([2048.0] * (len(ROWS) - 1))]
    figure = quality_figure(ROWS, at="1M", sizes=sizes)
    assert "at 1M tokens" in figure.layout.title.text
    assert {x for trace in figure.data if trace.name for x in trace.x} == {2048.0}
    assert ROWS[0]["id"] not in {entry[1] for entry in points_of(figure)}
