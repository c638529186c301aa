"""The dashboard without a browser: the app on a folder of runs."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit import get_option
from streamlit.testing.v1 import AppTest

from . import server as servers
from .server import ROOT
from .synthetic import SyntheticRun

# A fixture.
server = servers.server


class App:
    """The dashboard over some roots. Each address is opened as in a browser of its own."""

    def runs(self, **query: str) -> AppTest:
        return self._open("dashboard/pages/runs.py", query)

    def run(self, run_id: str, **query: str) -> AppTest:
        return self._open("dashboard/pages/run.py", {"id": run_id, **query})

    def _open(self, page: str, query: dict[str, str]) -> AppTest:
        test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
        test.switch_page(page)
        for name, value in query.items():
            test.query_params[name] = value
        return test.run()


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Callable[..., App]:
    """`app(root, ...)` is the dashboard over these folders."""
    get_option("server.address")  # read from .streamlit in the current folder when first asked, and tests leave it
    # Each test server would look for components in every installed package: two thirds of a test's time.
    monkeypatch.setattr("streamlit.components.v2.manifest_scanner.scan_component_manifests", list)

    # On a loaded machine a look takes long, and the next run would show what was known before.
    monkeypatch.setattr("dashboard.run.index._QUICK", math.inf)

    def over(*roots: Path) -> App:
        monkeypatch.setenv("BOTTLENECK_RUNS", os.pathsep.join(map(str, roots)))
        return App()

    return over


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., SyntheticRun]]:
    """`make_run(run_id, root=tmp_path, **options)` is a `SyntheticRun`."""
    with contextlib.ExitStack() as stack:

        def make(run_id: str, root: Path = tmp_path, **options: Any) -> SyntheticRun:
            run = SyntheticRun(root, run_id, **options)
            stack.callback(run.close)
            return run

        yield make


def charts(test: AppTest) -> dict[str, Any]:
    """The figures on the page by their charts' names, as the browser gets them."""
    found = {}
    for element in test.get("bidi_component"):
        if element.proto.bytes:  # pyright: ignore[reportAttributeAccessIssue]
            frame = json.loads(element.proto.bytes)  # pyright: ignore[reportAttributeAccessIssue]
            found[frame["name"]] = frame["figure"]
    return found


def trace(figure: dict[str, Any], name: str) -> dict[str, Any]:
    """The trace of a figure by its name."""
    return next(t for t in figure["data"] if t.get("name") == name)


def array(value: Any) -> np.ndarray:
    """Numbers of a trace: plotly writes arrays as base64 of their bytes."""
    if isinstance(value, dict):
        flat = np.frombuffer(base64.b64decode(value["bdata"]), dtype=np.dtype(value["dtype"]))
        return flat.reshape([int(n) for n in value["shape"].split(",")]) if "shape" in value else flat
    return np.asarray(value, dtype=float)


def texts(test: AppTest) -> str:
    """All prose of the page."""
    kinds = (test.markdown, test.info, test.warning, test.error, test.caption, test.code)
    return "\n".join(str(element.value) for elements in kinds for element in elements)
