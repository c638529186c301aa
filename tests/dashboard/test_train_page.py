"""The Train page without a browser: the form from the schema, what will run, sweeps, clones, the queue, the strip."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import bottleneck_core as bc
from bottleneck_core.config import GROUPS, RunConfig
from bottleneck_core.figures import numbers
from bottleneck_core.jobs import Job, job_state, queued_jobs, stop_job
from dashboard import access
from dashboard.jobs_watch import JobsWatch
from dashboard.strip import strip_words
from dashboard.train.draft import Draft, encode
from dashboard.train.schema import OWN
from dashboard.train.stop import stops

from ..jobs.programs import until
from .conftest import texts
from .train_cases import end_jobs, write_corpus

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "runs"
    write_corpus(root)
    st.cache_data.clear()
    yield root
    end_jobs(root)


@pytest.fixture
def train(app: Any, root: Path) -> Callable[..., AppTest]:
    """`train(query)` is the page in a browser of its own."""

    def opened(query: dict[str, str] | None = None) -> AppTest:
        test = app(root)._open("dashboard/pages/train.py", query or {})
        assert not test.exception
        return test

    return opened


def shown(test: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in test.metric}


def command(test: AppTest) -> list[str]:
    return shlex.split(next(code.value for code in test.code if "bottleneck_core train" in code.value))


def address(test: AppTest) -> dict[str, str]:
    return {name: "".join(value) for name, value in test.query_params.items()}


def data_setting(root: Path) -> str:
    return encode(Draft(settings={"data": str(root / "data" / "tiny.byte.bin")}))["set"]


# The form


def test_it_starts_with_the_smallest_run_and_sizes_it(train, root):
    test = train()
    config = RunConfig.resolve(size="nano", exp="paper_bottleneck")
    values = shown(test)
    assert values["parameters"] == "871k" and values["tokens"] == numbers.count(600 * config.tokens_per_step)
    assert values["KV @128k"] == numbers.size(bc.kv_memory(config, 128_000).bytes)
    assert values["training memory"] == numbers.size(bc.training_memory(config, 256, mode="fp32").total)
    assert values["time"] == "not measured yet"
    assert command(test)[1:] == [
        *("-m", "bottleneck_core", "train", "--size", "nano", "--exp", "paper_bottleneck"),
        *("--out-dir", str(root / "nano_bottleneck")),
    ]
    assert address(test) == {} and not (root / "nano_bottleneck").exists()


def test_every_setting_of_the_schema_is_a_field_with_its_help(train):
    test = train()
    for group in GROUPS:
        test.session_state[f"train/group/{group}"] = True
    test.run()
    assert not test.exception
    widgets = [*test.text_input, *test.selectbox, *test.toggle]
    helps = {str(widget.key): widget.help for widget in widgets}
    for name, info in RunConfig.model_fields.items():
        if name == "given" or name in OWN - {"data", "device"}:
            continue
        assert helps[f"train/{name}"] == info.description, name
    placeholder = test.text_input(key="train/lr").placeholder
    assert placeholder == "0.002"  # the preset's, not the schema's


def test_a_change_is_marked_written_into_the_address_and_reset(train):
    test = train()
    test.text_input(key="train/lr").set_value("1e-3").run()
    assert address(test) == {"set": "lr:1e-3"}
    assert "--lr" in command(test) and test.text_input(key="train/lr").label == "lr ●"
    test.text_input(key="train/lr").set_value("0.002").run()  # the preset's own value changes nothing
    assert address(test) == {} and "--lr" not in command(test)

    test.text_input(key="train/steps").set_value("50").run()
    test.selectbox(key="train/lr_schedule").set_value("constant").run()
    assert address(test) == {"set": "steps:50,lr_schedule:constant"} and shown(test)["tokens"] == "205k"
    test.button(key="train/reset/steps").click().run()
    assert address(test) == {"set": "lr_schedule:constant"} and test.text_input(key="train/steps").value == ""
    test.button(key="train/reset/lr_schedule").click().run()
    assert address(test) == {} and test.selectbox(key="train/lr_schedule").value == "cosine"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ("lr:-1", "--lr must be > 0, got -1"),
        ("steps:many", "--steps must be a whole number, got many"),
        ("n_head:5", "--attn-dim must divide by --n-head 5, got 24"),
        ("device:cuda%3A7", "--device cuda:7 is not on this machine"),
        ("data:%2Fetc%2Fpasswd", "--data /etc/passwd lies outside of the folders"),
        ("data:data%2F..%2F..%2Fx.bin", "lies outside of the folders"),
    ],
)
def test_the_sentence_of_the_schema_stands_there_and_start_is_off(train, settings, sentence):
    test = train({"set": settings})
    assert sentence in test.error[0].value.replace("\\", "")
    assert test.button(key="train/start").disabled and not test.metric
    assert len(test.error) == 1


def test_a_mistake_names_its_field(train):
    test = train()
    test.text_input(key="train/lr").set_value("-1").run()
    assert test.text_input(key="train/lr").label == "lr ▲" and test.text_input(key="train/steps").label == "steps"


def test_cards_choose_size_and_attention(train, root):
    test = train({"set": "attn_dim:64,steps:50"})
    test.button(key="train/exp/paper_gqa").click().run()
    assert address(test) == {"size": "nano", "exp": "paper_gqa", "set": "steps:50"}  # its attention is its own
    assert command(test)[-1] == str(root / "nano_gqa")
    test.segmented_control(key="train/size").set_value("tiny").run()
    assert address(test)["size"] == "tiny" and shown(test)["parameters"] != "871k"
    test.button(key="train/exp/paper_all").click().run()
    assert len(test.dataframe[0].value) == 4 and test.button(key="train/start").label == "Start 4 runs"
    assert list(test.dataframe[0].value["differs in"]) == ["baseline", "bottleneck", "decoupled", "gqa"]


def test_a_link_says_what_it_cannot_do(train):
    test = train({"size": "huge", "set": "nonsense:1,steps:50", "nproc": "0"})
    words = test.warning[0].value.replace("\\", "")
    assert "size huge is none of" in words and "nonsense" in words and "nproc 0" in words
    assert command(test)[6:10] == ["--exp", "paper_bottleneck", "--steps", "50"]


def test_names_are_folders_of_the_root(train, root):
    (root / "taken").mkdir(parents=True)
    assert "taken is there already" in train({"name": "taken"}).error[0].value.replace("\\", "")
    assert "letters, digits" in train({"name": "../out"}).error[0].value
    assert "none of this dashboard" in train({"into": "/somewhere"}).error[0].value
    assert command(train({"name": "mine"}))[-1] == str(root / "mine")


def test_hostile_values_stay_data(train):
    hostile = "x; rm -rf $HOME <b>`id`</b> :red[y]"
    query = encode(Draft(settings={"run_tag": hostile}))
    test = train(query)
    words = command(test)
    assert words[words.index("--run-tag") + 1] == hostile  # one word of the command, quoted where it is shown
    assert not any("<b>" in m.value.replace("\\<", "") for m in test.markdown)


# Clones


def test_a_clone_takes_what_was_asked_for(train, make_run, root):
    run = make_run("before", root=root, steps=77)
    config = run.config | {"from_the_future": 1}
    run.write("config.json", config)
    test = train({"clone": "before"})
    assert "from_the_future" in test.warning[0].value.replace("\\", "")
    assert "before" not in command(test)[-1]
    words = command(test)
    assert words[words.index("--steps") + 1] == "77" and words[words.index("--log-every") + 1] == "1"
    test.text_input(key="train/lr").set_value("1e-3").run()
    assert address(test) == {"set": "log_every:1,steps:77,lr:1e-3"}  # complete without the run


def test_a_foreign_run_can_be_cloned(app, shared):
    test = app(shared / "foreign_runs")._open("dashboard/pages/train.py", {"clone": "tiny_bottleneck"})
    assert not test.exception
    draft = test.session_state["train_draft"]
    assert draft.size == "tiny" and draft.exp == "paper_bottleneck"


def test_a_clone_of_nothing_says_so(train):
    assert "no run nobody" in train({"clone": "nobody"}).warning[0].value


# Starting


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs sleep instead of training."""
    import dashboard.train.panel as panel

    real = panel.queue_job

    def queue(argv: Any, run_dir: Any, **options: Any) -> Job:
        return real(argv, run_dir, program=SLEEPER, **options)

    monkeypatch.setattr(panel, "queue_job", queue)


def links(test: AppTest) -> list[str]:
    """The page's links: the strip, then the runs of the queue."""
    return [link.proto.label.replace("\\", "") for link in test.get("page_link")]  # pyright: ignore[reportAttributeAccessIssue]


def names(test: AppTest) -> list[str]:
    return links(test)[1:]


def test_a_sweep_is_queued_reordered_started_and_stopped(train, root, asleep):
    test = train({"set": data_setting(root), "seeds": "1,2,3"})
    test.button(key="train/start").click().run()
    assert not test.exception
    folders = [root / f"nano_bottleneck_seed{seed}" for seed in (1, 2, 3)]
    assert [job_state(folder) for folder in folders] == ["running", "queued", "queued"]
    job = Job.read(folders[0])
    assert job is not None and "--seed" in job.argv and job.device == "cpu"
    assert names(test) == ["nano_bottleneck_seed1", "1. nano_bottleneck_seed2", "2. nano_bottleneck_seed3"]
    assert "1 running · 2 waiting" in links(test)[0]

    test.button(key=f"train/Up/{folders[2]}").click().run()
    assert [waiting.run_dir.name for waiting in queued_jobs(root)] == [folders[2].name, folders[1].name]
    assert names(test)[1:] == ["1. nano_bottleneck_seed3", "2. nano_bottleneck_seed2"]
    test.button(key=f"train/Now/{folders[1]}").click().run()
    until(lambda: job_state(folders[1]) == "running", "the job that was started past the limit")

    test.session_state[f"train/log/{folders[0]}"] = True
    until(lambda: "up" in (folders[0] / "console.log").read_text(), "the first line")
    test.run()
    assert "up" in [code.value for code in test.code]

    for folder in folders:
        test.button(key=f"train/Stop/{folder}").click().run()
        assert not test.exception
    until(lambda: all(job_state(folder) == "stopped" for folder in folders), "all jobs to end")
    until(lambda: "0 running · 0 waiting" in links(test.run())[0], "the page to know")
    assert all(not test.button(key=f"train/Resume/{folder}").disabled for folder in folders)


def test_a_second_click_starts_nothing_twice(train, root, asleep):
    from dashboard.train.panel import intent_of, start_all

    test = train({"set": data_setting(root), "name": "once"})
    test.button(key="train/start").click().run()
    assert job_state(root / "once") == "running"
    first = Job.read(root / "once")
    # The page as it was before the click.
    draft = replace(test.session_state["train_draft"], name="")
    intent = intent_of(draft, [])
    taken = replace(intent, runs=(replace(intent.runs[0], folder=root / "once"),))
    end_jobs(root)  # also where the first has ended meanwhile
    start_all(taken)
    assert Job.read(root / "once") == first


def test_a_failed_job_shows_the_end_of_its_log(train, root, monkeypatch):
    import dashboard.train.panel as panel

    real = panel.queue_job
    program = [sys.executable, "-c", "print('<script>alert(1)</script> **boom**'); raise SystemExit(3)"]
    monkeypatch.setattr(panel, "queue_job", lambda argv, folder, **kw: real(argv, folder, program=program, **kw))
    test = train({"set": data_setting(root), "name": "broken"})
    test.button(key="train/start").click().run()
    until(lambda: job_state(root / "broken") == "failed", "the job to fail")
    until(lambda: any("boom" in code.value for code in test.run().code), "the page to show it")
    assert "<script>alert(1)</script> **boom**" in [code.value for code in test.code]
    assert "exit code 3" in texts(test)


def test_a_lost_job_is_said_to_be_lost(train, root, asleep):
    test = train({"set": data_setting(root), "name": "gone"})
    test.button(key="train/start").click().run()
    end_jobs(root)
    until(lambda: "Its processes are gone" in texts(test.run()), "the page to say so")
    assert not test.button(key=f"train/Resume/{root / 'gone'}").disabled


def test_limits_are_kept_with_the_queue(train, root):
    from bottleneck_core.jobs import device_limits

    test = train()
    test.number_input(key=f"train/limit/{root}/cpu").set_value(3).run()
    assert device_limits(root)["cpu"] == 3
    assert train().number_input(key=f"train/limit/{root}/cpu").value == 3


def test_who_may_not_starts_and_stops_nothing(train, root, asleep, monkeypatch):
    import dashboard.train.job as job
    import dashboard.train.panel as panel

    test = train({"set": data_setting(root), "name": "mine"})
    test.button(key="train/start").click().run()
    second = train({"set": data_setting(root), "name": "other"})
    for module in (panel, job):
        monkeypatch.setattr(module, "may_change", lambda: False)
    # The buttons were drawn while they were allowed.
    second.button(key="train/start").click().run()
    test.button(key=f"train/Stop/{root / 'mine'}").click().run()
    assert not (root / "other").exists() and stops().of(root / "mine") is None
    for button in (second.button(key="train/start"), test.button(key=f"train/Stop/{root / 'mine'}")):
        assert button.disabled and button.help == access.why_not()


def test_a_stopped_run_of_the_terminal_is_resumed(train, root, make_run, monkeypatch):
    import dashboard.train.resume as resume

    real = resume.queue_job
    monkeypatch.setattr(resume, "queue_job", lambda argv, folder, **kw: real(argv, folder, program=SLEEPER, **kw))
    run = make_run("before", root=root)
    run.train(30)
    run.finish("sigterm")
    assert "no checkpoint to go on from" in train({"resume": "before"}).error[0].value
    (run.path / "last.pt").write_bytes(b"")
    test = train({"resume": "before"})
    test.text_input(key="train/resume_steps").set_value("-1").run()
    assert "--steps must be" in test.error[0].value and test.button(key="train/resume").disabled
    test.text_input(key="train/resume_steps").set_value("200").run()
    words = ["train", "--resume", str(run.path), "--steps", "200"]
    assert shlex.split(test.code[0].value)[3:] == words
    test.button(key="train/resume").click().run()
    job = Job.read(run.path)
    assert job is not None and job.state == "running" and list(job.argv[-5:]) == words
    assert not test.exception and "resume" not in address(test) and names(test) == ["before"]
    assert "no run nobody" in train({"resume": "nobody"}).warning[0].value


def test_the_built_in_corpus_is_prepared_in_the_background(train, root, tmp_path, monkeypatch):
    import dashboard.train.prepare as prepare

    real = prepare.start_job
    monkeypatch.setattr(prepare, "start_job", lambda argv, folder: real(argv, folder, program=SLEEPER))
    monkeypatch.chdir(tmp_path)  # where nothing is prepared
    test = train()
    test.button(key="train/prepare").click().run()
    folder = root / ".prepare" / "python-stdlib.byte"
    try:
        job = Job.read(folder)
        assert job is not None and list(job.argv[-4:]) == ["prepare", "python-stdlib", "--tokenizer", "byte"]
        assert test.button(key="train/prepare").disabled and "prepare python-stdlib" in texts(test)
    finally:
        end_jobs(folder.parent)  # it is below a hidden folder, where the fixture does not look
    write_corpus(tmp_path, "python-stdlib.byte.bin")
    assert "train/prepare" not in [button.key for button in test.run().button]
    assert "a vocabulary of 256." in next(m.help for m in test.metric if m.label == "parameters")


def test_the_form_is_as_it_was_left(app, root, train):
    test = train()
    test.text_input(key="train/steps").set_value("50").run()
    test.query_params.clear()
    test.switch_page("dashboard/pages/kv.py").run()
    test.query_params.clear()
    test.switch_page("dashboard/pages/train.py").run()
    assert test.text_input(key="train/steps").value == "50" and address(test) == {"set": "steps:50"}
    test.query_params["set"] = "steps:60"  # another link, or Back
    assert test.run().text_input(key="train/steps").value == "60"


# The watch and the strip


def test_the_watch_sees_jobs_come_and_go(root, asleep, monkeypatch):
    import dashboard.train.panel as panel

    watch = JobsWatch((root,))
    assert strip_words(watch.snapshot()).startswith("0 running · 0 waiting · CPU ")
    for name in ("one", "two"):
        panel.queue_job([], root / name, root=root, device="cpu")
    until(lambda: len(watch.snapshot().waiting) == 1, "the watch to see the queue")
    snapshot = watch.snapshot()
    assert [w.job.id for w in snapshot.running] == ["one"] and [w.job.id for w in snapshot.waiting] == ["two"]
    # Without a look at all folders, by the records of what is alive.
    monkeypatch.setattr(watch, "_outdated", lambda now: False)
    stop_job(root / "one")
    until(lambda: [w.job.id for w in watch.snapshot().running] == ["two"], "the watch to see the next one run")
    assert not watch.snapshot().waiting
    end_jobs(root)
    until(lambda: not watch.snapshot().running and not watch.snapshot().waiting, "the watch to see the end")
    assert {w.job.id: w.state for w in watch.snapshot().jobs} == {"one": "stopped", "two": "lost"}


def test_damaged_records_and_queues_are_said(train, root):
    (root / "half").mkdir(parents=True)
    (root / "half" / "job.json").write_text("{")
    (root / ".queue").mkdir()
    (root / ".queue" / "queue.json").write_text(json.dumps([1]))
    words = texts(train()).replace("\\", "")
    assert "job.json is no job record" in words and "queue.json is no queue" in words


def test_the_strip_is_on_every_page(app, root, make_run):
    make_run("some", root=root).finish()
    for page in ("runs", "compare", "kv", "run"):
        test = app(root)._open(f"dashboard/pages/{page}.py", {"id": "some"} if page == "run" else {})
        assert "0 running · 0 waiting" in links(test)[0], page
