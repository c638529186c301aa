"""Calls beside the training: in order, none lost, errors told."""

from __future__ import annotations

import threading

import pytest

from bottleneck_core.train.background import Background


@pytest.mark.parametrize("threaded", [False, True])
def test_calls_keep_their_order_and_are_done_after_waiting(threaded: bool) -> None:
    background, made, threads = Background(threaded), [], set()

    def note(number: int) -> None:
        threads.add(threading.get_ident())
        made.append(number)

    for number in range(200):
        background(note, number)
    background.wait()
    assert made == list(range(200))
    assert (threading.get_ident() in threads) is not threaded and len(threads) == 1
    background.close()


def test_a_slow_call_is_not_waited_for() -> None:
    background, go, made = Background(True), threading.Event(), []
    background(go.wait)
    background(made.append, 1)
    assert made == []
    go.set()
    background.wait()
    assert made == [1]
    background.close()


@pytest.mark.parametrize("threaded", [False, True])
def test_an_error_is_raised_at_the_latest_by_waiting(threaded: bool) -> None:
    background = Background(threaded)
    with pytest.raises(ZeroDivisionError):
        background(lambda: 1 / 0)
        background.wait()
    background.wait()  # told once
    background.close()
