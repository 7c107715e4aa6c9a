"""Sessions: opened, found, idle, over, closed, and ended by what happens to their person."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from adserver.console import sessions
from adserver.console.audit import Actor
from adserver.console.people import (
    PEOPLE,
    NoSuchPerson,
    Role,
    add_person,
    read_person,
    remove_person,
    set_password,
    set_role,
)
from adserver.console.sessions import (
    IDLE_S,
    LONGEST_S,
    SESSIONS,
    TOUCH_S,
    close_all,
    close_one,
    close_session,
    find_session,
    list_sessions,
    open_session,
)
from adserver.store import Store
from tests.console.conftest import Run

NOW = 1_772_000_000.25
BOSS = Actor("boss")
HERE = "192.0.2.7"


async def signed_in(store: Store, name: str = "ann", role: Role = Role.SALES) -> str:
    """A session of a new person."""
    return await open_session(store, await add_person(store, name, role, BOSS, NOW), NOW, HERE)


def test_a_session_knows_its_person(with_store: Run) -> None:
    """
    The name, the role, since when and from where; its cookie's value is 256 random bits and is kept as a hash only.
    """

    async def body(store: Store) -> None:
        token = await signed_in(store, "ann de vries")
        found = await find_session(store, token, NOW + 1)
        assert found
        assert (found.name, found.role, found.opened, found.used) == ("ann de vries", Role.SALES, NOW, NOW)
        assert found.address == HERE
        assert re.fullmatch("[A-Za-z0-9_-]{43}", token)
        kept = str(await store.ask("HGETALL", SESSIONS))
        assert token not in kept
        assert found.csrf not in kept
        assert found.id in kept
        person = await read_person(store, "ann de vries")
        assert person
        assert person.last_sign_in == NOW

    with_store(body)


@pytest.mark.parametrize(
    "forged", ["", "x", "A" * 43, "A" * 42, "A" * 44, "é" * 43, "A" * 42 + "\n", "A" * 100_000, "* " * 20 + "abc"]
)
def test_what_was_never_given_out_opens_nothing(with_store: Run, forged: str) -> None:
    """
    Nor does the hash that the store keeps.
    """

    async def body(store: Store) -> None:
        token = await signed_in(store)
        assert await find_session(store, forged, NOW) is None
        found = await find_session(store, token, NOW)
        assert found
        assert await find_session(store, found.id, NOW) is None
        await close_session(store, forged)
        assert await find_session(store, token, NOW)

    with_store(body)


def test_a_session_ends_after_idling(with_store: Run) -> None:
    """
    8 hours after its last use, which is noted once a minute.
    """

    async def body(store: Store) -> None:
        token = await signed_in(store)
        assert await find_session(store, token, NOW + TOUCH_S - 1)
        used = [one.used for one in await list_sessions(store, "ann", NOW)]
        assert used == [NOW]
        late = NOW + IDLE_S - 1
        assert await find_session(store, token, late)
        assert [one.used for one in await list_sessions(store, "ann", late)] == [late]
        assert await find_session(store, token, late + IDLE_S - 1)
        assert await find_session(store, token, late + 2 * IDLE_S) is None
        assert await find_session(store, token, late) is None, "over is over, also for a clock that goes back"

    with_store(body)


def test_a_session_ends_after_a_week_however_busy(with_store: Run) -> None:
    """
    7 days after it was opened; and when nobody signs in for a week, the store forgets all of them by itself.
    """

    async def body(store: Store) -> None:
        token = await signed_in(store)
        for hour in range(0, 7 * 24, 4):
            assert await find_session(store, token, NOW + hour * 3600)
        assert await find_session(store, token, NOW + LONGEST_S - 1)
        assert await find_session(store, token, NOW + LONGEST_S) is None
        left_ms = await store.ask("PTTL", SESSIONS)
        assert left_ms == -2, "the last one is gone, and its key"
        await signed_in(store, "bob")
        assert LONGEST_S - 60 < await store.ask("PTTL", SESSIONS) / 1000 <= LONGEST_S

    with_store(body)


def test_who_signs_in_again_gets_another_session(with_store: Run) -> None:
    """
    The browser's old one is closed, whoever opened it: nobody can prepare a session for another person.
    """

    async def body(store: Store) -> None:
        old = await signed_in(store, "eve")
        ann = await add_person(store, "ann", Role.SALES, BOSS, NOW)
        new = await open_session(store, ann, NOW + 1, HERE, old)
        assert new != old
        assert await find_session(store, old, NOW + 1) is None
        found = await find_session(store, new, NOW + 1)
        assert found
        assert found.name == "ann"

    with_store(body)


def test_a_form_s_token_is_the_sessions_own(with_store: Run) -> None:
    """
    The same for one session at every request, another for each session, and not made of what the store keeps.
    """

    async def body(store: Store) -> None:
        one = await signed_in(store)
        ann = await read_person(store, "ann")
        assert ann
        two = await open_session(store, ann, NOW, HERE)
        tokens = []
        for token in (one, one, two):
            found = await find_session(store, token, NOW)
            assert found
            tokens.append(found.csrf)
        assert tokens[0] == tokens[1] != tokens[2]
        assert len(tokens[0]) == 64

    with_store(body)


async def gets_a_role(store: Store) -> None:
    await set_role(store, "ann", Role.ADMIN, BOSS, NOW)


async def gets_a_password(store: Store) -> None:
    await set_password(store, "ann", "correct horse battery", BOSS, NOW)


async def is_removed(store: Store) -> None:
    await remove_person(store, "ann", BOSS, NOW)


async def is_removed_and_added_again(store: Store) -> None:
    await remove_person(store, "ann", BOSS, NOW)
    await add_person(store, "ann", Role.ADMIN, BOSS, NOW)


async def closes_all(store: Store) -> None:
    await close_all(store, "ann")


@pytest.mark.parametrize("happens", [gets_a_role, gets_a_password, is_removed, is_removed_and_added_again, closes_all])
def test_what_happens_to_a_person_ends_their_sessions_at_once(
    with_store: Run, happens: Callable[[Store], Awaitable[Any]]
) -> None:
    """
    All of theirs and nobody else's; and who was on the way in with what they knew before has to prove it again.
    """

    async def body(store: Store) -> None:
        ann = await add_person(store, "ann", Role.SALES, BOSS, NOW)
        tokens = [await open_session(store, ann, NOW, HERE) for _ in range(3)]
        bob = await signed_in(store, "bob")
        await happens(store)
        assert [await find_session(store, token, NOW) for token in tokens] == [None] * 3
        assert await list_sessions(store, "ann", NOW) == []
        assert await find_session(store, bob, NOW)
        with pytest.raises(NoSuchPerson, match="sign in again"):
            await open_session(store, ann, NOW, HERE)

    with_store(body)


def test_a_role_is_read_from_the_person(with_store: Run) -> None:
    """
    Even were a session to outlive a change of role, it has no rights of its own.
    """

    async def body(store: Store) -> None:
        token = await signed_in(store, role=Role.ADMIN)
        await store.ask("HSET", PEOPLE, "role:ann", "viewer")
        found = await find_session(store, token, NOW)
        assert found
        assert found.role is Role.VIEWER

    with_store(body)


def test_a_person_closes_one_of_their_sessions(with_store: Run) -> None:
    """
    By its place in their list, which has the one used last first; nobody closes another's.
    """

    async def body(store: Store) -> None:
        one = await signed_in(store)
        ann = await read_person(store, "ann")
        assert ann
        two = await open_session(store, ann, NOW + 60, "2001:db8::1 ")
        listed = await list_sessions(store, "ann", NOW + 61)
        assert [(each.opened, each.address) for each in listed] == [(NOW + 60, "2001:db8::1"), (NOW, HERE)]
        assert not await close_one(store, "bob", listed[0].id)
        assert not await close_one(store, "ann", "0" * 64)
        assert await close_one(store, "ann", listed[0].id)
        assert await find_session(store, two, NOW + 62) is None
        assert await find_session(store, one, NOW + 62)
        await close_session(store, one)
        await close_session(store, one)
        assert await find_session(store, one, NOW + 62) is None
        assert await list_sessions(store, "ann", NOW + 62) == []

    with_store(body)


def test_sessions_that_are_over_are_swept_out(with_store: Run) -> None:
    """
    Whoever signs in next takes away those that have ended.
    """

    async def body(store: Store) -> None:
        ann = await add_person(store, "ann", Role.SALES, BOSS, NOW)
        for second in range(50):
            await open_session(store, ann, NOW + second, HERE)
        assert await store.ask("HLEN", sessions.SESSIONS) == 50
        await open_session(store, ann, NOW + IDLE_S + 24.5, HERE)
        assert await store.ask("HLEN", sessions.SESSIONS) == 26

    with_store(body)
