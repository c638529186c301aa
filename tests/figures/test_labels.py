"""Labels do not overlap."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from bottleneck_core.figures.labels import LINE_HEIGHT, Box, place, spread, text_width


@given(st.lists(st.floats(0, 300), max_size=8))
def test_spread_keeps_the_order_the_distance_and_the_limits(positions):
    result = spread(positions, 300, gap=15)
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    placed = [result[i] for i in order]
    assert all(b - a >= 15 - 1e-6 for a, b in itertools.pairwise(placed))
    assert all(-1e-6 <= position <= 300 + 1e-6 for position in placed)


def test_spread_leaves_what_does_not_collide():
    assert spread([200.0, 10.0, 100.0], 300, gap=15) == [200.0, 10.0, 100.0]


def test_a_collision_is_shared_evenly():
    assert spread([100.0, 104.0], 300, gap=15) == [94.5, 109.5]


def test_a_crowd_at_the_border_stays_inside():
    assert spread([300.0, 299.0, 298.0, 280.0], 300, gap=15) == [300.0, 285.0, 270.0, 255.0]


def label_box(point, text, side):
    (x, y), width = point, text_width(text)
    left = {"middle right": x + 7, "middle left": x - 7 - width}.get(side, x - width / 2)
    top = {"top center": y - 7 - LINE_HEIGHT, "bottom center": y + 7}.get(side, y - LINE_HEIGHT / 2)
    return Box(left=left, top=top, right=left + width, bottom=top + LINE_HEIGHT)


@given(st.lists(st.tuples(st.floats(0, 400), st.floats(0, 200)), max_size=8))
def test_placed_labels_stay_inside_and_apart(points):
    texts = [f"run_number_{i}" for i in range(len(points))]
    area = Box(left=0, top=0, right=400, bottom=200)
    sides = place(points, texts, area)
    boxes = [label_box(p, t, s) for p, t, s in zip(points, texts, sides, strict=True) if s]
    assert all(b.left > -11 and b.right < 411 and b.top > -2 and b.bottom < 202 for b in boxes)
    for a, b in itertools.combinations(boxes, 2):
        # `place` keeps a few more pixels free at the sides than the text needs.
        slack = Box(left=a.left + 4, top=a.top + 1, right=a.right - 4, bottom=a.bottom - 1)
        assert not slack.overlaps(Box(left=b.left + 4, top=b.top + 1, right=b.right - 4, bottom=b.bottom - 1))


def test_a_point_at_the_right_border_is_labelled_on_the_left():
    area = Box(left=0, top=0, right=400, bottom=200)
    assert place([(395.0, 100.0)], ["some_run"], area) == ["middle left"]


def test_no_room_no_label():
    assert place([(5.0, 5.0)], ["a name that is far too long"], Box(left=0, top=0, right=40, bottom=20)) == [None]
