"""The documents say what the code says, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bottleneck_core as bc
from bottleneck_core.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_of_the_repository(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    for target in ("".join(pair).partition("#")[0] for pair in targets):
        if target and not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    commands = set(re.findall(r"python -m bottleneck_core ([a-z]+)", text))
    assert commands <= set(COMMANDS)


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([a-z]+)", text, flags=re.MULTILINE))
    assert set(COMMANDS) <= rows


@pytest.mark.parametrize("name", list(bc.METRICS))
def test_every_metric_is_defined_in_the_words_of_the_pages(name: str) -> None:
    metric = bc.METRICS[name]
    lines = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines()
    row = next(line for line in lines if line.startswith(f"| `{name}` | {metric.label}"))
    assert metric.definition.replace("|", "\\|") in row and f"| {metric.unit} |" in row
