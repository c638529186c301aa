"""The command of a job, word for word as it is started."""

from __future__ import annotations

from collections.abc import Sequence

from bottleneck_core.jobs.start import PROGRAM, _torchrun


def command_of(argv: Sequence[str], nproc: int) -> list[str]:
    """Interpreter, program and words; with several processes through torchrun. As `queue_job` puts them together."""
    return [*(PROGRAM if nproc == 1 else _torchrun(PROGRAM, nproc)), *argv]
