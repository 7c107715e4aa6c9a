"""Long work on a large catalog in small steps, as a generator that yields after each.

A step takes less than half a millisecond. Whoever answers readers does the steps one by one and answers in between
(see `background.in_steps`); a thread would do the same work as fast, and have the interpreter to itself for
milliseconds at a time.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import TypeVar

AT_ONCE = 200
"""Entries of a catalog in one step."""

_T = TypeVar("_T")

Steps = Generator[None, None, _T]


def pieces(rows: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """*rows* in their order, as many at a time as make one step."""
    for start in range(0, len(rows), AT_ONCE):
        yield rows[start : start + AT_ONCE]


def at_once(work: Steps[_T]) -> _T:
    """What *work* returns, all of its steps done here and now."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: _T = done.value
            return found
