"""One prompt, continued through up to three cache policies side by side."""

from __future__ import annotations

import streamlit as st

from dashboard.access import may_change, why_not
from dashboard.compare.runs import ids_in
from dashboard.generate import form
from dashboard.generate.columns import columns
from dashboard.generate.worker import Generation, Request, desk
from dashboard.markdown import escaped
from dashboard.state import Row, run_rows

RUNS_PAGE = "dashboard/pages/runs.py"
SECONDS = 0.5  # between two looks at what the worker has told
_NAMED = 8
_ADDRESS = "generate_address"


def arrive() -> None:
    """Through the menu, which knows no address: the form is as it was left."""
    state = st.session_state
    if "prompt" not in state and not st.query_params and state.get(_ADDRESS):
        st.query_params.from_dict(state[_ADDRESS])
        st.rerun()  # widgets take their values from the address at the start of a rerun
    if st.query_params:  # now too: whoever leaves the page while it is made ends this run
        state[_ADDRESS] = st.query_params.to_dict()


def empty(rows: list[Row]) -> None:
    names = ", ".join(escaped(row["id"]) for row in rows[:_NAMED])
    more = f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
    if rows:
        st.info(f"No run has a checkpoint (best.pt or last.pt) to generate from: {names}{more}.")
    else:
        st.info("There are no runs in the folders that are looked at: train one, then generate with it here.")
    st.page_link(RUNS_PAGE, label="All runs", icon=":material/table_rows:")


def stop() -> None:
    if may_change():
        desk().stop()


def keep(generation: Generation) -> None:
    if not may_change():
        return
    try:
        generation.keep()
    except OSError as error:
        st.session_state["generate_not_kept"] = error.strerror or str(error)


def begin(request: Request) -> None:
    try:
        desk().begin(request)
    except OSError as error:
        st.error(f"The process that generates cannot be started ({escaped(error.strerror or str(error))}): try again.")


def asked(rows: list[Row], usable: list[Row]) -> tuple[Row | None, Request | None]:
    """The run, and what the form asks for; None for it while something is missing or wrong."""
    left, right = st.columns([2, 3], gap="medium")
    with left:
        row = form.choose_run(rows, usable)
        checkpoint = form.choose_checkpoint(row) if row else None
    with right:
        prompt = form.prompt_box()
    if row is None or checkpoint is None:
        return row, None
    drawn = form.sampling()
    policies = form.policies(row)
    if not prompt:
        st.caption("Write a prompt: a model goes on from at least one token.")
    if not prompt or policies is None:
        return row, None
    return row, Request(checkpoint=checkpoint, prompt=prompt, policies=policies, **drawn)


def work(request: Request | None) -> None:
    """Generate, Stop, Keep, and below what was drawn. `request` is read before: what was typed last counts."""
    allowed = may_change()
    why = None if allowed else why_not()
    with st.container(horizontal=True, gap="small", vertical_alignment="center"):
        pressed = st.button(
            "Generate",
            type="primary",
            icon=":material/play_arrow:",
            key="begin",
            disabled=not allowed or request is None,
            help=why,
        )
        if pressed and allowed and request:
            begin(request)
        generation = desk().generation
        running = generation is not None and generation.running
        st.button(
            "Stop", icon=":material/stop:", key="stop", on_click=stop, disabled=not allowed or not running, help=why
        )
        if generation and not running and any(column.tokens for column in generation.columns):
            st.button(
                "Kept" if generation.kept else "Keep",
                icon=":material/check:" if generation.kept else ":material/bookmark_add:",
                key="keep",
                on_click=keep,
                args=(generation,),
                disabled=not allowed or generation.kept,
                help=why or "Adds the texts to the run's samples.jsonl; its Samples tab shows them.",
            )
    results(generation, running)


def results(generation: Generation | None, running: bool) -> None:
    """The columns, drawn again and again while they are `running`."""
    if generation is None:
        return

    @st.fragment(run_every=SECONDS if running else None)
    def live() -> None:
        ended = running and not generation.running
        columns(generation)
        if ended:  # nothing to look at any more, and something to keep
            st.rerun(scope="app")

    live()


def notices(row: Row | None) -> None:
    if row is None:
        st.info("Choose a run to continue a prompt with its model.")
    if problem := st.session_state.pop("generate_not_kept", None):
        st.error(f"samples.jsonl cannot be written ({escaped(problem)}): check the folder's permissions.")


def page() -> None:
    arrive()
    rows = run_rows(*ids_in(st.query_params.get(form.RUN)))
    usable = [row for row in rows if form.checkpoints(row)]
    if not usable:
        empty(rows)
        return
    # Places of their own: a sentence that comes or goes must not move the texts below, which would be drawn anew.
    with st.container():
        row, request = asked(rows, usable)
    st.session_state[_ADDRESS] = st.query_params.to_dict()
    with st.container():
        notices(row)
    work(request)


page()
