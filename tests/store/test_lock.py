"""One trainer a folder, and readers that only look."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bottleneck_core.errors import UserError
from bottleneck_core.store.lock import LOCK_NAME, RunLock, is_locked

_HOLDER = """
import sys
from bottleneck_core.store.lock import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of tmp_path until it gets a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_a_second_trainer_is_refused_with_the_holder_named(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    (tmp_path / "manifest.json").write_text('{"pid": 4711}')
    assert is_locked(tmp_path)
    with pytest.raises(UserError, match=r"being trained by another process \(process 4711\): wait"):
        RunLock(tmp_path).acquire(timeout=0)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="being trained by another process: wait"):
        RunLock(tmp_path).acquire(timeout=0)


def test_a_killed_trainer_holds_nothing(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_locked(tmp_path)
    with RunLock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)


def test_looking_leaves_no_file_and_takes_nothing(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []
    with RunLock(tmp_path):
        pass
    (tmp_path / LOCK_NAME).chmod(0o444)
    assert not is_locked(tmp_path)


def test_two_readers_that_look_at_once_do_not_see_each_other(tmp_path: Path) -> None:
    import fcntl

    with RunLock(tmp_path):
        pass
    with open(tmp_path / LOCK_NAME) as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as another reader has it while it looks
        assert not is_locked(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file cannot be locked \(.*\): give another --out-dir"):
        RunLock(tmp_path / "file").acquire()
