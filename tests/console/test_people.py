"""People, their roles and their passwords."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
from argon2 import PasswordHasher

from adserver.console import audit, people
from adserver.console.audit import Actor
from adserver.console.people import (
    BadName,
    BadPassword,
    BadRole,
    LastAdmin,
    NoSuchPerson,
    PersonExists,
    Role,
    add_person,
    list_people,
    parse_new_password,
    parse_person_name,
    parse_role,
    read_person,
    remove_person,
    set_password,
    set_role,
    verify_password,
)
from adserver.errors import BadPerson, StoreRefused
from adserver.store import Store
from tests.console.conftest import Run

NOW = 1_772_000_000.25
PASSWORD = "correct horse battery"
BOSS = Actor("boss", "192.0.2.7")


async def told(store: Store) -> list[tuple[str, str, str, str]]:
    """The audit log, oldest first."""
    page = await audit.read(store, 100)
    return [(one.entry.who, one.entry.what, one.entry.subject, one.entry.detail) for one in reversed(page.entries)]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("ann", "ann"),
        ("  Ann de Vries ", "ann de vries"),
        ("Ann.Example+Ads@Courier.Example", "ann.example+ads@courier.example"),
        ("Zoe\u0308", "zo\u00eb"),
        ("o'brien_2", "o'brien_2"),
        ("анна", "анна"),
        ("x" * 200, "x" * 200),
    ],
)
def test_a_name_has_one_spelling(given: str, taken: str) -> None:
    """
    Small letters, composed, no blanks at its ends.
    """
    assert parse_person_name(given) == taken
    assert parse_person_name(taken) == taken


@pytest.mark.parametrize(
    "given",
    [
        "", " ", None, 7, b"ann", "x" * 201, "\u0130" * 101, "a\nb", "a\0b", "a\x1bb", "ann\u202e", "a\u200bnn",
        "a\u2028b",
        "a  b", "a\u00a0b", "a@b@c", "@b", "a@", "a b@c", "role:ann", "a/b", "a<b", '"', "'", "...", "\ud800",
        "\uff41nn", "\u212a", "аnn", "a{b}", "a*b", "😀",
    ],
)  # fmt: skip
def test_a_name_that_misleads_or_breaks_something_is_refused(given: object) -> None:
    """
    Nothing unseen, nothing that turns the reading direction, no look-alikes, nothing that means something elsewhere.
    """
    if given == "\u212a":  # the Kelvin sign is composed away: it is a plain k
        assert parse_person_name(given) == "k"
        return
    with pytest.raises(BadName, match="name"):
        parse_person_name(given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("eleven char", "11 characters"),
        ("x" * 201, "201"),
        ("Ann@Courier.Example", "the name"),
        ("ANN.THE.FIRST", "the name"),
        (" ann.the.first", "the name"),
        ("bad \ud800 surrogate", "Unicode"),
        (None, "text"),
    ],
)
def test_a_weak_password_is_refused_without_repeating_it(given: object, says: str) -> None:
    """
    At least 12 characters, at most 200, and not the name or what stands before its '@'.
    """
    name = "ann.the.first@courier.example" if "first" in str(given).lower() else "ann@courier.example"
    with pytest.raises(BadPassword, match=says) as raised:
        parse_new_password(name, given)
    assert str(given) not in str(raised.value)


def test_a_password_is_the_same_from_every_keyboard() -> None:
    """
    Composed and decomposed letters are one password; blanks in it count.
    """
    assert parse_new_password("ann", "cafe\u0301 in the rain") == "caf\u00e9 in the rain"
    assert parse_new_password("ann", " twelve char") == " twelve char"
    assert len(parse_new_password("ann", "x" * 200)) == 200


def test_each_role_includes_those_before_it() -> None:
    """
    A viewer reads, sales also sells, an admin may do everything.
    """
    assert [[one.includes(other) for other in (Role.VIEWER, Role.SALES, Role.ADMIN)] for one in Role] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert parse_role("sales") is Role.SALES
    for wrong in ("Admin", "", None, "owner", ["admin"]):
        with pytest.raises(BadRole, match="viewer, sales or admin"):
            parse_role(wrong)


def test_people_are_added_listed_changed_and_removed(with_store: Run) -> None:
    """
    Everything that is done to them is in the audit log, with who did it and from where.
    """

    async def body(store: Store) -> None:
        assert await list_people(store) == []
        boss = await add_person(store, "Boss", Role.ADMIN, Actor("command line:root"), NOW, PASSWORD)
        ann = await add_person(store, "ann@courier.example", Role.VIEWER, BOSS, NOW + 1)
        assert await list_people(store) == [ann, boss]
        assert await read_person(store, "boss") == boss
        assert await read_person(store, "nobody") is None
        assert (boss.has_password, ann.has_password, ann.last_sign_in, ann.added) == (True, False, None, NOW + 1)
        with pytest.raises(PersonExists, match="ann"):
            await add_person(store, "ANN@courier.example", Role.ADMIN, BOSS, NOW + 2, PASSWORD)
        await set_role(store, ann.name, Role.SALES, BOSS, NOW + 3)
        await set_role(store, ann.name, Role.SALES, BOSS, NOW + 4)
        await set_password(store, ann.name, PASSWORD, BOSS, NOW + 5)
        changed = await read_person(store, ann.name)
        assert changed
        assert (changed.role, changed.has_password, changed.added) == (Role.SALES, True, NOW + 1)
        assert changed.generation != ann.generation
        await remove_person(store, ann.name, BOSS, NOW + 6)
        assert await list_people(store) == [boss]
        for call in (
            set_role(store, ann.name, Role.SALES, BOSS, NOW),
            set_password(store, ann.name, PASSWORD, BOSS, NOW),
            remove_person(store, ann.name, BOSS, NOW),
        ):
            with pytest.raises(NoSuchPerson, match="nobody"):
                await call
        assert await told(store) == [
            ("command line:root", "adds person", "boss", "as admin"),
            ("boss", "adds person", "ann@courier.example", "as viewer"),
            ("boss", "sets role", "ann@courier.example", "from viewer to sales"),
            ("boss", "sets password", "ann@courier.example", ""),
            ("boss", "removes person", "ann@courier.example", ""),
        ]
        first = (await audit.read(store, 1)).entries[0].entry
        assert (first.at, first.address) == (NOW + 6, "192.0.2.7")

    with_store(body)


def test_what_somebody_drafted_goes_with_them(with_store: Run) -> None:
    """
    Whoever gets the name of somebody who was removed begins with nothing of theirs: no draft, no uploaded sheet.
    """

    async def body(store: Store) -> None:
        await add_person(store, "boss", Role.ADMIN, BOSS, NOW)
        for name in ("ann", "bob"):
            await add_person(store, name, Role.SALES, BOSS, NOW)
            await store.ask("HSET", people.DRAFTS, name, b"{}")
            await store.ask("SET", people.sheet_key(name), b"{}")
        await remove_person(store, "ann", BOSS, NOW)
        await add_person(store, "ann", Role.SALES, BOSS, NOW)
        assert await store.ask("HGET", people.DRAFTS, "ann") is None
        assert await store.ask("GET", people.sheet_key("ann")) is None
        assert await store.ask("HGET", people.DRAFTS, "bob") == b"{}"
        assert await store.ask("GET", people.sheet_key("bob")) == b"{}"

    with_store(body)


def test_the_last_admin_stays(with_store: Run) -> None:
    """
    Neither removed nor given a lesser role, even when two admins do it to each other at once.
    """

    async def body(store: Store) -> None:
        await add_person(store, "one", Role.ADMIN, BOSS, NOW)
        await add_person(store, "ann", Role.SALES, BOSS, NOW)
        with pytest.raises(LastAdmin, match="somebody else"):
            await remove_person(store, "one", BOSS, NOW)
        with pytest.raises(LastAdmin, match="another role"):
            await set_role(store, "one", Role.SALES, BOSS, NOW)
        await set_role(store, "one", Role.ADMIN, BOSS, NOW)
        for round_ in range(5):
            await add_person(store, f"two{round_}", Role.ADMIN, BOSS, NOW)
            names = [one.name for one in await list_people(store) if one.role is Role.ADMIN]
            assert len(names) == 2
            calls: list[Any] = [
                remove_person(store, names[0], BOSS, NOW),
                set_role(store, names[1], Role.VIEWER, BOSS, NOW),
            ]
            done = await asyncio.gather(*calls, return_exceptions=True)
            assert sorted(type(one).__name__ for one in done) == ["LastAdmin", "NoneType"]
            assert sum(one.role is Role.ADMIN for one in await list_people(store)) == 1

    with_store(body)


def test_a_password_opens_its_own_account_only(with_store: Run) -> None:
    """
    In any capitals of the name; not with another's, an old or an empty one, nor for somebody who has none.
    """

    async def body(store: Store) -> None:
        ann = await add_person(store, "ann", Role.SALES, BOSS, NOW, PASSWORD)
        await add_person(store, "bob", Role.SALES, BOSS, NOW, "another fine password")
        await add_person(store, "eve", Role.ADMIN, BOSS, NOW)
        assert await verify_password(store, "ann", PASSWORD) == ann
        assert await verify_password(store, " ANN ", PASSWORD) == ann
        wrong: list[tuple[object, object]] = [
            ("ann", ""), ("ann", PASSWORD.upper()), ("ann", PASSWORD + " "), ("bob", PASSWORD), ("eve", ""),
            ("eve", PASSWORD), ("nobody", PASSWORD), ("", ""), ("a\0", PASSWORD), ("ann", "\ud800" * 12),
            ("ann", "x" * 100_000), (None, None), ("role:ann", PASSWORD),
        ]  # fmt: skip
        for name, password in wrong:
            assert await verify_password(store, name, password) is None
        await set_password(store, "ann", "a new password now", BOSS, NOW)
        assert await verify_password(store, "ann", PASSWORD) is None
        assert await verify_password(store, "ann", "a new password now")

    with_store(body)


def test_only_a_hash_by_argon2id_is_kept(with_store: Run) -> None:
    """
    The password is nowhere in the store; the parameters are the library's own.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, BOSS, NOW, PASSWORD)
        kept = (await store.ask("HGET", people.PEOPLE, "password:ann")).decode()
        assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
        everything = str(await store.ask("HGETALL", people.PEOPLE)) + str(await told(store))
        assert "horse" not in everything

    with_store(body)


def test_a_hash_of_older_parameters_is_renewed_when_its_owner_signs_in(with_store: Run) -> None:
    """
    The same password goes on working, sessions do not end, and a wrong password renews nothing.
    """

    async def body(store: Store) -> None:
        before = await add_person(store, "ann", Role.SALES, BOSS, NOW)
        old = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
        await store.ask("HSET", people.PEOPLE, "password:ann", old)
        assert await verify_password(store, "ann", "wrong password") is None
        assert await store.ask("HGET", people.PEOPLE, "password:ann") == old.encode()
        found = await verify_password(store, "ann", PASSWORD)
        assert found
        assert found.generation == before.generation
        new = await store.ask("HGET", people.PEOPLE, "password:ann")
        assert new.startswith(b"$argon2id$v=19$m=65536,t=3,p=4$")
        assert await verify_password(store, "ann", PASSWORD) == found

    with_store(body)


def test_a_name_nobody_has_takes_as_long_as_one_that_is_there(with_store: Run) -> None:
    """
    The work is the same hash for a wrong password, an unknown name, a name that cannot be, and one without password.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, BOSS, NOW, PASSWORD)
        await add_person(store, "bob", Role.SALES, BOSS, NOW)

        async def fastest(name: str, password: str = "a wrong password") -> float:
            taken = []
            for _ in range(6):
                begun = perf_counter()
                assert await verify_password(store, name, password) is None
                taken.append(perf_counter() - begun)
            return min(taken)

        known = await fastest("ann")
        for other in (fastest("nobody"), fastest("a\0b"), fastest("bob"), fastest("ann", "x" * 5000)):
            assert known / 3 < await other < known * 3

    with_store(body)


def test_checking_passwords_does_not_hold_up_the_event_loop(with_store: Run) -> None:
    """
    While ten are checked, the loop goes on turning.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, BOSS, NOW, PASSWORD)
        checks = asyncio.gather(*(verify_password(store, "ann", PASSWORD) for _ in range(10)))
        turns = 0
        while not checks.done():
            await asyncio.sleep(0)
            turns += 1
        assert all(await checks)
        assert turns > 100

    with_store(body)


@pytest.mark.parametrize("spoil", [("role:ann", "owner"), ("added:ann", "yesterday"), ("role:ann", b"\xff")])
def test_a_person_that_cannot_be_read_is_told(with_store: Run, spoil: tuple[str, str]) -> None:
    """
    Another program's data is not taken for a person.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, BOSS, NOW)
        await store.ask("HSET", people.PEOPLE, *spoil)
        calls: list[Callable[[], Any]] = [lambda: list_people(store), lambda: read_person(store, "ann")]
        for call in calls:
            with pytest.raises(StoreRefused, match="cannot read"):
                await call()

    with_store(body)


def test_every_refusal_is_one_kind_of_error() -> None:
    """
    The command line and the pages tell them all alike.
    """
    for one in (BadName, BadPassword, BadRole, PersonExists, NoSuchPerson, LastAdmin):
        assert issubclass(one, BadPerson)
