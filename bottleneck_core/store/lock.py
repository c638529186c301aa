"""The lock of a run folder: one trainer at a time, and a way for readers to see whether there is one.

The lock belongs to the process, not to the file: it vanishes with the process, SIGKILL included, while the
file `run.lock` stays (unlinking a locked file would let two trainers hold locks of two different files).
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import filelock
import orjson

from bottleneck_core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_NAME = "run.lock"
JOB_LOCK_NAME = "job.lock"  # held by the supervisor of a background job, from before the trainer has its own
# A reader that asks whether the lock is held has it in shared mode for some microseconds; a trainer must not
# take that for a second trainer, so it tries for this long.
_ACQUIRE_SECONDS = 2.0


class RunLock:
    """The exclusive lock of one run folder, for the life of a trainer. Also a context manager."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._lock = filelock.FileLock(self.folder / LOCK_NAME, thread_local=False, fallback_to_soft=False)

    def acquire(self, timeout: float = _ACQUIRE_SECONDS) -> RunLock:
        """Take the lock. Raises UserError when another trainer has it or the folder cannot be written."""
        try:
            self._lock.acquire(timeout=timeout)
        except filelock.Timeout:
            raise UserError(
                f"{self.folder} is being trained by another process{_holder(self.folder)}: "
                "wait until it ends, stop it, or give another --out-dir"
            ) from None
        except OSError as error:
            raise UserError(f"{self.folder} cannot be locked ({error.strerror}): give another --out-dir") from None
        return self

    def release(self) -> None:
        """Give the lock back; without effect when it is not held."""
        self._lock.release()

    def __enter__(self) -> RunLock:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_busy(folder: str | os.PathLike[str]) -> bool:
    """Whether a trainer is on the folder, or the supervisor of a job that starts or ends one."""
    return is_locked(folder) or is_locked(folder, JOB_LOCK_NAME)


def is_locked(folder: str | os.PathLike[str], name: str = LOCK_NAME) -> bool:
    """Whether a process holds the folder's lock `name`. Creates no file, and many readers may ask at the same time."""
    path = os.path.join(folder, name)
    if fcntl is None:
        return _is_locked_exclusively(Path(path))
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        # Shared: two readers at once must not see each other. Closing the descriptor gives it back.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _is_locked_exclusively(path: Path) -> bool:
    if not path.exists():
        return False
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _holder(folder: Path) -> str:
    try:
        manifest = orjson.loads((folder / "manifest.json").read_bytes())
        return f" (process {int(manifest['pid'])})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
