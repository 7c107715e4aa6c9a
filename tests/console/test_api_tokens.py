"""API tokens."""

import re

import pytest

from adserver.console import audit
from adserver.console.api_tokens import (
    MOST,
    BadLabel,
    Caller,
    TooManyTokens,
    find_token,
    list_tokens,
    make_token,
    revoke_token,
)
from adserver.console.audit import Actor
from adserver.console.people import TOKEN_DAYS, TOKENS, NoSuchPerson, Role, add_person, remove_person, set_role
from adserver.store import Store
from tests.console.conftest import Run

NOW = 1_772_000_000.25
ANN = Actor("ann", "192.0.2.7")


def test_a_token_has_its_persons_rights(with_store: Run) -> None:
    """
    It is shown once, kept as a hash, and follows the person's role from one moment to the next.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, ANN, NOW)
        token = await make_token(store, "ann", " Zoë's  sheet ", ANN, NOW)
        assert re.fullmatch("adt_[A-Za-z0-9_-]{43}", token)
        (listed,) = await list_tokens(store, "ann")
        assert (listed.label, listed.made, listed.last_used) == ("Zoë's  sheet", NOW, None)
        assert await find_token(store, token, NOW) == Caller(
            name="ann", role=Role.SALES, token_id=listed.id, label=listed.label
        )
        await set_role(store, "ann", Role.VIEWER, ANN, NOW)
        found = await find_token(store, token, NOW)
        assert found
        assert found.role is Role.VIEWER
        kept = str(await store.ask("HGETALL", TOKENS)) + str((await audit.read(store)).entries)
        assert token.removeprefix("adt_") not in kept

    with_store(body)


def test_the_day_of_a_tokens_last_use_is_known(with_store: Run) -> None:
    """
    The day alone, so that a program's every call is not a write.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, ANN, NOW)
        token = await make_token(store, "ann", "sheet", ANN, NOW)
        days = []
        for later in (0, 60, 86_400):
            await find_token(store, token, NOW + later)
            days += [one.last_used for one in await list_tokens(store)]
        assert days == ["2026-02-25", "2026-02-25", "2026-02-26"]

    with_store(body)


def test_a_revoked_token_is_none(with_store: Run) -> None:
    """
    Only its owner's name and its id together revoke it; the log says which it was.
    """

    async def body(store: Store) -> None:
        for name in ("ann", "bob"):
            await add_person(store, name, Role.SALES, ANN, NOW)
        token = await make_token(store, "ann", "sheet", ANN, NOW)
        other = await make_token(store, "ann", "other", ANN, NOW + 1)
        ids = {one.label: one.id for one in await list_tokens(store, "ann")}
        assert list(ids) == ["other", "sheet"]
        assert not await revoke_token(store, "bob", ids["sheet"], ANN, NOW)
        assert not await revoke_token(store, "ann", "0" * 16, ANN, NOW)
        await find_token(store, token, NOW)
        assert await revoke_token(store, "ann", ids["sheet"], ANN, NOW)
        assert await find_token(store, token, NOW) is None
        assert await find_token(store, other, NOW)
        assert await store.ask("HLEN", TOKEN_DAYS) == 1
        newest = (await audit.read(store, 1)).entries[0].entry
        assert (newest.who, newest.what, newest.subject, newest.detail) == ("ann", "revokes token", "ann", "sheet")

    with_store(body)


def test_a_removed_persons_tokens_go_with_them(with_store: Run) -> None:
    """
    Also for somebody who gets their name later; other people's stay.
    """

    async def body(store: Store) -> None:
        for name in ("ann", "bob"):
            await add_person(store, name, Role.SALES, ANN, NOW)
        tokens = [await make_token(store, name, "sheet", ANN, NOW) for name in ("ann", "bob", "ann")]
        await remove_person(store, "ann", ANN, NOW)
        await add_person(store, "ann", Role.ADMIN, ANN, NOW)
        found = [await find_token(store, token, NOW) for token in tokens]
        assert [one and one.name for one in found] == [None, "bob", None]
        assert [one.person for one in await list_tokens(store)] == ["bob"]

    with_store(body)


@pytest.mark.parametrize("forged", ["", "adt_", "adt_" + "A" * 43, "A" * 47, "ADT_" + "A" * 43, "adt_" + "é" * 43])
def test_what_was_never_made_lets_nobody_in(with_store: Run, forged: str) -> None:
    """
    Whatever it looks like.
    """

    async def body(store: Store) -> None:
        await add_person(store, "ann", Role.SALES, ANN, NOW)
        await make_token(store, "ann", "sheet", ANN, NOW)
        assert await find_token(store, forged, NOW) is None

    with_store(body)


def test_a_token_needs_an_owner_and_a_name(with_store: Run) -> None:
    """
    A person has at most 50 of them.
    """

    async def body(store: Store) -> None:
        with pytest.raises(NoSuchPerson):
            await make_token(store, "ann", "sheet", ANN, NOW)
        await add_person(store, "ann", Role.SALES, ANN, NOW)
        for label in ("", "a\nb", "x" * 201, "a\u202eb"):
            with pytest.raises(BadLabel, match="name"):
                await make_token(store, "ann", label, ANN, NOW)
        for n in range(MOST):
            await make_token(store, "ann", f"sheet {n}", ANN, NOW)
        with pytest.raises(TooManyTokens, match="50"):
            await make_token(store, "ann", "one more", ANN, NOW)

    with_store(body)
