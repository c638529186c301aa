"""The Generate page and the Samples tab, with a worker that tells a fixed story without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

import bottleneck_core as bc
from bottleneck_core.store.samples import append_sample, read_samples
from dashboard.generate import worker as generate_worker
from dashboard.generate.form import policy_choices, read_policy
from dashboard.generate.worker import Generation, Request

from .conftest import App, texts

HOSTILE = "<img src=x onerror=alert(1)>[a](b)$x_y"
PATIENCE_S = 60
Q4 = "q4_0,residual=0"

# Tells what a worker would: the second column parts from the first at its third token. Then it does as it is told.
WORKER = """
import json, signal, sys
words = dict(word[2:].split("=", 1) for word in sys.argv[2:] if "=" in word)
prompt = sys.stdin.buffer.read().decode()
say = lambda **event: print(json.dumps(event), flush=True)
policies = words["policies"].split(";")
sampling = {"temperature": float(words["temperature"]), "top_k": None, "top_p": 1.0}
say(type="start", checkpoint="best.pt", step=600, device="cpu", seed=int(words["seed"]), sampling=sampling,
    max_new_tokens=4, policies=policies, prompt=prompt, prompt_tokens=list(prompt.encode()))
for index in range(4):
    for column in range(len(policies)):
        agrees = None if column == 0 else index < 2
        text = HOSTILE if index == 3 else "abc"[index]
        say(type="token", column=column, index=index, token=index + (agrees is False), text=text, rank=index + 1,
            probability=0.5 / (index + 1), top=[{"token": 1, "text": "a", "probability": 0.5}],
            kl=0.0 if column == 0 else 0.02 if index < 3 else None, delta_log_prob=-0.25 if index < 3 else None,
            agrees=agrees, seconds=0.01 * index, cache_bytes=196608 // (column + 1))
if sys.argv[1] == "hang":
    signal.pause()
say(type="warning", message="the text grows beyond 32 tokens")
for column in range(len(policies)):
    say(type="end", column=column, reason="length", tokens=4, prompt_seconds=0.5, seconds=0.03, tok_s=100.0,
        cache_tokens=7, cache_bytes=196608 // (column + 1), rest="!")
"""


class Workers:
    """What was started, and what the next one shall do: `end`, `hang`, or fail with these words on stderr."""

    def __init__(self) -> None:
        self.ending = "end"
        self.started: list[Generation] = []

    def command(self, request: Request) -> list[str]:
        if self.ending in ("end", "hang"):
            script = WORKER.replace("HOSTILE", repr(HOSTILE))
            return [sys.executable, "-c", script, self.ending, *request.real_command()[4:]]  # type: ignore[attr-defined]
        return [sys.executable, "-c", f"import sys; {self.ending}"]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch):
    made = Workers()

    class Followed(Generation):
        def __init__(self, request: Request) -> None:
            super().__init__(request)
            made.started.append(self)

    monkeypatch.setattr(generate_worker, "Generation", Followed)
    monkeypatch.setattr(Request, "real_command", Request.command, raising=False)
    monkeypatch.setattr(Request, "command", lambda request: made.command(request))
    st.cache_resource.clear()
    yield made
    st.cache_resource.clear()
    for generation in made.started:
        generation.stop()
        generation.wait(PATIENCE_S)


@pytest.fixture
def trained(make_run) -> Path:
    """A run with both checkpoints, which the fixed worker does not open."""
    run = make_run("trained")
    run.train(10)
    for name in ("best.pt", "last.pt"):
        (run.path / name).touch()
    return run.path


def generate(app: App, **query: str) -> AppTest:
    return app._open("dashboard/pages/generate.py", query)


def shown(test: AppTest, of: str = "tokens") -> list[dict[str, Any]]:
    """What the columns were given, in their order."""
    found = [json.loads(e.proto.json) for e in test.get("bidi_component") if e.proto.json]  # pyright: ignore
    return [data for data in found if of in data]


def press(test: AppTest, key: str) -> AppTest:
    test.button(key=key).click()
    return test.run()


def drawn(test: AppTest, workers: Workers) -> AppTest:
    """Generate, to the end."""
    press(test, "begin")
    workers.started[-1].wait(PATIENCE_S)
    return test.run()


def keys(test: AppTest) -> dict[str, Any]:
    return {str(button.key): button for button in test.button}


def until_told(generation: Generation, tokens: int) -> None:
    """The worker goes on by itself: its story has a moment at which nothing more comes."""
    while not all(len(column.tokens) == tokens for column in generation.columns):
        assert generation.running, generation.error


# What is asked


def test_runs_without_a_checkpoint_are_named(app, make_run, tmp_path, workers):
    make_run(HOSTILE.replace("/", ""))
    test = generate(app(tmp_path))
    assert not test.exception and "No run has a checkpoint" in texts(test)
    assert "\\<img src=x onerror=alert\\(1\\)\\>" in texts(test)
    assert not test.button and test.get("page_link")


def test_no_runs_at_all(app, tmp_path, workers):
    assert "no runs" in texts(generate(app(tmp_path)))


def test_nothing_is_generated_by_an_address(app, trained, workers):
    test = generate(
        app(trained.parent), run="trained", prompt="Once", tokens="7", temperature="0.3", top_k="5", top_p="0.9",
        seed="11", cache="q8_0", cache2="k=q8_0,v=q4_0,residual=64", cache3="nf4,residual=0", checkpoint="last",
    )  # fmt: skip
    assert not test.exception and not workers.started
    press(test, "begin")
    assert workers.started[0].request == Request(
        checkpoint=trained / "last.pt",
        prompt="Once",
        policies=("q8_0", "k=q8_0,v=q4_0,residual=64", "nf4,residual=0"),
        tokens=7,
        temperature=0.3,
        top_k=5,
        top_p=0.9,
        seed=11,
    )


def test_the_words_of_the_worker():
    request = Request(checkpoint=Path("-a b/best.pt"), prompt="--x", policies=("fp16", Q4), tokens=7, top_k=None)
    words = request.command()
    assert words[1:4] == ["-m", "bottleneck_core", "sample"]
    assert "--ckpt=-a b/best.pt" in words and f"--policies=fp16;{Q4}" in words and "--top-k=none" in words
    assert "--prompt=-" in words and "--no-save" in words and "--x" not in words


def test_a_run_that_is_not_there(app, trained, make_run, workers):
    make_run("bare")
    assert "The run bare has no checkpoint" in texts(generate(app(trained.parent), run="bare"))
    assert "is not in the folders" in texts(generate(app(trained.parent), run="gone"))


def test_one_of_several_runs_has_to_be_chosen(app, trained, make_run, workers):
    (make_run("other").path / "last.pt").touch()
    test = generate(app(trained.parent))
    assert "Choose a run" in texts(test) and test.button(key="begin").disabled
    test.selectbox(key="run").select("other")
    press(test.run(), "begin")
    assert workers.started[0].request.checkpoint.name == "last.pt"
    assert workers.started[0].request.policies == ("fp16", Q4)


def test_what_is_no_policy_is_said_and_not_generated(app, trained, workers):
    test = generate(app(trained.parent), cache2="q9_9")
    assert "q9\\_9" in test.error[0].value and test.button(key="begin").disabled
    test.selectbox(key="cache2").select("q8_0,residual=0")
    assert not test.run().error and not test.button(key="begin").disabled
    test.text_area(key="prompt").set_value("")
    assert test.run().button(key="begin").disabled and "Write a prompt" in texts(test)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("Q8_0", "q8_0"),
        ("k q8_0 v q4_0,residual=64", "k=q8_0,v=q4_0,residual=64"),
        (" k_sem=q4_0,  k_geo q8_0 ", "k_sem=q4_0,k_geo=q8_0"),
        ("q4_0 residual=32", "q4_0,residual=32"),
        (Q4, Q4),
    ],
)
def test_policies_as_people_write_them(text, policy):
    assert read_policy(text) == policy


@pytest.mark.parametrize("mode", ["standard", "bottleneck", "gqa", "decoupled"])
def test_the_choices_are_policies_of_the_model(mode):
    choices = policy_choices({"attn_mode": mode})
    assert [read_policy(text) for text in choices] == choices
    assert any("k_geo" in text for text in choices) == (mode == "decoupled")
    with pytest.raises(bc.UserError, match="not stored"):
        read_policy("mxfp4")


# What is drawn


def test_columns_with_their_numbers(app, trained, workers):
    test = drawn(generate(app(trained.parent), prompt=HOSTILE), workers)
    assert not test.exception
    first, second = shown(test)
    assert first["prompt"] == HOSTILE and first["rest"] == "!" and not first["running"]
    assert [token[:3] for token in first["tokens"]] == [
        ["a", 0.5, 1], ["b", 0.25, 2], ["c", 0.16667, 3], [HOSTILE, 0.125, 4],
    ]  # fmt: skip
    assert (first["differs"], second["differs"]) == (None, 2)
    assert first["tokens"][0][3:] == [["a", 0.5], None, None], "the fp16 cache has nothing to differ from"
    assert second["tokens"][0][3:] == [["a", 0.5], -0.25, 0.02] and second["tokens"][3][5] is None
    measured = [(metric.label, metric.value) for metric in test.metric]
    assert measured == [
        ("tok/s", "100"),
        ("KV cache", "192 KiB"),
        ("tok/s", "100"),
        ("KV cache", "96.0 KiB"),
        ("first differs", "token 3"),
        ("KL to fp16", "0.02"),
    ]
    assert "The text grows beyond 32 tokens." in texts(test)
    assert "4 of 200 tokens · prompt of" in texts(test)


def test_an_error_of_the_worker_is_one_sentence(app, trained, workers):
    workers.ending = "sys.stderr.write('error: best.pt cannot be read <b>: give another file\\n'); sys.exit(2)"
    test = drawn(generate(app(trained.parent)), workers)
    assert [error.value for error in test.error] == ["best.pt cannot be read \\<b\\>\\: give another file"]
    assert set(keys(test)) == {"begin", "stop"} and keys(test)["stop"].disabled
    workers.ending = "import os; os.kill(os.getpid(), 9)"
    assert "signal 9" in drawn(test, workers).error[0].value
    workers.ending = "raise MemoryError"
    assert "ended with 1\\: MemoryError" in drawn(test, workers).error[0].value
    workers.ending = "end"
    assert not drawn(test, workers).error


def test_stop_kills_the_worker_and_keeps_the_text(app, trained, workers):
    workers.ending = "hang"
    test = press(generate(app(trained.parent)), "begin")
    generation = workers.started[0]
    assert "keep" not in keys(test) and not keys(test)["stop"].disabled
    until_told(generation, 4)
    assert shown(test.run())[0]["running"]
    press(test, "stop")
    generation.wait(PATIENCE_S)
    assert not psutil.pid_exists(generation.pid) and generation.state == "stopped" and generation.error is None
    test.run()
    assert len(shown(test)[0]["tokens"]) == 4 and not shown(test)[0]["running"] and "stopped" in texts(test)
    press(test, "keep")
    assert [sample.policy for sample in read_samples(trained / "samples.jsonl")[0]] == ["fp16", Q4]


def test_another_start_kills_the_worker(app, trained, workers):
    workers.ending = "hang"
    test = press(press(generate(app(trained.parent)), "begin"), "begin")
    first, second = workers.started
    first.wait(PATIENCE_S)
    assert not psutil.pid_exists(first.pid) and psutil.pid_exists(second.pid) and not test.exception


def test_the_end_of_the_session_kills_the_worker(app, trained, workers):
    workers.ending = "hang"
    press(generate(app(trained.parent)), "begin")
    st.cache_resource.clear()  # what a session that disconnects does to its own
    workers.started[0].wait(PATIENCE_S)
    assert not psutil.pid_exists(workers.started[0].pid)


def test_keep_adds_each_column_once(app, trained, workers):
    events = (trained / "train.jsonl").read_bytes()
    test = drawn(generate(app(trained.parent), prompt="Once "), workers)
    assert not (trained / "samples.jsonl").exists()
    test = press(test, "keep")
    assert keys(test)["keep"].label == "Kept" and keys(test)["keep"].disabled
    kept, faults = read_samples(trained / "samples.jsonl")
    assert faults == [] and [sample.policy for sample in kept] == ["fp16", Q4]
    assert kept[1].prompt == "Once " and kept[1].text == f"abc{HOSTILE}!" and kept[1].step == 600
    assert kept[1].pieces == ("a", "b", "c", HOSTILE)
    assert (trained / "train.jsonl").read_bytes() == events


def test_a_file_that_cannot_be_written_is_one_sentence(app, trained, workers):
    (trained / "samples.jsonl").mkdir()
    test = press(drawn(generate(app(trained.parent)), workers), "keep")
    assert not test.exception and "cannot be written (Is a directory)" in test.error[0].value
    assert not keys(test)["keep"].disabled


@pytest.mark.parametrize("key", ["begin", "stop", "keep"])
def test_who_may_not_change_things_does_nothing(app, trained, workers, monkeypatch, key):
    """Buttons that were drawn while it was allowed, pressed when it is not any more."""
    allowed = True
    monkeypatch.setattr("dashboard.access.may_change", lambda: allowed)
    workers.ending = "hang" if key == "stop" else "end"
    test = press(generate(app(trained.parent)), "begin")
    if key == "keep":
        workers.started[0].wait(PATIENCE_S)
        test.run()
    allowed = False
    press(test, key)
    assert len(workers.started) == 1 and not (trained / "samples.jsonl").exists()
    assert workers.started[0].state != "stopped"
    buttons = keys(test)
    assert all(button.disabled for button in buttons.values())
    assert "read-only" in buttons["begin"].help


# What was kept


@pytest.fixture
def kept(trained) -> Path:
    for number in range(23):
        token = {"column": 0, "text": f"{number}", "token": 1, "probability": 0.9, "seconds": 1.0, "cache_bytes": 2048}
        start: dict[str, Any] = {"checkpoint": "best.pt", "step": 600 + number, "device": "cpu", "seed": 5}
        start |= {"sampling": {"temperature": 0.5}, "policies": [Q4], "prompt": HOSTILE, "prompt_tokens": [1]}
        record = generate_worker.sample_record(start, [token], {"reason": "length", "rest": "!"})
        append_sample(trained / "samples.jsonl", record)
    return trained


def test_the_samples_tab_shows_the_newest_first(app, kept):
    test = app(kept.parent).run("trained", tab="Samples")
    assert not test.exception
    found = shown(test)
    assert [data["tokens"][0][0] for data in found] == [str(number) for number in range(22, 2, -1)]
    assert found[0]["prompt"] == HOSTILE and found[0]["rest"] == "!" and found[0]["tokens"][0][1] == 0.9
    line = next(element.value for element in test.markdown if "step 622" in element.value)
    assert "best.pt · temperature 0.5 · seed 5 · cache 2.00 KiB" in line and "**q4\\_0,residual=0**" in line
    assert shown(test, "legend") and test.get("page_link")
    press(test, "more_samples")
    assert len(shown(test)) == 23 and "more_samples" not in keys(test)


def test_texts_of_sample_itself_are_shown_without_colours(app, kept):
    with open(kept / "samples.jsonl", "a") as file:
        file.write('{"policy": "fp16", "samples": [{"prompt": "a", "text": "a b", "tokens": [1]}]}\nbroken\n')
    test = app(kept.parent).run("trained", tab="Samples")
    assert shown(test)[0]["tokens"] == [] and (shown(test)[0]["prompt"], shown(test)[0]["rest"]) == ("a", " b")
    assert "line 25\\: is not JSON" in texts(test)


def test_a_run_without_texts_offers_to_generate(app, trained, make_run):
    test = app(trained.parent).run("trained", tab="Samples")
    assert "No texts of this run are kept yet" in texts(test)
    assert any("Generate with this run" in link.proto.label for link in test.get("page_link"))  # pyright: ignore
    make_run("bare")
    test = app(trained.parent).run("bare", tab="Samples")
    assert "no checkpoint" in texts(test)
    assert not any("Generate" in link.proto.label for link in test.get("page_link"))  # pyright: ignore
