"""Which layers and heads a probe keeps maps, ranks and singular values of: lists such as "0,-1"."""

from __future__ import annotations

from collections.abc import Sequence

from bottleneck_core.errors import UserError


def parse_selection(chosen: str | Sequence[int], count: int, kind: str) -> tuple[int, ...]:
    """Indices in ascending order, each once, of `count` things called `kind` ("layer" or "head").

    Negative indices count from the end; an empty list chooses none. Raises UserError for an entry that is no
    whole number or lies outside the model.
    """
    entries = [part.strip() for part in chosen.split(",")] if isinstance(chosen, str) else list(chosen)
    if entries == [""]:
        return ()
    indices = set()
    for entry in entries:
        try:
            index = int(entry)
        except ValueError:
            raise UserError(
                f"analysis {kind}s {chosen!r}: {entry!r} is no whole number; "
                f"give {kind} numbers between commas, such as 0,-1"
            ) from None
        if not -count <= index < count:
            raise UserError(
                f"analysis {kind}s {chosen!r}: {kind} {index} does not exist; "
                f"the model has {kind}s 0 to {count - 1} (or -{count} to -1)"
            )
        indices.add(index % count)
    return tuple(sorted(indices))
