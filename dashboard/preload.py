"""What the first click on another page would wait for, done while the reader looks at the first page."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from threading import Thread

from bottleneck_core.store import cold_scan

_HERE = Path(__file__).parent


@cache
def preload() -> Thread:
    """Starts importing the other pages' modules, once a server. To be called when the first page is drawn."""
    thread = Thread(target=_preload, daemon=True, name="preload")
    thread.start()
    return thread


def _preload() -> None:
    pages = f"{__package__}.pages"  # run by Streamlit, not imported
    for module in pkgutil.walk_packages([str(_HERE)], f"{__package__}."):
        if not module.name.startswith(pages):
            importlib.import_module(module.name)
    cold_scan.prepare()
