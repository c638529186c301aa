"""The demo's progress and its Ctrl-C, without a run."""

from __future__ import annotations

import io
import os
import signal

import pytest
from rich.console import Console

from bottleneck_core.cli import bar as bar_module
from bottleneck_core.cli.bar import Bar
from bottleneck_core.cli.ending import Ending


class Clock:
    """Stands for the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bar_module, "time", clock)
    return clock


def test_lines_where_there_is_no_terminal(clock: Clock) -> None:
    text = io.StringIO()
    with Bar("training", Console(file=text)) as bar:
        # A resumed run: 100 steps are done; half a minute of set-up, then two seconds a step.
        for seconds, done in ((0, 100), (30, 101), (31, 101), (50, 111), (55, 111), (61, 111), (71, 121)):
            clock.now = 1000.0 + seconds
            bar.report(done, 600, "loss 2.0")
    assert text.getvalue().splitlines() == [
        "training  100/600  loss 2.0",
        "training  101/600  loss 2.0",
        "training  111/600  loss 2.0  ETA 16 m 18 s",
        "training  111/600  loss 2.0  ETA 16 m 18 s",  # no news, no other time
        "training  121/600  loss 2.0  ETA 16 m 22 s",
    ]


def test_a_bar_on_a_terminal_appears_with_the_first_report(clock: Clock) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=100)
    with Bar("training", console) as bar:
        assert text.getvalue() == ""
        bar.report(3, None, "starting")
        bar.report(30, 60, "loss 2.0")
    assert "30/60" in text.getvalue() and "loss 2.0" in text.getvalue()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_is_a_question_outside_and_an_exception_inside(signum: signal.Signals) -> None:
    before = signal.getsignal(signum)
    with Ending() as ending:
        with pytest.raises(KeyboardInterrupt), ending.at_once():
            try:
                os.kill(os.getpid(), signum)
            finally:
                os.kill(os.getpid(), signum)  # impatience does not interrupt the cleaning up
                cleaned = True
        assert ending.asked and cleaned
        os.kill(os.getpid(), signum)
        with pytest.raises(KeyboardInterrupt), ending.at_once():
            pytest.fail("work was begun after Ctrl-C")
    assert signal.getsignal(signum) == before
