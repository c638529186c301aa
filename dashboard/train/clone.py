"""A draft from a run that is there: what its configuration says differently from the presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import bottleneck_core as bc
from dashboard.state import find_row, run_rows
from dashboard.train.draft import ALL, SIZES, Draft
from dashboard.train.schema import OWN, defaults, fields, text_of

# Views of the same settings in summaries of earlier systems, and what a run says of itself rather than of its settings.
_SILENT = frozenset({"given", "mode", "print_config", "run_tag", *OWN} - {"data", "device"})


def cloned(run_id: str, root: str | None) -> tuple[Draft, list[str]]:
    """The draft that starts the run again under a free name, and sentences on what was not taken over."""
    row = find_row(run_rows(run_id), run_id, root)
    if row is None:
        return Draft(), [f"there is no run {run_id} in the folders that are looked at: this is the usual form"]
    try:
        config = bc.load_run(row["path"]).config
    except bc.UserError as error:
        return Draft(), [str(error)]
    if not config:
        return Draft(), [f"{run_id} has no configuration to clone: this is the usual form"]
    draft, unknown = draft_of(config)
    if not unknown:
        return draft, []
    shown = ", ".join(unknown[:8]) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
    return draft, [f"settings of {run_id} that are not known here are left out: {shown}"]


def draft_of(config: Mapping[str, Any]) -> tuple[Draft, list[str]]:
    """The draft of a flat configuration, and its keys that the schema does not know."""
    known = fields()
    size, exp = config.get("size"), config.get("exp")
    size = size if size in SIZES else None
    exp = exp if exp in known["exp"].choices and exp != ALL else None
    unknown = [str(name) for name in config if name not in known and name not in _SILENT]
    given = config.get("given")
    asked = {n: v for n, v in config.items() if n in known and n not in _SILENT}
    if isinstance(given, (list, tuple)):  # ours says what was asked for; elsewhere everything resolved counts
        asked = {name: value for name, value in asked.items() if name in given}
    unusable = [name for name, value in asked.items() if not isinstance(value, (str, int, float, bool, type(None)))]
    presets = {"size": size, "exp": exp}
    usual = defaults({name: value for name, value in {**presets, **asked}.items() if value is not None})
    settings = {}
    for name, value in asked.items():
        text = "none" if value is None and known[name].nullable else text_of(value)
        unset = value is None and usual[name] is None
        if name not in unusable and not unset and not known[name].says_nothing(text, usual[name]):
            settings[name] = text
    return Draft(size=size, exp=exp, settings=settings), [*unknown, *unusable]
