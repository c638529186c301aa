"""A fragment of a page that was left draws nothing."""

from __future__ import annotations

from typing import Any

import pytest
import streamlit as st

from dashboard.visit import of_this_page, visit


def test_what_belongs_to_a_page_is_drawn_on_that_page_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", state)
    drawn: list[str] = []
    visit("runs")
    table = of_this_page(drawn.append)
    table("first")
    visit("run")
    table("late")
    curves = of_this_page(drawn.append)
    curves("second")
    visit("runs")
    table("again")
    assert drawn == ["first", "second", "again"]
