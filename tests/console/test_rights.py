"""What the store's user needs to be allowed for the console."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from adserver.console import api_tokens, audit, links, login, people, sessions, signin
from adserver.console.audit import Actor
from adserver.console.people import Role
from adserver.settings import Settings
from adserver.store import Store, open_store
from tests.console.provider import CLIENT, Running, running_provider
from tests.edges.conftest import KINDS
from tests.edges.servers import several
from tests.edges.test_store_moves import documented_rules

NOW = 1_772_000_000.25
PASSWORD = "correct horse battery"
BOSS = Actor("boss")


@dataclass
class Everything:
    store: Store
    idp: Running

    async def is_done(self) -> None:
        """Each of the console's ways to the store, once."""
        link = await links.first_start(self.store, "https://ads.example", NOW)
        assert link
        token = link.rpartition("/")[2]
        assert await links.find_link(self.store, token, NOW)
        await links.use_link(self.store, token, PASSWORD, NOW)
        await people.add_person(self.store, "ann", Role.SALES, BOSS, NOW)
        await people.set_role(self.store, "ann", Role.ADMIN, BOSS, NOW)
        await people.set_password(self.store, "ann", PASSWORD, BOSS, NOW)
        await links.make_link(self.store, "ann", BOSS, NOW)
        assert isinstance(await login.log_in(self.store, "ann", "wrong", "", NOW), login.Refused)
        signed_in = await login.log_in(self.store, "ann", PASSWORD, "", NOW)
        assert isinstance(signed_in, login.SignedIn)
        assert await sessions.find_session(self.store, signed_in.token, NOW + 90)
        (listed,) = await sessions.list_sessions(self.store, "ann", NOW)
        assert await sessions.close_one(self.store, "ann", listed.id)
        await sessions.close_all(self.store, "ann")
        await login.log_out(self.store, signed_in.token, "", NOW)
        api = await api_tokens.make_token(self.store, "ann", "sheet", BOSS, NOW)
        assert await api_tokens.find_token(self.store, api, NOW)
        (one,) = await api_tokens.list_tokens(self.store)
        assert await api_tokens.revoke_token(self.store, "ann", one.id, BOSS, NOW)
        await self.signs_in()
        await people.remove_person(self.store, "ann", BOSS, NOW)
        assert [one.name for one in await people.list_people(self.store)] == ["admin"]
        assert len((await audit.read(self.store)).entries) > 10

    async def signs_in(self) -> None:
        settings = Settings(oidc_issuer=self.idp.url, oidc_client_id=CLIENT, oidc_role="none")
        ours = signin.open_provider(settings)
        assert ours
        begun = await signin.begin(self.store, ours, "", NOW)
        assert isinstance(begun, signin.Begun)
        query = self.idp.lets_in(begun.url)
        assert isinstance(await signin.finish(self.store, ours, query, begun.binding, "", NOW), signin.Refused)


@pytest.mark.parametrize("kind", KINDS)
def test_the_documented_user_may_do_all_that_the_console_needs(kind: str, tmp_path: Path) -> None:
    """
    The ACL line of docs/operations.md is enough.
    """

    async def main(url: str, idp: Running) -> None:
        async with open_store(url) as store:
            await Everything(store, idp).is_done()

    with running_provider() as idp, several(kind, count=1) as ((server,), _):
        rules = documented_rules()
        if not server.ask("COMMAND INFO", "WAITAOF")[0]:
            rules.remove("+waitaof")
        server.ask("ACL SETUSER", "adserver", "on", ">sesame", *rules)
        asyncio.run(main(f"redis://adserver:sesame@127.0.0.1:{server.port}", idp))
