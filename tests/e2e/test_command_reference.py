"""docs/commands.md is what its script writes, its examples parse, and none is forgotten."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from types import ModuleType

import pytest
import tyro

from bottleneck_core.cli import COMMANDS, main
from bottleneck_core.config import RunConfig
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^python -m bottleneck_core (.+)$", PAGE, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/commands.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_commands", ROOT / "docs" / "commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "docs_commands", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_schema_says(script: ModuleType) -> None:
    assert script.page() == PAGE, "docs/commands.md is stale: run make docs"


def test_every_command_has_a_section_and_an_example(script: ModuleType) -> None:
    sections = re.findall(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)
    assert script.commands() == list(script.EXAMPLES) == sections[: len(script.EXAMPLES)]
    assert len(EXAMPLES) == len(script.EXAMPLES) and {words.split()[0] for words in EXAMPLES} == set(COMMANDS)


def test_every_setting_is_listed_once_as_a_setting() -> None:
    settings = PAGE[PAGE.index("## Settings of a run") : PAGE.index("## Presets")]
    listed = re.findall(r"^\| `(--[a-z0-9-]+)", settings, flags=re.MULTILINE)
    assert len(listed) == len(set(listed)) == len(RunConfig.model_fields) - 1  # `given` is no flag


@pytest.mark.parametrize("words", EXAMPLES, ids=lambda words: " ".join(words.split()[:2]))
def test_the_examples_are_understood(words: str, script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Read by the command's own parser; a run is resolved as well, and a public model sized."""
    if words.startswith(("train", "kv")):
        assert main([*shlex.split(words), *(["--print-config"] if words.startswith("train") else [])]) == 0
        assert capsys.readouterr().out
        return
    with script.recorded(then=tyro.cli) as forms, pytest.raises(script._Seen):
        main(shlex.split(words))
    assert forms


def test_an_example_with_an_unknown_flag_is_not(script: ModuleType) -> None:
    with script.recorded(then=tyro.cli):
        assert main(["export", "runs/mine", "--oops", "1"]) == 2
