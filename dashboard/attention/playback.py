"""The step that is looked at: chosen on a slider, or played from probe to probe.

The slider is in the address. While playing it is not: each change of the address is a page to go back to.
"""

from __future__ import annotations

import math
import time

import numpy as np
import streamlit as st
from numpy.typing import NDArray

STEP = "step"
# Seconds between two frames, and at most how many frames a run is played in.
FRAME_SECONDS = 0.8
_FRAMES = 60

_PLAYING = "attention_playing"
_PROBE = "attention_probe"
_MOVED = "attention_played_step"
_BY_HAND = "attention_moved_by_hand"
_SHOWN_AT = "attention_frame_shown_at"


def playing() -> bool:
    """Whether the steps are being played; not any more where the reader left the page, and the slider with it."""
    return bool(st.session_state.get(_PLAYING)) and _MOVED in st.session_state


def stop() -> None:
    """Ends the playing, without a step to stay at; for when another run is chosen."""
    st.session_state[_PLAYING] = False


def go_to(step: int) -> None:
    """Shows another step from the next rerun on; for callbacks."""
    if playing():
        st.session_state[_MOVED] = step
        _moved()
    else:
        st.session_state[STEP] = step


def step_controls(steps: NDArray[np.int64]) -> int:
    """Draws button and slider over the probes' `steps` (S); the index of the probe to show."""
    if len(steps) == 1:
        st.markdown(f"one probe, step {int(steps[0]):,}", width="content")
        return 0
    if playing():
        return _played(steps)
    st.button(
        "Play", icon=":material/play_arrow:", on_click=_play, args=(steps,), help="Shows one probe after another."
    )
    # The slider moves in what all distances between probes are multiples of.
    unit = math.gcd(*np.diff(steps).tolist())
    first, last = int(steps[0]), int(steps[-1])
    chosen = st.slider("Step", first, last, last, unit, "localized", key=STEP, bind="query-params", width=420)
    return _nearest(steps, chosen)


def _played(steps: NDArray[np.int64]) -> int:
    last = len(steps) - 1
    if st.session_state.pop(_BY_HAND, False):
        probe = _nearest(steps, st.session_state[_MOVED])
    else:
        probe = min(st.session_state.get(_PROBE, 0) + (max(1, len(steps) // _FRAMES) if _is_due() else 0), last)
    st.session_state[_PROBE] = probe
    if probe == last:
        _pause(steps)
        st.rerun(scope="app")
    st.button("Pause", icon=":material/pause:", on_click=_pause, args=(steps,))
    st.session_state[_MOVED] = int(steps[probe])
    unit = math.gcd(*np.diff(steps).tolist())
    st.slider(
        "Step", int(steps[0]), int(steps[-1]), step=unit, format="localized", key=_MOVED, on_change=_moved, width=420
    )
    return probe


def _is_due() -> bool:
    """Whether it is time for the next frame: a chart that asks for a rerun in between must not skip one."""
    now = time.monotonic()
    due = now - st.session_state.get(_SHOWN_AT, -math.inf) >= FRAME_SECONDS / 2
    if due:
        st.session_state[_SHOWN_AT] = now
    return due


def _play(steps: NDArray[np.int64]) -> None:
    probe = _nearest(steps, st.session_state.get(STEP, int(steps[-1])))
    # The first frame is the one after this: from the end it starts over.
    st.session_state[_PROBE] = -max(1, len(steps) // _FRAMES) if probe == len(steps) - 1 else probe
    st.session_state[_PLAYING] = True
    st.session_state.pop(_SHOWN_AT, None)
    st.session_state[_MOVED] = int(steps[probe])


def _pause(steps: NDArray[np.int64]) -> None:
    st.session_state[_PLAYING] = False
    st.session_state[STEP] = int(steps[max(0, st.session_state[_PROBE])])


def _moved() -> None:
    st.session_state[_BY_HAND] = True


def _nearest(steps: NDArray[np.int64], step: int) -> int:
    return int(np.argmin(np.abs(steps - step)))
