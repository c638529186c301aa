"""What all tests share: where the reference files are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from . import browser as chromium

# Without a GPU the kernels run in Triton's interpreter, which must be chosen before anything imports triton: its own
# functions are made for one or the other when they are defined.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

ROOT = Path(__file__).resolve().parent.parent

# Fixtures.
browser, page = chromium.browser, chromium.page


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference files beside the checkout (or BOTTLENECK_SHARED); tests that need it skip without it."""
    folder = Path(os.environ.get("BOTTLENECK_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"reference files are absent: {folder}")
    return folder
