"""Report links: made and shown once, for one advertiser, until they expire or are revoked."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from adserver.console import audit
from adserver.console.audit import Actor
from adserver.console.report_links import (
    DEFAULT_DAYS,
    LINKS,
    MOST,
    BadLink,
    ReportLink,
    address,
    find_report_link,
    list_report_links,
    make_report_link,
    revoke_report_link,
)
from adserver.errors import StoreRefused
from adserver.logs import hide
from adserver.store import Store

T = TypeVar("T")
WithStore = Callable[[Callable[[Store], Awaitable[T]]], T]
NOW = 1_780_000_000.0
DAY = 86_400
ANNA = Actor("anna@news.example", "192.0.2.7")


async def make(store: Store, advertiser: str = "acme", label: str = "Ms Baker", days: int = DEFAULT_DAYS) -> str:
    return await make_report_link(store, advertiser, label, days, ANNA, NOW)


async def everything(store: Store) -> bytes:
    """All that the console keeps, in one piece."""
    found = b""
    for key in await store.ask("KEYS", "as:{console}*"):
        if await store.ask("TYPE", key) == b"string":
            found += await store.ask("GET", key) or b""
        else:
            found += await store.ask("DUMP", key) or b""
    return found


def test_a_link_shows_one_advertiser(with_store: WithStore[None]) -> None:
    """
    Its token finds the advertiser it was made for, with its label and end; another's token finds another's.
    """

    async def body(store: Store) -> None:
        one, other = await make(store), await make(store, "bolt", "Mr Bolt", 30)
        found, second = await find_report_link(store, one, NOW), await find_report_link(store, other, NOW)
        assert found
        assert second
        assert (found.advertiser, found.label, found.until, found.by) == (
            "acme", "Ms Baker", NOW + DEFAULT_DAYS * DAY, ANNA.name,
        )  # fmt: skip
        assert (second.advertiser, second.until) == ("bolt", NOW + 30 * DAY)

    with_store(body)


def test_the_token_is_nowhere(with_store: WithStore[None]) -> None:
    """
    Nothing in the store, the audit log included, holds the token; an address in a log line is blotted out.
    """

    async def body(store: Store) -> None:
        token = await make(store)
        await find_report_link(store, token, NOW)
        assert token.encode() not in await everything(store)
        entries = (await audit.read(store)).entries
        assert [(one.entry.what, one.entry.subject, one.entry.who) for one in entries] == [
            ("makes report link", "acme", ANNA.name)
        ]
        assert "Ms Baker" in entries[0].entry.detail
        path = address("https://ads.example/", token)
        assert path == f"https://ads.example/report/{token}"
        assert hide(f"/report/{token}") == hide(f"/report/{token}.csv") == "/report/…"
        assert hide(f"/report/{token}/x\ny") == "/report/…"
        assert hide("/console/link/abc") == "/console/link/…"
        assert hide("/console/reports.csv") == "/console/reports.csv"

    with_store(body)


def test_a_link_ends_by_itself(with_store: WithStore[None]) -> None:
    """
    At its last second it is good, at the next it is as if it had never been; the list shows it a while longer.
    """

    async def body(store: Store) -> None:
        token = await make(store, days=30)
        assert await find_report_link(store, token, NOW + 30 * DAY - 1)
        assert await find_report_link(store, token, NOW + 30 * DAY) is None
        listed = await list_report_links(store, "acme")
        assert [one.is_good(NOW + 30 * DAY) for one in listed] == [False]
        await make_report_link(store, "acme", "another", 30, ANNA, NOW + 200 * DAY)
        assert [one.label for one in await list_report_links(store, "acme")] == ["another"]

    with_store(body)


def test_a_revoked_link_ends_at_once(with_store: WithStore[None]) -> None:
    """
    Revoking ends that one link and no other, says so in the audit log, and cannot be done by another advertiser's page.
    """

    async def body(store: Store) -> None:
        gone, stays = await make(store, label="gone"), await make(store, label="stays")
        ids = {one.label: one.id for one in await list_report_links(store, "acme")}
        assert not await revoke_report_link(store, "bolt", ids["gone"], ANNA, NOW)
        assert await revoke_report_link(store, "acme", ids["gone"], ANNA, NOW)
        assert not await revoke_report_link(store, "acme", ids["gone"], ANNA, NOW)
        assert await find_report_link(store, gone, NOW) is None
        assert await find_report_link(store, stays, NOW)
        assert [one.label for one in await list_report_links(store, "acme")] == ["stays"]
        newest = (await audit.read(store)).entries[0].entry
        assert (newest.what, newest.subject, newest.detail) == ("revokes report link", "acme", "gone")

    with_store(body)


def test_the_list_says_when_somebody_last_looked(with_store: WithStore[None]) -> None:
    """
    The day of the last look is kept, and no more: a link nobody opened was never seen.
    """

    async def body(store: Store) -> None:
        token = await make(store)
        seen = [one.seen for one in await list_report_links(store, "acme")]
        await find_report_link(store, token, NOW)
        await find_report_link(store, token, NOW + 3 * DAY)
        later = [one.seen for one in await list_report_links(store, "acme")]
        assert (seen, later) == ([None], ["2026-05-31"])

    with_store(body)


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 42, "ü" * 43, "x" * 43 + "\n", "../" * 15, "x" * 10_000])
def test_what_is_no_token_finds_nothing(with_store: WithStore[ReportLink | None], token: str) -> None:
    """
    A guess, a cut or a strange token is nobody's.
    """
    assert with_store(lambda store: find_report_link(store, token, NOW)) is None


@pytest.mark.parametrize(("label", "days"), [("", 90), ("x" * 201, 90), ("a\nb", 90), ("fine", 0), ("fine", 10_000)])
def test_a_link_needs_a_label_and_one_of_the_ends(with_store: WithStore[None], label: str, days: int) -> None:
    """
    Without a name for it, or with an end nobody offered, no link is made and nothing is noted.
    """

    async def body(store: Store) -> None:
        with pytest.raises(BadLink):
            await make(store, label=label, days=days)
        assert not (await audit.read(store)).entries

    with_store(body)


def test_there_is_an_end_to_links(with_store: WithStore[None]) -> None:
    """
    One advertiser has so many links and no more; another has their own.
    """

    async def body(store: Store) -> None:
        for _ in range(MOST):
            await make(store)
        with pytest.raises(BadLink, match="revoke one"):
            await make(store)
        assert len(await list_report_links(store, "acme")) == MOST
        assert await make(store, "bolt")

    with_store(body)


def test_what_is_not_a_link_is_refused(with_store: WithStore[None]) -> None:
    """
    A value that nobody of us wrote is an error in words, not a link.
    """

    async def body(store: Store) -> None:
        token = await make(store)
        (hashed,) = await store.ask("HKEYS", LINKS)
        await store.ask("HSET", LINKS, hashed, '{"until": 9e15}')
        with pytest.raises(StoreRefused):
            await find_report_link(store, token, NOW)

    with_store(body)
