"""Work in a process of its own: what it returns and raises comes back, and it never outlives who waits for it."""

import asyncio
import os
import time

import psutil  # type: ignore[import-untyped]
import pytest

from adserver.console.apart import TooLong, apart
from adserver.errors import BadSheet
from tests.service.live import eventually


def told_of() -> tuple[int, int]:
    return os.getpid(), os.nice(0)


def refuse(what: str) -> None:
    raise BadSheet(what)


def hang(seconds: float) -> None:
    time.sleep(seconds)


def stop() -> None:
    os._exit(3)


def children() -> set[int]:
    return {one.pid for one in psutil.Process().children(recursive=True)}


def test_what_it_returns_comes_back() -> None:
    """
    From another process, which lets others go first.
    """
    pid, nice = asyncio.run(apart(told_of))
    assert pid != os.getpid()
    assert nice >= 10
    assert asyncio.run(apart(sorted, [3, 1, 2])) == [1, 2, 3]


def test_what_it_raises_is_raised() -> None:
    """
    With its type and words; a process that dies is an error and no answer.
    """
    with pytest.raises(BadSheet, match="row 7"):
        asyncio.run(apart(refuse, "row 7"))
    with pytest.raises(RuntimeError, match="ended with 3"):
        asyncio.run(apart(stop))


def test_it_ends_with_the_time_or_with_who_waits() -> None:
    """
    Late work is given up, and so is work that nobody waits for any more: no process stays.
    """
    before = children()
    with pytest.raises(TooLong, match="given up"):
        asyncio.run(apart(hang, 600, within_s=0.5))

    async def leave() -> None:
        waiting = asyncio.create_task(apart(hang, 600))
        await asyncio.to_thread(eventually, lambda: children() - before, 10, "the process")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())
    assert children() <= before
