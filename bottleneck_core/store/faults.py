"""What is broken in a file, as a short list of sentences: equal faults are counted together."""

from __future__ import annotations

_MAX_SENTENCES = 12


class Faults:
    """Collects faults of one text file by what is wrong; `sentences()` gives one sentence for each kind."""

    def __init__(self, file_name: str) -> None:
        self._file_name = file_name
        self._found: dict[str, tuple[int, int, int]] = {}  # what is wrong -> count, first line, last line

    def add(self, what: str, line: int) -> None:
        """Note that `what` (the end of a sentence) holds for the line of this number, counted from 1."""
        self.add_range(what, 1, line, line)

    def add_range(self, what: str, count: int, first: int, last: int) -> None:
        """Note that `what` holds for `count` lines, of which these are the first and the last."""
        before, earliest, latest = self._found.get(what, (0, first, last))
        self._found[what] = (before + count, min(earliest, first), max(latest, last))

    def sentences(self) -> list[str]:
        """`train.jsonl line 5: loss is NaN, read as missing`, or `train.jsonl lines 5 to 90 (3 times): ...`.

        In the order of the first places; a file that is broken in many ways gives a dozen sentences and a
        count.
        """
        ordered = sorted(self._found.items(), key=lambda item: (item[1][1], item[0]))
        sentences = [
            f"{self._file_name} line {first}: {what}"
            if count == 1
            else f"{self._file_name} lines {first} to {last} ({count} times): {what}"
            for what, (count, first, last) in ordered[:_MAX_SENTENCES]
        ]
        if len(ordered) > _MAX_SENTENCES:
            sentences.append(f"{self._file_name}: {len(ordered) - _MAX_SENTENCES} more kinds of faults")
        return sentences
