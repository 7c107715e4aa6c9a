"""The audit log."""

import pytest

from adserver.console.audit import LOG, Entry, Noted, note, read
from adserver.errors import StoreRefused
from adserver.store import Store
from tests.console.conftest import Run

NOW = 1_772_000_000.25


def entry(n: int, who: str = "ann", subject: str = "spring-sale") -> Entry:
    return Entry(at=NOW + n, who=who, what="publishes", subject=subject, detail=f"number {n}", address="192.0.2.7")


def test_the_log_is_read_newest_first_page_by_page(with_store: Run) -> None:
    """
    Every entry once, whole, in order; what is added meanwhile does not shift the pages.
    """

    async def body(store: Store) -> None:
        entries = [entry(n) for n in range(25)]
        for one in entries:
            await note(store, one)
        found: list[Entry] = []
        before: str | None = None
        while True:
            page = await read(store, 10, before)
            found += [one.entry for one in page.entries]
            await note(store, entry(100))
            before = page.before
            if before is None:
                break
        assert found == entries[::-1]
        assert (await read(store, 10, "nonsense")).entries[0].entry == entry(100)
        assert await read(store, 10, "0-1") == await read(store, 10, "1-0")
        assert (await read(store, 10, "0-1")).entries == ()

    with_store(body)


def test_the_log_is_read_of_one_person_or_about_one_thing(with_store: Run) -> None:
    """
    Also when what is looked for lies behind hundreds of others.
    """

    async def body(store: Store) -> None:
        await note(store, entry(0, who="bob", subject="autumn-sale"))
        for n in range(1, 1102):
            await note(store, entry(n, subject="a" if n % 2 else "b"))

        async def numbers(before: str | None = None, **filters: str) -> list[float]:
            return [one.entry.at - NOW for one in (await read(store, 3, before, **filters)).entries]

        assert await numbers(who="bob") == [0]
        assert await numbers(subject="autumn-sale") == [0]
        assert await numbers(who="ann", subject="b") == [1100, 1098, 1096]
        assert await numbers(who="bob", subject="a") == []
        assert await numbers(who="nobody") == []
        page = await read(store, 3, who="ann", subject="b")
        assert await numbers(page.before, who="ann", subject="b") == [1094, 1092, 1090]

    with_store(body)


def test_an_entry_is_one_line_that_reads_as_it_was_written(with_store: Run) -> None:
    """
    No control characters, nothing that turns the reading direction, and no more than there is room for.
    """

    async def body(store: Store) -> None:
        odd = Entry(
            at=NOW,
            who="x" * 500,
            what="sets\nrole",
            subject="a\0b\u202ec\u2028d",
            detail="y" * 5000,
            address="\x1b[31m",
        )
        await note(store, odd)
        (kept,) = (one.entry for one in (await read(store)).entries)
        assert (kept.what, kept.subject, kept.address) == ("sets role", "a b c d", "[31m")
        assert (len(kept.who), len(kept.detail)) == (200, 2000)
        assert kept.detail.endswith("y…")

    with_store(body)


@pytest.mark.parametrize(
    "secret",
    [
        "adt_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
        "https://ads.example/console/link/0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
        "https://ads.example/report/0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
        "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$0123456789abcdef",
    ],
)
def test_what_would_let_somebody_in_is_blotted_out(with_store: Run, secret: str) -> None:
    """
    Should a token, a link or a hash ever get into an entry, the log does not keep it.
    """

    async def body(store: Store) -> None:
        await note(store, Entry(at=NOW, who=secret, what="x", subject=f"({secret})", detail=f"see {secret} and more"))
        (kept,) = (one.entry for one in (await read(store)).entries)
        assert "0123456789" not in str(kept)
        assert kept.detail.startswith("see ")
        assert kept.detail.endswith("… and more")

    with_store(body)


def test_the_log_has_no_end_and_no_hurry(with_store: Run) -> None:
    """
    Nothing in it expires; where something else lies under its name, that is told.
    """

    async def body(store: Store) -> None:
        await note(store, entry(1))
        assert await store.ask("PTTL", LOG) == -1
        (one,) = (await read(store)).entries
        assert isinstance(one, Noted)
        await store.ask("XADD", LOG, "*", "stranger", "1")
        with pytest.raises(StoreRefused, match="not ours"):
            await read(store)
        await store.ask("DEL", LOG)
        await store.ask("SET", LOG, "x")
        with pytest.raises(StoreRefused):
            await read(store)

    with_store(body)
