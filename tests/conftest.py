"""What all tests share: where the reference files are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference files beside the checkout (or BOTTLENECK_SHARED); tests that need it skip without it."""
    folder = Path(os.environ.get("BOTTLENECK_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference files are absent: {folder}")
    return folder
