"""The page on attention modes does what it says: its blocks are put into a copy of the checkout and run there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from bottleneck_core.data.prepare import prepare
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "attention_modes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line.split(maxsplit=1)[1] for name, block in BLOCKS if name == "sh" for line in block.splitlines()]
REGISTRY = "bottleneck_core/config/attention.py"
# Of the page's nano run: a few steps of a smaller model.
SHORTER = (
    "--layers 2 --block 64 --batch-size 2 --steps 6 --eval-every 3 --eval-iters 1 --analysis-every 3 --log-every 1"
)


def files_of_the_page() -> dict[str, str]:
    """What the page says to write, by path: a line with the path alone, then the block."""
    return dict(re.findall(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code and the tests with the mode of the page in it: one file, one entry, its tests."""
    copy = tmp_path_factory.mktemp("checkout")
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bottleneck_core", copy / "bottleneck_core", ignore=without)
    for room in ("model", "generate", "kvcache", "probe"):
        shutil.copytree(ROOT / "tests" / room, copy / "tests" / room, ignore=without)
    for name in ("tests/__init__.py", "tests/conftest.py", "tests/browser.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    for path, text in files_of_the_page().items():
        assert not (copy / path).exists(), f"{path} is there already: the page needs another example"
        (copy / path).write_text(text, encoding="utf-8")
    (entry,) = [block for name, block in BLOCKS if name == "python" and block.startswith("    ")]
    registry = (copy / REGISTRY).read_text(encoding="utf-8")
    assert registry.endswith("),\n}\n")
    (copy / REGISTRY).write_text(registry.removesuffix("}\n") + entry + "}\n", encoding="utf-8")
    prepare("files", tokenizer="byte", globs=[str(ROOT / "bottleneck_core/config/*.py")], out=copy / "corpus.bin")
    return copy


def run(checkout: Path, words: str) -> str:
    """What `python` prints for the words of a command; it has to end well."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    environment.pop("BOTTLENECK_RUNS", None)
    done = subprocess.run(
        [sys.executable, *shlex.split(words)], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def command(start: str) -> str:
    """The one command of the page that begins so."""
    (found,) = [words for words in COMMANDS if words.startswith(start)]
    return found


@pytest.fixture(scope="module")
def trained(checkout: Path) -> Path:
    """The page's run, shorter."""
    run(checkout, f"{command('-m bottleneck_core train')} {SHORTER} --data corpus.bin")
    return checkout / "runs" / "nano_thin_keys"


def test_the_page_needs_one_file_one_entry_and_tests() -> None:
    written = files_of_the_page()
    assert [path.split("/")[0] for path in written] == ["bottleneck_core", "tests"]
    assert sum(block.startswith("    ") for name, block in BLOCKS if name == "python") == 1
    assert len(BLOCKS) == 5


def test_the_house_s_tests_and_its_own_pass(checkout: Path) -> None:
    run(checkout, f"{command('-m pytest')} -q -p no:cacheprovider --junitxml=tests.xml")
    cases = xml.etree.ElementTree.parse(checkout / "tests.xml").iter("testcase")
    passed = {case.attrib["name"].partition("[")[0] for case in cases if not len(case)}
    assert passed >= {
        "test_at_full_width_it_is_standard_attention",
        "test_parameters_are_counted",
        "test_fast_path_equals_reference_in_values_and_gradients",
        "test_a_token_changes_no_logit_before_it",
        "test_a_native_cache_equals_the_full_pass",
        "test_allocated_is_accounted_to_the_byte",
        "test_float32_pass_agrees_with_the_same_weights_in_float64",
    }


def test_it_is_trained_and_measured(trained: Path) -> None:
    events = [json.loads(line) for line in (trained / "train.jsonl").read_text().splitlines()]
    assert events[-1]["type"] == "done" and events[-1]["reason"] == "completed"
    losses = [event["loss"] for event in events if event["type"] == "train"]
    assert len(losses) == 6 and losses[-1] < losses[0]
    (last,) = [event for event in events if event["type"] == "analysis" and event["step"] == 6]
    assert 0 < last["attn_null_mass_mean"] < 1 and last["proj_stable_rank_mean"] > 1


def test_it_generates_through_a_cache_of_the_accounted_size(checkout: Path, trained: Path) -> None:
    words = command("-m bottleneck_core sample")
    drawn = json.loads(run(checkout, f"{words} --max-new-tokens 150 --json"))
    assert drawn["cache"]["allocated_bytes"] == drawn["cache"]["accounted_bytes"] > 0
    words = command("-m bottleneck_core kv")
    size = json.loads(run(checkout, f"{words} --json"))
    assert {tensor["name"]: tensor["width"] for tensor in size["tensors"]} == {"k": 32, "v": 128}
    assert size["bytes"] == 2 * 128_000 * (32 + 128) * 2
    assert trained.is_dir()


def test_it_is_in_reports(checkout: Path, trained: Path) -> None:
    run(checkout, command("-m bottleneck_core report") + " --formats md")
    assert "thin\\_keys" in (checkout / "report" / "report.md").read_text(encoding="utf-8")
    assert trained.is_dir()
