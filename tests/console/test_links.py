"""One-time links, and the first start."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from adserver.console import audit, links
from adserver.console.audit import Actor
from adserver.console.links import BadLink, Link, find_link, first_start, make_link, use_link
from adserver.console.people import (
    BadPassword,
    NoSuchPerson,
    Role,
    add_person,
    list_people,
    read_person,
    remove_person,
    set_password,
    verify_password,
)
from adserver.console.sessions import find_session, open_session
from adserver.console.unguessable import digest
from adserver.store import Store
from tests.console.conftest import Run

NOW = 1_772_000_000.25
PASSWORD = "correct horse battery"
BOSS = Actor("boss")
BASE = "https://ads.courier.example"


def test_a_link_sets_a_password_once(with_store: Run) -> None:
    """
    Looking at it uses nothing up, a password that is refused neither; the second use is refused.
    """

    async def body(store: Store) -> None:
        ann = await add_person(store, "ann", Role.SALES, BOSS, NOW)
        session = await open_session(store, ann, NOW, "")
        token = await make_link(store, "ann", BOSS, NOW)
        for _ in range(3):
            assert await find_link(store, token, NOW + 5) == Link("ann", NOW + 86_400)
        with pytest.raises(BadPassword, match="12"):
            await use_link(store, token, "short", NOW + 5)
        person = await use_link(store, token, PASSWORD, NOW + 6, "192.0.2.7")
        assert await verify_password(store, "ann", PASSWORD) == person
        assert await find_session(store, session, NOW + 7) is None
        assert await open_session(store, person, NOW + 7, "")
        assert await find_link(store, token, NOW + 7) is None
        with pytest.raises(BadLink, match="not good any more"):
            await use_link(store, token, "another password", NOW + 8)
        newest = (await audit.read(store, 1)).entries[0].entry
        assert (newest.who, newest.what, newest.detail, newest.address) == (
            "ann", "sets password", "by a link", "192.0.2.7",
        )  # fmt: skip

    with_store(body)


def test_of_many_who_use_a_link_at_once_one_sets_the_password(with_store: Run) -> None:
    """
    The others are told, and theirs is not the password.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, BOSS, NOW)
        token = await make_link(store, "ann", BOSS, NOW)
        passwords = [f"password number {n}" for n in range(6)]
        done = await asyncio.gather(
            *(use_link(store, token, password, NOW) for password in passwords), return_exceptions=True
        )
        assert sum(isinstance(one, BadLink) for one in done) == 5
        good = [await verify_password(store, "ann", password) is not None for password in passwords]
        assert good == [not isinstance(one, BadLink) for one in done]

    with_store(body)


def test_a_link_is_good_for_a_day(with_store: Run) -> None:
    """
    By the caller's clock and by the store's own; it is kept as a hash.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, BOSS, NOW)
        token = await make_link(store, "ann", BOSS, NOW)
        key = links._key(digest(b"link", token))
        assert 86_400 - 60 < await store.ask("PTTL", key) / 1000 <= 86_400
        assert await find_link(store, token, NOW + 86_399)
        assert await find_link(store, token, NOW + 86_400) is None
        with pytest.raises(BadLink):
            await use_link(store, token, PASSWORD, NOW + 86_400)
        for other in ("", "x", token[:-1], token + "A", "é" * 43):
            assert await find_link(store, other, NOW) is None

    with_store(body)


async def newer_link(store: Store) -> None:
    await make_link(store, "ann", BOSS, NOW)


async def new_password(store: Store) -> None:
    await set_password(store, "ann", PASSWORD, BOSS, NOW)


async def removed(store: Store) -> None:
    await remove_person(store, "ann", BOSS, NOW)


async def replaced(store: Store) -> None:
    await remove_person(store, "ann", BOSS, NOW)
    await add_person(store, "ann", Role.ADMIN, BOSS, NOW)


@pytest.mark.parametrize("happens", [newer_link, new_password, removed, replaced])
def test_what_happens_later_ends_a_link(with_store: Run, happens: Callable[[Store], Awaitable[Any]]) -> None:
    """
    A newer link, a password set otherwise, and the person's removal.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, BOSS, NOW)
        token = await make_link(store, "ann", BOSS, NOW)
        await happens(store)
        assert await find_link(store, token, NOW) is None
        with pytest.raises(BadLink):
            await use_link(store, token, "some other password", NOW)

    with_store(body)


def test_the_first_start_makes_one_admin_and_one_link(with_store: Run) -> None:
    """
    Of many that start at once one gets the link; there is no password until it is used, and none is ever made up.
    """

    async def body(store: Store) -> None:
        found = await asyncio.gather(*(first_start(store, BASE + "/", NOW) for _ in range(8)))
        (link,) = [one for one in found if one]
        assert link.startswith(f"{BASE}/console/link/")
        token = link.rpartition("/")[2]
        (admin,) = await list_people(store)
        assert (admin.name, admin.role, admin.has_password) == ("admin", Role.ADMIN, False)
        for guess in ("", "admin", "password", "adminadminadmin"):
            assert await verify_password(store, "admin", guess) is None
        assert await first_start(store, BASE, NOW + 1) is None
        again = await make_link(store, "admin", BOSS, NOW + 2)
        assert await find_link(store, token, NOW + 2) is None
        await use_link(store, again, PASSWORD, NOW + 3)
        assert await verify_password(store, "admin", PASSWORD)
        assert await first_start(store, BASE, NOW + 90_000) is None
        entries = [one.entry for one in (await audit.read(store)).entries]
        assert [(one.who, one.what) for one in entries] == [
            ("admin", "sets password"), ("boss", "makes link"), ("first start", "adds person"),
        ]  # fmt: skip
        assert not any(secret in str(entries) for secret in (token, again, PASSWORD))

    with_store(body)


def test_nobody_gets_a_link_who_is_not_there(with_store: Run) -> None:
    """
    And nothing is made.
    """

    async def body(store: Store) -> None:
        with pytest.raises(NoSuchPerson):
            await make_link(store, "ann", BOSS, NOW)
        assert await read_person(store, "ann") is None
        assert (await audit.read(store)).entries == ()

    with_store(body)
