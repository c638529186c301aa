"""What took long to make, kept for the reruns that ask for the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from operator import is_
from typing import Any, TypeVar

T = TypeVar("T")


class Same:
    """A list of rows as part of a key: the same objects in the same order. Neither it nor they may be changed later.

    Ten thousand are compared in less than a millisecond; what they hold is not looked at.
    """

    def __init__(self, rows: Sequence[object]) -> None:
        self._rows = rows

    def __hash__(self) -> int:
        return hash((len(self._rows), *map(id, self._rows[:1]), *map(id, self._rows[-1:])))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Same) or len(self._rows) != len(other._rows):
            return False
        return self._rows is other._rows or all(map(is_, self._rows, other._rows))


class Kept:
    """The `most` values that were asked for last, by keys that say all that they depend on.

    Its methods may be called from many threads; two that ask for a new value at once both make it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, from `make` where it is not there. Shared with others: not to be changed."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forget everything: what it was made from has changed."""
        with self._lock:
            self._values.clear()
