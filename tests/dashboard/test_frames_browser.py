"""What goes over the websocket: plotly.js once, whatever a page does when it is opened."""

from __future__ import annotations

import pytest

from bottleneck_core.store.lock import RunLock
from tests.browser import settled

pytestmark = pytest.mark.e2e

LIBRARY_BYTES = 4_000_000  # at least


PATHS = {
    "runs": "",
    "attention": "attention",
    "compare": "compare?runs=one,two",
    "run": "run?id=one",
    "kv": "kv",
}


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_plotly_comes_once(server, page, make_run, path):
    """With a run in training, for which the table looks more often, and without one in the address of Attention."""
    address, _ = server
    one, two = make_run("one", steps=1000), make_run("two", exp="paper_gqa")
    for run in (one, two):
        run.train(40)
        run.analyse()
    two.finish()
    sizes: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sizes.append(len(frame))))
    with RunLock(one.path):
        page.goto(f"{address}/{path}")
        page.locator(".bottleneck-chart .main-svg").first.wait_for(state="attached")
        settled(page)
        assert sum(size > LIBRARY_BYTES for size in sizes) == 1
