"""Folders, links and texts that mean harm: nothing outside of the roots is read, and what is read stays text."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from streamlit.testing.v1 import AppTest

from bottleneck_core.errors import UserError
from bottleneck_core.jobs import Job
from dashboard.confined import inside, real_roots, run_inside
from dashboard.jobs_watch import JobsWatch
from dashboard.kv.config import MOST_CHARACTERS, parsed, read_config
from dashboard.kv.scenario import decode
from dashboard.markdown import escaped
from dashboard.state import find_row, run_rows
from dashboard.train import record as train_record
from dashboard.train.draft import Draft, planned_runs

from .conftest import texts
from .train_cases import end_jobs

HOSTILE = "<script>alert(1)<script> $x^2$ :red[y] **b** `c` [l](javascript:1) _z_"
MARKS = ("<script", "$x^2$", ":red[", "**b**", "`c`", "](java", "_z_", "\x1b", "\u202e")
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
PROGRAM = [sys.executable, "-m", "bottleneck_core"]


# Outside of the roots


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_run: Callable[..., Any]) -> Iterator[Path]:
    """A root with the run `mine`; beside it `outside`, with the run `secret`."""
    root = tmp_path / "root"
    make_run("mine", root=root).train(30)
    make_run("secret", root=tmp_path / "outside").train(30)
    (tmp_path / "outside" / "secret" / "console.log").write_text("the secret word")
    monkeypatch.setenv("BOTTLENECK_RUNS", str(root))
    yield root
    end_jobs(root)


def ids() -> list[str]:
    from dashboard.state import all_runs

    all_runs().look_again()
    return [row["id"] for row in run_rows()]


def test_a_folder_that_is_a_link_to_elsewhere_is_no_run(root: Path) -> None:
    (root / "linked").symlink_to(root.parent / "outside" / "secret")
    (root / "deep").mkdir()
    (root / "deep" / "linked").symlink_to(root.parent / "outside")
    assert ids() == ["mine"]


@pytest.mark.parametrize("name", ["summary.md", "console.log", "train.jsonl", "samples.jsonl", "best.pt", "job.json"])
def test_a_file_that_is_a_link_to_elsewhere_takes_its_run_along(root: Path, name: str) -> None:
    assert ids() == ["mine"]
    target = root.parent / "outside" / "private"
    target.write_text("the secret word")
    (root / "mine" / name).unlink(missing_ok=True)
    (root / "mine" / name).symlink_to(os.path.relpath(target, root / "mine"))
    assert ids() == []


def test_links_inside_of_the_roots_are_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "mine" / "best.pt").write_text("x")
    (root / "mine" / "last.pt").symlink_to("best.pt")
    (root / "again").symlink_to("mine")
    (root / "mine" / "notes").symlink_to("/etc/hostname")  # of no name that is read
    assert ids() in (["mine"], ["again"])  # one folder is one run
    # A root may be a link itself, and a link may lead into another root.
    (root.parent / "other").symlink_to(root)
    (root / "linked").symlink_to(root.parent / "outside" / "secret")
    outside = root.parent / "outside"
    monkeypatch.setenv("BOTTLENECK_RUNS", os.pathsep.join([str(root.parent / "other"), str(outside)]))
    assert "secret" in ids() or "linked" in ids()


def test_the_queue_shows_no_job_of_elsewhere(root: Path) -> None:
    record = job_record(PROGRAM, Path.cwd()) | {"status": "failed"}
    (root.parent / "outside" / "secret" / "job.json").write_text(json.dumps(record))
    (root / "mine" / "job.json").write_text(json.dumps(record))
    (root / "linked").symlink_to(root.parent / "outside" / "secret")
    (root / ".queue").mkdir()
    waiting = {"waiting": ["../outside/secret"], "urgent": [], "running": [], "limits": {}}
    (root / ".queue" / "queue.json").write_text(json.dumps(waiting))
    watch = JobsWatch((root,))
    watch.look_again()
    snapshot = watch.snapshot()
    assert [watched.job.run_dir for watched in snapshot.jobs] == [root / "mine"] and not snapshot.waiting


@pytest.mark.parametrize(
    "name", ["../outside/secret", "/etc", "mine/../../outside/secret", "..", "", "mine\n", "./mine", "mine/", "\0"]
)
def test_an_address_means_a_listed_run_or_none(
    app: Callable[..., Any], root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_row(run_rows(), name, None) is None
    assert find_row(run_rows(), "mine", str(root.parent / "outside")) is None
    dashboard = app(root)
    pages = {"run": "id", "compare": "runs", "attention": "run", "generate": "run", "train": "resume", "kv": "a.run"}
    for page, parameter in pages.items():
        test = dashboard._open(f"dashboard/pages/{page}.py", {parameter: name})
        assert not test.exception, page
        assert "the secret word" not in texts(test)
    test = dashboard._open("dashboard/pages/train.py", {"clone": name})
    assert not test.exception


def test_inside_follows_links_and_dots(tmp_path: Path) -> None:
    real = real_roots([tmp_path / "a"])
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "ab").mkdir()
    (tmp_path / "a" / "out").symlink_to(tmp_path / "ab")
    assert inside(tmp_path / "a", real) and inside(tmp_path / "a" / "b" / ".." / "new", real)
    assert not any(inside(tmp_path / part, real) for part in ("ab", "a/../ab", "a/out", "a/out/x", ".", "a/b/../.."))
    assert not run_inside(tmp_path / "a" / "gone", real)


@pytest.mark.parametrize("tag", ["../../../tmp/x", "/etc/x", "a/b", "a\nb", "\0", "é" * 300])
def test_a_tag_does_not_lead_out_of_the_root(root: Path, tag: str) -> None:
    try:
        runs = planned_runs(Draft(settings={"run_tag": tag}), root)
    except UserError:
        return
    assert [run.folder.parent for run in runs] == [root]
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,200}", runs[0].folder.name)


# Records of jobs


def job_record(program: list[str], cwd: Path, *words: str, **fields: Any) -> dict[str, Any]:
    names = ("stop_signal", "ended", "exit_code", "pid", "create_time", "supervisor_pid", "supervisor_create_time")
    record = {"argv": [*program, *words], "cwd": str(cwd), "host": "h", "boot_id": "b", "created": "2026-01-01"}
    return {**record, "status": "stopped", **dict.fromkeys(names), **fields}


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        (job_record(["sh", "-c"], Path.cwd(), "touch pwned"), "another program"),
        (job_record([sys.executable, "-c"], Path.cwd(), "import os"), "another program"),
        (job_record(["/tmp/python", "-m", "bottleneck_core"], Path.cwd(), "train"), "another program"),
        (job_record(PROGRAM, Path.cwd(), "serve"), "another program"),
        (job_record(PROGRAM, Path.cwd()), "another program"),
        # python -m looks for its module in the folder that it is started in
        (job_record(PROGRAM, Path("/tmp"), "train"), "started in /tmp"),
        (job_record(PROGRAM, Path.cwd(), "train", env={"LD_PRELOAD": "/tmp/x.so"}), "sets LD_PRELOAD"),
        (job_record(PROGRAM, Path.cwd(), "train", "--out-dir", "/etc/x"), "names /etc/x"),
        (job_record(PROGRAM, Path.cwd(), "train", "--init-from=../../etc/x"), "names ../../etc/x"),
    ],
)
def test_a_record_from_elsewhere_starts_nothing(
    app: Callable[..., Any], root: Path, record: dict[str, Any], sentence: str
) -> None:
    (root / "mine" / "job.json").write_text(json.dumps(record))
    job = Job.read(root / "mine")
    assert job is not None
    with pytest.raises(UserError, match=re.escape(sentence)):
        train_record.check_record(job)
    test = app(root)._open("dashboard/pages/train.py", {})
    test.button(key=f"train/Resume/{root / 'mine'}").click().run()
    assert sentence in "\n".join(error.value.replace("\\", "") for error in test.error)
    assert json.loads((root / "mine" / "job.json").read_text())["status"] == "stopped"
    assert not Path("pwned").exists()


def test_a_record_of_ours_may_be_started_again(root: Path) -> None:
    words = ("train", "--size", "nano", "--out-dir", str(root / "mine"), "--data", str(root / "data" / "x.bin"))
    (root / "mine" / "job.json").write_text(json.dumps(job_record(PROGRAM, Path.cwd(), *words)))
    job = Job.read(root / "mine")
    assert job is not None
    train_record.check_record(job)


# Uploads and links


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x" * (MOST_CHARACTERS + 1), "are no config.json"),
        ("[" * 100_000, "nested too deeply"),
        (json.dumps(LLAMA)[:-1] + ',"x":' + "[" * 400 + "]" * 400 + "}", "401 levels deep"),
        (json.dumps(LLAMA | {f"f{i}": i for i in range(12_000)}), "12,007 fields"),
        (json.dumps(LLAMA | {"num_hidden_layers": 10**9}), "too large"),
        ('{"num_hidden_layers": ' + "9" * 100_000 + "}", "this is no JSON"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ("!!python/object/apply:os.system ['x']", "this is no JSON"),
        ('{"model_type": "\\ud800"}', "half a character"),
        ("[1]", "one JSON object"),
    ],
)
def test_what_is_no_configuration_is_one_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        parsed(text)
    with pytest.raises(UserError):
        read_config(text)


def test_labels_of_a_classifier_are_dropped_at_once() -> None:
    labels = {str(i): f"label {i}" for i in range(1000)}
    assert read_config(json.dumps(LLAMA | {"id2label": labels})) == read_config(json.dumps(LLAMA))


def test_numbers_of_a_link_are_bounded() -> None:
    huge = "9" * 5000
    view, problems = decode({"context": huge, "batch": huge, "a.preset": "x", "a.first": huge, "reserve": "0." + huge})
    assert (view.context, view.batch) == (128_000, 1) and len(problems) == 4


# Texts


def test_escaped_text_means_nothing() -> None:
    assert escaped("a\n# b\x1b[31m\u202e&lt;\ud800") == r"a \# b\[31m\&lt;"


@pytest.fixture
def hostile(make_run: Callable[..., Any], tmp_path: Path) -> list[str]:
    """Two runs whose names, settings and logs are hostile; their ids."""
    names = [f"{HOSTILE}\n\x1b[31m\u202e{number}" for number in range(2)]
    for name, exp in zip(names, ("paper_bottleneck", "paper_gqa"), strict=True):
        run = make_run(name, exp=exp)
        run.train(60)
        run.analyse()
        run.write("config.json", run.config | {"size": HOSTILE, "exp": HOSTILE, "tokenizer": HOSTILE, HOSTILE: HOSTILE})
        run.write("manifest.json", {"created": HOSTILE, "n_params": 12, "argv": ["train", HOSTILE]})
        (run.path / "console.log").write_text(f"{HOSTILE}\n\x1b]0;title\x07")
        (run.path / "best.pt").touch()
        run.write(
            "samples.jsonl", {"policy": HOSTILE, "checkpoint": HOSTILE, "samples": [{"prompt": "a", "text": "b"}]}
        )
        record = job_record(["sh", HOSTILE], Path.cwd(), status="failed", device=HOSTILE, nproc=1)
        run.write("job.json", record)
    return names


def token(name: str) -> str:
    return name.replace("%", "%25").replace(",", "%2C").replace("@", "%40")


# Where Streamlit reads Markdown; all else is text, or an id.
READ = {"Markdown": "body", "Alert": "body", "Button": "label", "PageLink": "label", "Metric": "label"}
READ |= {"Expandable": "label", "Popover": "label", "Toast": "body", "Progress": "text", "DownloadButton": "label"}


def markdown_of(test: AppTest) -> Iterator[str]:
    """Every text of the page that Streamlit reads as Markdown."""

    def walk(node: Any) -> Iterator[str]:
        for child in getattr(node, "children", {}).values():
            yield from walk(child)
        proto = getattr(node, "proto", None)
        if isinstance(proto, Message):
            fields = MessageToDict(proto, preserving_proto_field_name=True)
            yield str(fields.get(READ.get(proto.DESCRIPTOR.name, ""), ""))
            yield str(fields.get("help", ""))
            for part in ("popover", "expandable"):
                yield str(fields.get(part, {}).get("label", ""))

    return walk(test._tree)


@pytest.mark.parametrize("page", ["compare", "attention", "kv", "train", "clone", "resume", "generate", "samples"])
def test_names_and_settings_are_text_on_every_page(
    app: Callable[..., Any], hostile: list[str], tmp_path: Path, page: str
) -> None:
    first, second = hostile
    name, query = {
        "compare": ("compare", {"runs": f"{token(first)},{token(second)}"}),
        "attention": ("attention", {"run": first, "with": second}),
        "kv": ("kv", {"a.run": first, "b.config": HOSTILE, "c.model": HOSTILE, "card": HOSTILE, "context": HOSTILE}),
        "train": ("train", {"name": HOSTILE, "set": f"{HOSTILE}:1", "size": HOSTILE, "nproc": "9" * 5000}),
        "clone": ("train", {"clone": first}),
        "resume": ("train", {"resume": first}),
        "generate": ("generate", {"run": token(first), "cache": HOSTILE, "prompt": HOSTILE}),
        "samples": ("run", {"id": first, "tab": "Samples"}),
    }[page]
    test = app(tmp_path)._open(f"dashboard/pages/{name}.py", query)
    assert not test.exception
    read = list(markdown_of(test))
    assert page == "compare" or any(r"\<script\>" in text for text in read)  # there the names are in components only
    meant = [text for text in read for mark in MARKS if re.search(rf"(?<!\\){re.escape(mark)}", text)]
    assert not meant
