"""Another service on the same store: noticed, and never trusted."""

import asyncio

import pytest

from adserver.neighbours import KEY, look
from adserver.store import Store, open_store
from tests.edges.servers import Server

OURS, THEIRS = "0" * 16, "f" * 16
NOW = 1_795_000_000


def ask(server: Server, *others: tuple[str | bytes, str | bytes]) -> list[str]:
    async def body(store: Store) -> list[str]:
        for name, seen in others:
            await store.ask("HSET", KEY, name, seen)
        seconds = int((await store.ask("TIME"))[0])
        return await look(store, OURS, float(seconds))

    async def main() -> list[str]:
        async with open_store(server.url) as store:
            return await body(store)

    return asyncio.run(main())


def test_alone_there_is_nothing_to_say(server: Server) -> None:
    """
    A service does not take its own mark for a neighbour.
    """
    assert ask(server) == []
    assert ask(server) == []


@pytest.mark.parametrize("seen", ["abc", "", "inf", "nan", "-1", "1e9", b"\xff\xfe"])
def test_what_another_program_left_there_is_passed_over(server: Server, seen: str | bytes) -> None:
    """
    A value that no service of ours writes is neither believed nor an error.
    """
    assert ask(server, (THEIRS, seen), (b"\xff name", "1"), ("other", "12")) == []
