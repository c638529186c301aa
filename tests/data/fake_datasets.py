"""Stands in for the package `datasets`, which needs the network: a stream of made-up documents.

It has the parts of a streaming dataset that are used: iteration, `skip`, `state_dict` and `load_state_dict`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

N_DOCUMENTS = 60


def text_of(number: int) -> str:
    """Document `number`: of changing length, one empty, one with the end token's string in it."""
    if number == 3:
        return ""
    words = [f"word{(number * 7 + k * k) % 41}" for k in range(5 + number % 11)]
    return " ".join(words) + (" <|endoftext|> é日" if number % 9 == 4 else ".\n")


class Stream:
    """Rows from `start` on. `on_row` is called before a row is handed out; `read` lists the rows read."""

    def __init__(self, start: int, on_row: Callable[[int], None], read: list[int]) -> None:
        self.start, self.on_row, self.read = start, on_row, read

    def skip(self, n: int) -> Stream:
        for number in range(self.start, self.start + n):  # the real one reads what it skips, too
            self.read.append(number)
        return type(self)(self.start + n, self.on_row, self.read)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number in range(self.start, N_DOCUMENTS):
            self.on_row(number)
            self.read.append(number)
            self.start = number + 1  # before the row is handed out, as the real one counts
            yield {"text": text_of(number), "id": f"doc-{number}"}


class StatefulStream(Stream):
    """The same with a position that can be stored and taken up without reading."""

    def state_dict(self) -> dict[str, Any]:
        return {"examples": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.start = state["examples"]


def install(on_row: Callable[[int], None] = lambda number: None, stateful: bool = True) -> tuple[ModuleType, list[int]]:
    """A module for sys.modules["datasets"], and the list of the rows that get read through it."""
    read: list[int] = []
    module = ModuleType("datasets")

    def load_dataset(path: str, *, name: str, split: str, streaming: bool) -> Stream:
        assert (path, name, split, streaming) == ("HuggingFaceFW/fineweb-edu", "sample-10BT", "train", True)
        return (StatefulStream if stateful else Stream)(0, on_row, read)

    module.load_dataset = load_dataset  # pyright: ignore[reportAttributeAccessIssue]
    return module, read


def main() -> None:
    """Prepare up to a chosen document, say so, and wait to be killed.

    Arguments: that document's number, tokenizer, tokens, out, stateful or counting.
    """
    stop_at, tokenizer, tokens, out, stateful = sys.argv[1:]

    def block(number: int) -> None:
        if number == int(stop_at):
            print("blocked", flush=True)
            sys.stdin.read()  # the parent keeps this end open and kills

    sys.modules["datasets"], _ = install(block, stateful == "stateful")
    from bottleneck_core.data import prepare

    prepare.SAVE_EVERY_TOKENS = 100
    prepare.FIT_DOCUMENTS = 5
    prepare.prepare("fineweb-edu", tokenizer=tokenizer, tokens=tokens, out=out)


if __name__ == "__main__":
    main()
