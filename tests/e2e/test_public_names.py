"""The public names, in whatever order they are used."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import bottleneck_core as bc
from tests.conftest import ROOT

USES = {
    "the function first": "call = bc.train",
    "the room first": "import bottleneck_core.train.session; call = bc.train",
    "another name of the room first": "bc.load_checkpoint; call = bc.train",
    "twice": "bc.train; bc.load_checkpoint; call = bc.train; import bottleneck_core.train.schedule as s; s",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_train_is_a_function_and_a_room(use: str) -> None:
    code = f"""
import bottleneck_core as bc
{use}
try:
    call(bc.RunConfig.resolve(size="nano", exp="paper_gqa", data="/nowhere/tokens.bin", out_dir="/nowhere/run"))
except bc.UserError as error:
    print("asked for", error)
import bottleneck_core.train.session
assert bottleneck_core.train.session.__name__ == "bottleneck_core.train.session"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("asked for")


def test_every_public_name_is_there() -> None:
    for name in bc.__all__:
        assert getattr(bc, name) is not None
    assert list(inspect.signature(bc.train).parameters) == ["config", "console"]


def test_every_public_name_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## From Python") : text.index("## The tree")]
    assert set(bc.__all__) <= set(re.findall(r"`(\w+)`", section))


def test_notebooks_use_public_names() -> None:
    """Figures and reports are rooms that they draw from; everything else is exported."""
    found = set()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        found |= set(re.findall(r"from bottleneck_core\.([\w.]+) import", path.read_text(encoding="utf-8")))
    assert {name.split(".")[0] for name in found} == {"figures", "report"}
