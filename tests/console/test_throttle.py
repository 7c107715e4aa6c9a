"""How often somebody may try to sign in, and signing in itself."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from adserver.console import audit
from adserver.console.audit import Actor
from adserver.console.login import Refused, SignedIn, log_in, log_out
from adserver.console.people import Role, add_person
from adserver.console.sessions import find_session
from adserver.console.throttle import PER_ADDRESS, Try, Wait, _keys, attempt, beginning, succeeded
from adserver.errors import StoreUnavailable
from adserver.store import Store
from tests.console.conftest import Run

NOW = 1_772_000_000.25
PASSWORD = "correct horse battery"
HERE = "192.0.2.7"


async def tries(store: Store, many: int, name: str = "ann", address: str = HERE, now: float = NOW) -> list[Try | Wait]:
    return [await attempt(store, name, address, now + n / 1000) for n in range(many)]


async def at_once(commands: Iterable[Awaitable[Any]]) -> list[Any]:
    return await asyncio.gather(*commands, return_exceptions=True)


async def wait_of(store: Store, now: float, name: str = "ann", address: str = HERE) -> int:
    found = await attempt(store, name, address, now)
    return found.seconds if isinstance(found, Wait) else 0


def test_the_sixth_try_waits_and_each_wait_is_twice_as_long(with_store: Run) -> None:
    """
    30 seconds, 60, 120 and so on up to 15 minutes; a try during a wait neither counts nor makes it longer.
    """

    async def body(store: Store) -> None:
        assert all(isinstance(one, Try) for one in await tries(store, 5))
        now, waits = NOW + 1, []
        for _ in range(8):
            found = await wait_of(store, now)
            waits.append(round(found, -1))
            assert await wait_of(store, now) == found
            now += found
            assert await wait_of(store, now) == 0
        assert waits == [30, 60, 120, 240, 480, 900, 900, 900]

    with_store(body)


def test_tries_of_more_than_a_quarter_of_an_hour_ago_are_forgotten(with_store: Run) -> None:
    """
    One try every 4 minutes never waits; after 15 quiet minutes a long wait begins at 30 seconds again.
    """

    async def body(store: Store) -> None:
        for n in range(12):
            assert await wait_of(store, NOW + n * 240) == 0
        await tries(store, 8, "bob")
        assert await wait_of(store, NOW + 1, "bob") > 25
        later = NOW + 30 + 900 + 1
        assert all(isinstance(one, Try) for one in await tries(store, 5, "bob", now=later))
        assert await wait_of(store, later + 1, "bob") in (29, 30)

    with_store(body)


def test_an_address_waits_after_twenty_accounts(with_store: Run) -> None:
    """
    Whoever they are tried for; another address does not, and of IPv6 a /64 is one address.
    """

    async def body(store: Store) -> None:
        for address, same, other in (
            (HERE, "::ffff:192.0.2.7", "192.0.2.8"),
            ("2001:db8::1", "2001:db8:0:0:ffff::9", "2001:db8:0:1::1"),
            ("unix:", "", "203.0.113.9"),
        ):
            for n in range(PER_ADDRESS):
                assert await wait_of(store, NOW, f"{address} person {n}", address) == 0
            assert await wait_of(store, NOW, "somebody else", same) == 30
            assert await wait_of(store, NOW, "somebody else", other) == 0

    with_store(body)


def test_forty_tries_at_once_are_not_forty_tries(with_store: Run) -> None:
    """
    Each is charged before its password is looked at; every spelling of a name is the same account.
    """

    async def body(store: Store) -> None:
        while any(isinstance(one, StoreUnavailable) for one in await at_once(store.ask("PING") for _ in range(40))):
            pass  # a busy machine takes its time to open forty connections
        spellings = ["ann", "ANN", " ann ", "aNn"]
        found = await asyncio.gather(*(attempt(store, spellings[n % 4], f"198.51.100.{n}", NOW) for n in range(40)))
        assert sum(isinstance(one, Try) for one in found) == 5

    with_store(body)


def test_a_success_clears_the_account_and_takes_its_charge_back(with_store: Run) -> None:
    """
    An office of a hundred behind one address signs in; but right passwords do not clear what wrong ones cost it.
    """

    async def body(store: Store) -> None:
        for n in range(100):
            tried = await attempt(store, f"person {n}", HERE, NOW)
            assert isinstance(tried, Try)
            await succeeded(store, tried, NOW)
        for n in range(PER_ADDRESS - 1):
            assert isinstance(await attempt(store, f"other {n}", HERE, NOW), Try)
            mine = await attempt(store, "mallory", HERE, NOW)
            assert isinstance(mine, Try)
            await succeeded(store, mine, NOW)
        assert isinstance(await attempt(store, "last", HERE, NOW), Try)
        assert await wait_of(store, NOW, "mallory") == 30
        for _ in range(3):
            await tries(store, 4, "eve", "198.51.100.1")
            right = await attempt(store, "eve", "198.51.100.1", NOW)
            assert isinstance(right, Try)
            await succeeded(store, right, NOW)

    with_store(body)


def test_counts_are_forgotten_by_the_store_itself(with_store: Run) -> None:
    """
    Half an hour after the last try; the name that was tried is not kept.
    """

    async def body(store: Store) -> None:
        await attempt(store, "a-name-somebody-typed", HERE, NOW)
        for key in _keys("a-name-somebody-typed", HERE):
            assert 1_740 < await store.ask("PTTL", key) / 1000 <= 1_800
            assert "somebody" not in key

    with_store(body)


def test_signing_in_and_out(with_store: Run) -> None:
    """
    The right password opens a session; each step is in the log.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, Actor("boss"), NOW, PASSWORD)
        first = await log_in(store, "Ann", PASSWORD, HERE, NOW)
        assert isinstance(first, SignedIn)
        assert first.person.name == "ann"
        second = await log_in(store, "ann", PASSWORD, HERE, NOW, first.token)
        assert isinstance(second, SignedIn)
        assert await find_session(store, first.token, NOW) is None
        assert await find_session(store, second.token, NOW)
        await log_out(store, second.token, HERE, NOW)
        await log_out(store, second.token, HERE, NOW)
        assert await find_session(store, second.token, NOW) is None
        told = [(one.entry.who, one.entry.what) for one in (await audit.read(store)).entries]
        assert told[:3] == [("ann", "signs out"), ("ann", "signs in"), ("ann", "signs in")]

    with_store(body)


def test_the_right_password_is_refused_while_one_has_to_wait(with_store: Run) -> None:
    """
    And taken when the wait is over.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, Actor("boss"), NOW, PASSWORD)
        for _ in range(5):
            assert await log_in(store, "ann", "a wrong password", HERE, NOW) == Refused()
        assert await log_in(store, "ann", PASSWORD, "198.51.100.1", NOW + 1) == Wait(29)
        assert isinstance(await log_in(store, "ann", PASSWORD, HERE, NOW + 30), SignedIn)
        assert await log_in(store, "ann", "a wrong password", HERE, NOW + 31) == Refused()

    with_store(body)


def test_no_answer_tells_whether_an_account_exists(with_store: Run) -> None:
    """
    The same refusals and the same waits in the same order; the log does not keep what nobody is called, for it may be
    a password in the wrong field.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, Actor("boss"), NOW, PASSWORD)
        answers = {}
        for number, name in enumerate(("ann", "hunter2-hunter2", "not\0a name")):
            answers[name] = [
                await log_in(store, name, "a wrong password", f"198.51.100.{number}", NOW + n) for n in range(7)
            ]
        assert answers["ann"] == [Refused()] * 5 + [Wait(29), Wait(28)]
        assert len({str(one) for one in answers.values()}) == 1
        entries = [one.entry for one in (await audit.read(store)).entries]
        assert {one.subject for one in entries} == {"ann", "a name nobody has"}
        assert "hunter2" not in str(entries)
        assert "wrong" not in str(entries)

    with_store(body)


def test_an_address_begins_so_many_sign_ins_through_a_provider(with_store: Run) -> None:
    """
    What is kept of those that never come back is bounded.
    """

    async def body(store: Store) -> None:
        assert [await beginning(store, HERE, NOW + n / 100, 600) for n in range(100)] == [None] * 100
        assert await beginning(store, HERE, NOW + 1, 600) == Wait(599)
        assert await beginning(store, "192.0.2.8", NOW + 1, 600) is None
        assert await beginning(store, HERE, NOW + 600, 600) is None
        assert 540 < await store.ask("PTTL", f"as:{{console}}:begun:{HERE}") / 1000 <= 600

    with_store(body)
