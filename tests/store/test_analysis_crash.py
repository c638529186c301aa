"""The analysis file survives its writer: SIGKILL at random moments, files cut at random bytes, live readers.

The writers are children of a fork server, killed while they work: at a random moment after a reported
probe, at a random line of the program, and at a random byte of the file (RLIMIT_FSIZE with the signal's
default action).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import h5py
import numpy as np
import pytest
from analysis_rows import CHOSEN, assert_holds, create, row

from bottleneck_core.store.analysis import AnalysisError, AnalysisFile, AnalysisWriter

if sys.platform == "win32":
    pytest.skip("SIGKILL and fork servers are POSIX", allow_module_level=True)

_CHILDREN = multiprocessing.get_context("forkserver")
_CHILDREN.set_forkserver_preload(["pytest", "numpy.testing", "h5py", "bottleneck_core.store.analysis"])
_KILLED = -signal.SIGKILL


@contextlib.contextmanager
def child(target: Callable[..., None], *arguments: Any) -> Iterator[tuple[Any, Connection]]:
    """A process running target(pipe, *arguments), and the other end of its pipe; dead on exit."""
    ours, theirs = _CHILDREN.Pipe()
    process = _CHILDREN.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def reports(pipe: Connection) -> list[Any]:
    """All that a dead child had sent."""
    sent = []
    with contextlib.suppress(EOFError, OSError):
        while True:
            sent.append(pipe.recv())
    return sent


def append_for_ever(pipe: Connection, path: Path) -> None:
    writer = create(path)
    pipe.send(-1)
    for step in range(100_000):
        writer.append(step, **row(step))
        pipe.send(step)


def append_when_told(pipe: Connection, path: Path) -> None:
    """One probe for each message, one answer for each probe."""
    writer = create(path)
    pipe.send(-1)
    for step in iter(pipe.recv, None):
        writer.append(step, **row(step))
        pipe.send(step)
    writer.close()
    pipe.send(None)


class _Dies:
    """Takes the place of the steps dataset: the writer dies when it is about to add the step."""

    def __init__(self, steps: h5py.Dataset) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return len(self._steps)

    def resize(self, *_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def die_between_row_and_step(pipe: Connection, path: Path) -> None:
    writer = create(path)
    writer.append(0, **row(0))
    writer._steps = _Dies(writer._steps)  # type: ignore[assignment]
    writer.append(1, **row(1))


def lines_run(action: Callable[[], None], die_at: int | None = None) -> int:
    """Count the lines of Python that `action` runs in the store and in h5py; SIGKILL at line `die_at`."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if "bottleneck_core" not in frame.f_code.co_filename and "h5py" not in frame.f_code.co_filename:
            return None
        if event == "line":
            count += 1
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)
    return count


def die_after_rename(pipe: Connection, path: Path, resume: bool) -> None:
    rename = os.replace

    def replace_and_die(*names: Any) -> None:
        rename(*names)
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace_and_die
    if resume:
        AnalysisWriter.resume(path, keep_through_step=0)
    else:
        create(path)


def create_traced(pipe: Connection, path: Path, die_at: int) -> None:
    lines_run(lambda: create(path).close(), die_at)


def resume_traced(pipe: Connection, path: Path, keep: int, die_at: int) -> None:
    lines_run(lambda: AnalysisWriter.resume(path, keep_through_step=keep).close(), die_at)


def append_up_to(pipe: Connection, path: Path, file_bytes: int) -> None:
    """Append until the file reaches a size at which the kernel kills the writer in the middle of a write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    append_for_ever(pipe, path)


def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    """Every reported probe is there; of the one in progress, all or nothing."""
    rng = random.Random(0)
    for number in range(15):
        path = tmp_path / f"{number}.h5"
        with child(append_for_ever, path) as (process, pipe):
            seen = [pipe.recv() for _ in range(rng.randint(1, 12))]
            for _ in range(rng.randrange(20_000)):  # spreads the moment over the next append
                pass
            process.kill()
            process.join()
            last = max([*seen, *reports(pipe)])
        assert process.exitcode == _KILLED
        steps = AnalysisFile.open(path).steps.tolist()
        assert steps in (list(range(last + 1)), list(range(last + 2)))
        assert_holds(path, steps)
        with AnalysisWriter.resume(path, keep_through_step=last) as writer:  # and training goes on
            writer.append(last + 7, **row(last + 7))
        assert_holds(path, [*range(last + 1), last + 7])


def test_sigkill_between_a_row_and_its_step(tmp_path: Path) -> None:
    path = tmp_path / "analysis.h5"
    with child(die_between_row_and_step, path) as (process, _):
        process.join()
        assert process.exitcode == _KILLED
    with h5py.File(path, "r", swmr=True, locking=False) as file:
        entropy = file["attn/entropy"]
        assert isinstance(entropy, h5py.Dataset) and len(entropy) == 2  # the row that nobody may see
    assert_holds(path, [0])
    with pytest.raises(AnalysisError, match="it has 1"):
        AnalysisFile.open(path).map(*CHOSEN[0], step=1)
    with AnalysisWriter.resume(path, keep_through_step=50) as writer:
        writer.append(9, **row(9))
    assert_holds(path, [0, 9])


@pytest.mark.parametrize("resume", [False, True])
def test_sigkill_as_soon_as_the_file_has_its_name(tmp_path: Path, resume: bool) -> None:
    """From that moment on it can be read."""
    path = tmp_path / "analysis.h5"
    if resume:
        with create(path) as writer:
            for step in (0, 1):
                writer.append(step, **row(step))
    with child(die_after_rename, path, resume) as (process, _):
        process.join()
        assert process.exitcode == _KILLED
    assert_holds(path, [0] if resume else [])


def test_sigkill_inside_creation(tmp_path: Path) -> None:
    """Under the final name there is no file, or one that opens."""
    total = lines_run(lambda: create(tmp_path / "counted.h5").close())
    rng = random.Random(1)
    moments = [rng.randint(1, total) for _ in range(15)] + [total - 1]
    existed = 0
    for number, moment in enumerate(moments):
        path = tmp_path / str(number) / "analysis.h5"
        path.parent.mkdir()
        with child(create_traced, path, moment) as (process, _):
            process.join()
            assert process.exitcode == _KILLED
        existed += path.exists()
        if path.exists():
            assert_holds(path, [])
        with create(path) as writer:
            writer.append(1, **row(1))
        assert_holds(path, [1])
        assert [entry.name for entry in path.parent.iterdir()] == ["analysis.h5"]
    assert 0 < existed < len(moments)  # the moments lie on both sides of the rename


def test_sigkill_inside_resume(tmp_path: Path) -> None:
    """The old file or the new one, each of them whole."""
    steps = [0, 10, 20, 30, 40]
    template = tmp_path / "template.h5"
    with create(template) as writer:
        for step in steps:
            writer.append(step, **row(step))
    counted = tmp_path / "counted.h5"
    shutil.copy(template, counted)
    total = lines_run(lambda: AnalysisWriter.resume(counted, keep_through_step=25).close())
    rng = random.Random(2)
    outcomes = set()
    for number, moment in enumerate([rng.randint(1, total) for _ in range(12)] + [total - 1]):
        path = tmp_path / f"{number}.h5"
        shutil.copy(template, path)
        with child(resume_traced, path, 25, moment) as (process, _):
            process.join()
            assert process.exitcode == _KILLED
        found = AnalysisFile.open(path).steps.tolist()
        assert found in (steps, [0, 10, 20])
        assert_holds(path, found)
        outcomes.add(len(found))
    assert outcomes == {5, 3}


def test_killed_at_a_random_byte(tmp_path: Path) -> None:
    """A write that was cut in the middle costs at most the probe that it belonged to."""
    rng = random.Random(3)
    for number in range(15):
        path = tmp_path / f"{number}.h5"
        with child(append_up_to, path, rng.randrange(1, 120_000)) as (process, pipe):
            last = max([-2, *reports(pipe)])
            process.join()
            assert process.exitcode == -signal.SIGXFSZ
        if not path.exists():
            assert last == -2  # not even the creation was reported
            continue
        steps = AnalysisFile.open(path).steps.tolist()
        assert steps in (list(range(last + 1)), list(range(last + 2)))
        assert_holds(path, steps)


def test_a_live_reader_sees_rows_grow(tmp_path: Path) -> None:
    """Reader and writer in different processes; a handle that stays open, and calls that open anew."""
    path = tmp_path / "analysis.h5"
    with child(append_when_told, path) as (_, pipe):
        pipe.recv()
        held, each_time = AnalysisFile.open(path), AnalysisFile.open(path)
        with held:
            for count, step in enumerate((0, 5, 6, 100), start=1):
                pipe.send(step)
                assert pipe.recv() == step
                for file in (held, each_time):
                    assert len(file.attn("entropy")) == count - 1  # as of the last refresh
                    assert file.refresh()
                    assert file.steps[-1] == step and len(file.steps) == count
                    np.testing.assert_array_equal(file.attn("entropy")[-1], row(step)["attn"]["entropy"])
                    np.testing.assert_array_equal(file.map(2, 3), row(step)["maps"][2, 3])
            pipe.send(None)
            pipe.recv()
            assert not held.refresh()
        assert_holds(path, [0, 5, 6, 100])


def damaged_copies(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """Cut at random lengths, cut inside the superblock, random bytes with and without HDF5's signature."""
    for _ in range(30):
        yield data[: rng.randrange(len(data))]
    for length in (0, 1, 8, 9, 12, 40, 48, 60, 96):
        yield data[:length]
    for length in (3, 100, 5000):
        yield rng.randbytes(length)
        yield data[:12] + rng.randbytes(length)


def read_all(path: Path) -> list[Any]:
    """Everything a reader can ask for."""
    file = AnalysisFile.open(path)
    with file:
        values: list[Any] = [file.steps, file.probe_tokens, sorted(file.attrs)]
        values += [file.attn(metric) for metric in file.attn_metrics]
        values += [file.weights(metric) for metric in file.weight_metrics]
        for head in file.maps():
            values += [file.map(*head, step=index) for index in range(len(file.steps))]
            values += [file.svd(*head), *(file.scores(part, *head) for part in file.score_parts)]
    return values


def read_damaged(pipe: Connection, source: Path, seed: int) -> None:
    """Send what went wrong: anything but an AnalysisError, or values that are not those of the whole file."""
    good, data = read_all(source), source.read_bytes()
    copy = source.with_name("copy.h5")
    outcome = {"refused": 0, "read": 0}
    for content in damaged_copies(data, random.Random(seed)):
        copy.write_bytes(content)
        try:
            values = read_all(copy)
        except AnalysisError as error:
            assert str(copy) in str(error) and "\n" not in str(error)
            outcome["refused"] += 1
            continue
        np.testing.assert_equal(values, good)  # what was cut off is space that nothing refers to
        outcome["read"] += 1
    pipe.send(outcome)


@pytest.mark.parametrize("kind", ["closed", "live", "live, one probe", "foreign"])
def test_damaged_files_are_refused(tmp_path: Path, kind: str) -> None:
    """A damaged copy of any file is refused or right, and never keeps the reader busy.

    The copy of a live file is flagged as having a writer: HDF5 by itself would wait for ever for that
    writer to complete it. Hence the child, and the limit on how long it may take.
    """
    path = tmp_path / "analysis.h5"
    if kind == "foreign":
        rng = np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            for step in (0, 10):
                file[f"analysis/step_{step}/svd/L0/H0"] = rng.random(32, dtype=np.float32)
                file.create_dataset(
                    f"analysis/step_{step}/attn/L0/H0",
                    data=np.tril(rng.random((32, 32))).astype(np.float16),
                    compression="gzip",
                )
    else:
        with create(tmp_path / "original.h5") as writer:
            for step in range(1 if kind == "live, one probe" else 15):
                writer.append(step, **row(step))
            if kind != "closed":
                shutil.copy(tmp_path / "original.h5", path)
        if kind == "closed":
            shutil.copy(tmp_path / "original.h5", path)
    with child(read_damaged, path, 4) as (process, pipe):
        assert pipe.poll(120), "the reader hangs"
        outcome = pipe.recv()
        assert outcome["refused"] >= 40, outcome
        process.join()
        assert process.exitcode == 0
