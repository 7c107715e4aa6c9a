"""Signing in through an OpenID Connect provider, a real one on loopback."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from adserver.console import audit, signin
from adserver.console.audit import Actor
from adserver.console.people import (
    PEOPLE,
    Role,
    add_person,
    list_people,
    read_person,
    remove_person,
    set_role,
)
from adserver.console.sessions import find_session, open_session
from adserver.console.signin import (
    Begun,
    Provider,
    ProviderUnavailable,
    Refused,
    SignedIn,
    begin,
    finish,
    open_provider,
)
from adserver.secret import BadSecret
from adserver.settings import Settings
from adserver.store import Store
from tests.console.conftest import Run
from tests.console.provider import CLIENT, SECRET, Running, running_provider

HERE = "192.0.2.7"
BASE = "https://ads.courier.example"


@pytest.fixture(scope="module")
def process() -> Iterator[Running]:
    with running_provider() as running:
        yield running


@pytest.fixture
def idp(process: Running) -> Running:
    process.does()
    return process


@pytest.fixture
def settings(idp: Running, tmp_path: Path) -> Settings:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "secret").chmod(0o600)
    return Settings(
        oidc_issuer=idp.url,
        oidc_client_id=CLIENT,
        oidc_client_secret_file=str(tmp_path / "secret"),
        oidc_domains="courier.example Herald.example",
        public_url=BASE,
    )


@pytest.fixture
def ours(settings: Settings) -> Provider:
    found = open_provider(settings)
    assert found
    return found


async def begun(store: Store, ours: Provider, now: float | None = None) -> Begun:
    found = await begin(store, ours, HERE, now or time.time(), "/console/calendar")
    assert isinstance(found, Begun)
    return found


async def goes(store: Store, ours: Provider, idp: Running, now: float | None = None, **more: str) -> SignedIn | Refused:
    """A browser signs in."""
    first = await begun(store, ours)
    return await finish(store, ours, {**idp.lets_in(first.url), **more}, first.binding, HERE, now or time.time())


async def why(store: Store) -> str:
    """What the log says of the newest refusal."""
    newest = (await audit.read(store, 1)).entries[0].entry
    assert newest.what == "fails to sign in"
    return newest.detail


def test_a_person_of_the_domain_signs_in(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    They get the role that the settings give, a session, and are sent where they wanted to go.
    """

    async def body(store: Store) -> None:
        found = await goes(store, ours, idp)
        assert isinstance(found, SignedIn)
        assert (found.person.name, found.person.role, found.return_to) == (
            "ann@courier.example", Role.VIEWER, "/console/calendar",
        )  # fmt: skip
        assert not found.person.has_password
        session = await find_session(store, found.token, time.time())
        assert session
        assert session.name == "ann@courier.example"
        await set_role(store, "ann@courier.example", Role.SALES, Actor("boss"), time.time())
        again = await goes(store, ours, idp)
        assert isinstance(again, SignedIn)
        assert again.person.role is Role.SALES
        entries = [(one.entry.what, one.entry.detail) for one in (await audit.read(store)).entries]
        assert entries == [
            ("signs in", "by provider"),
            ("sets role", "from viewer to sales"),
            ("signs in", "for the first time, as viewer"),
        ]

    with_store(body)


def test_what_the_browser_is_sent_with(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    The code flow with PKCE, state and nonce, back to our own address; no secret of ours is in it.
    """

    async def body(store: Store) -> None:
        one, two = await begun(store, ours), await begun(store, ours)
        first, second = (
            {name: values[0] for name, values in parse_qs(urlsplit(each.url).query).items()} for each in (one, two)
        )
        assert one.url.startswith(f"{idp.url}/authorize?")
        assert first["response_type"] == "code"
        assert first["client_id"] == CLIENT
        assert first["redirect_uri"] == f"{BASE}/console/signin/callback"
        assert first["scope"] == "openid email"
        assert first["code_challenge_method"] == "S256"
        for name in ("state", "nonce", "code_challenge"):
            assert len(first[name]) == 43
            assert first[name] != second[name]
        assert one.binding not in one.url
        assert SECRET not in one.url
        assert SECRET not in repr(ours)

    with_store(body)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"])
def test_each_of_our_algorithms_is_taken(with_store: Run, idp: Running, ours: Provider, algorithm: str) -> None:
    """
    With the key that the token names, among others of all kinds that we cannot use.
    """
    idp.does(algorithm=algorithm, header={"x5t": "x", "vendor": "z"})

    async def body(store: Store) -> None:
        assert isinstance(await goes(store, ours, idp), SignedIn)

    with_store(body)


BELIEVED = "cannot be believed"
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"claims": {"aud": "somebody-else"}}, BELIEVED, "aud"),
    ({"claims": {"aud": [CLIENT, "somebody-else"]}}, BELIEVED, "another client's"),
    ({"claims": {"aud": [CLIENT, "somebody-else"], "azp": "somebody-else"}}, BELIEVED, "another client's"),
    ({"claims": {"azp": "somebody-else"}}, BELIEVED, "another client's"),
    ({"claims": {"aud": None}}, BELIEVED, "aud"),
    ({"claims": {"iss": "https://evil.example"}}, BELIEVED, "iss"),
    ({"claims": {"iss": None}}, BELIEVED, "iss"),
    ({"times": {"exp": -61}}, BELIEVED, "expired"),
    ({"claims": {"exp": None}}, BELIEVED, "exp"),
    ({"claims": {"exp": "tomorrow"}}, BELIEVED, "exp"),
    ({"times": {"iat": 3600}}, BELIEVED, "future"),
    ({"times": {"nbf": 3600}}, BELIEVED, "not yet valid"),
    ({"claims": {"nonce": "x" * 43}}, BELIEVED, "nonce"),
    ({"claims": {"nonce": None}}, BELIEVED, "nonce"),
    ({"claims": {"sub": None}}, BELIEVED, "sub"),
    ({"claims": {"sub": "x" * 256}}, BELIEVED, "sub"),
    ({"algorithm": "none"}, BELIEVED, "not among ours"),
    ({"algorithm": "HS256"}, BELIEVED, "not among ours"),
    ({"algorithm": "RS512"}, BELIEVED, "not among ours"),
    ({"key": "another"}, BELIEVED, "signature"),
    ({"header": {"kid": "unknown"}}, BELIEVED, "key"),
    ({"header": {"kid": "o"}}, BELIEVED, "key"),
    ({"header": {"kid": "ec1"}}, BELIEVED, "key"),
    ({"header": {"kid": None}}, BELIEVED, "key"),
    ({"claims": {"email_verified": False}}, "not verified", "not verified"),
    ({"claims": {"email_verified": "true"}}, "not verified", "not verified"),
    ({"claims": {"email_verified": None, "xms_edov": True}}, "not verified", "not verified"),
    ({"claims": {"email": None}}, "did not tell", "no email"),
    ({"claims": {"email": "ann"}}, "did not tell", "no email"),
    ({"claims": {"email": ["ann@courier.example"]}}, "did not tell", "no email"),
    ({"claims": {"email": "an\u212a@courier.example"}}, "did not tell", "no email"),
    ({"claims": {"email": "ann@evil.example"}}, "not of a domain", "evil.example"),
    ({"claims": {"email": "ann@sub.courier.example"}}, "not of a domain", "sub.courier.example"),
    ({"claims": {"email": "ann@evil.example@courier.example"}}, "as a name", "name"),
    ({"claims": {"email": "ann\nboss@courier.example"}}, "as a name", "name"),
]


@pytest.mark.parametrize(("told", "reason", "detail"), WRONG)
def test_what_is_not_right_lets_nobody_in(
    with_store: Run, idp: Running, ours: Provider, told: dict[str, Any], reason: str, detail: str
) -> None:
    """
    The person is told in a sentence, the log says what it was; nobody is added and no session is opened.
    """
    idp.does(**told)

    async def body(store: Store) -> None:
        found = await goes(store, ours, idp)
        assert isinstance(found, Refused)
        assert reason in found.reason
        assert detail in await why(store)
        assert await list_people(store) == []

    with_store(body)


def test_a_provider_changes_its_keys(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    A token by a new key makes us ask for the keys again, at most twice a minute; the old key is good no more.
    """

    async def body(store: Store) -> None:
        now = time.time()
        assert isinstance(await goes(store, ours, idp, now), SignedIn)
        idp.does(rotate=True)
        assert isinstance(await goes(store, ours, idp, now + 31), SignedIn)
        assert idp.asked()["/keys"] == 1
        idp.does(header={"kid": "unknown"})
        for _ in range(5):
            assert isinstance(await goes(store, ours, idp, now + 32), Refused)
        assert "/keys" not in idp.asked()
        idp.does()
        assert isinstance(await goes(store, ours, idp, now + 33), SignedIn)
        assert "/keys" not in idp.asked()

    with_store(body)


def test_a_sign_in_belongs_to_one_browser_and_is_good_once(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    Another browser cannot finish it nor use it up; who began it can, once, within 10 minutes.
    """

    async def body(store: Store) -> None:
        mine, theirs = await begun(store, ours), await begun(store, ours)
        query = idp.lets_in(mine.url)
        now = time.time()
        for binding in (theirs.binding, "", "x", mine.binding[:-1], mine.binding + "A"):
            found = await finish(store, ours, query, binding, HERE, now)
            assert isinstance(found, Refused)
            assert "another browser" in found.reason
        assert isinstance(await finish(store, ours, query, mine.binding, HERE, now), SignedIn)
        again = await finish(store, ours, query, mine.binding, HERE, now)
        assert isinstance(again, Refused)
        assert "another browser" in again.reason, "the provider is not even asked"
        late = await begun(store, ours, now - 600)
        assert isinstance(await finish(store, ours, idp.lets_in(late.url), late.binding, HERE, now), Refused)
        assert isinstance(await finish(store, ours, {}, late.binding, HERE, now), Refused)

    with_store(body)


def test_a_sign_in_under_way_is_forgotten_by_itself(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    After 10 minutes; neither the state nor the cookie's value is kept in the clear.
    """

    async def body(store: Store) -> None:
        first = await begun(store, ours)
        state = parse_qs(urlsplit(first.url).query)["state"][0]
        key = signin._key(state, first.binding)
        assert 540 < await store.ask("PTTL", key) / 1000 <= 600
        kept = f"{key} {await store.ask('GET', key)}"
        assert state not in kept
        assert first.binding not in kept

    with_store(body)


def test_a_code_of_another_sign_in_is_worth_nothing(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    The provider refuses a code without the verifier it was asked for with; its words are not passed on.
    """

    async def body(store: Store) -> None:
        mine, theirs = await begun(store, ours), await begun(store, ours)
        query = {**idp.lets_in(mine.url), "code": idp.lets_in(theirs.url)["code"]}
        found = await finish(store, ours, query, mine.binding, HERE, time.time())
        assert isinstance(found, Refused)
        assert await why(store) == "the token endpoint answers 400: error is 'invalid_grant'"
        assert "secret words" not in found.reason

    with_store(body)


def test_the_provider_says_no(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    So do we; and an answer in another provider's name is not looked at.
    """

    async def body(store: Store) -> None:
        first = await begun(store, ours)
        query = idp.lets_in(first.url)
        del query["code"]
        found = await finish(store, ours, {**query, "error": "access_denied"}, first.binding, HERE, time.time())
        assert isinstance(found, Refused)
        assert "did not let you in" in found.reason
        assert "access_denied" in await why(store)
        assert isinstance(await goes(store, ours, idp, iss="https://evil.example"), Refused)
        assert isinstance(await goes(store, ours, idp, iss=idp.url), SignedIn)

    with_store(body)


def test_an_issuer_that_promises_to_name_itself_has_to(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    Where the provider says that its answers carry its name, one without is refused.
    """
    idp.does(metadata={"authorization_response_iss_parameter_supported": True})

    async def body(store: Store) -> None:
        assert isinstance(await goes(store, ours, idp), Refused)
        assert isinstance(await goes(store, ours, idp, iss=idp.url), SignedIn)

    with_store(body)


def test_only_people_who_were_added_where_the_settings_say_so(
    with_store: Run, idp: Running, settings: Settings
) -> None:
    """
    With the role none the provider proves who somebody is, and an admin says who may come.
    """
    ours = open_provider(msgspec.structs.replace(settings, oidc_role="none", oidc_domains=""))
    assert ours

    async def body(store: Store) -> None:
        found = await goes(store, ours, idp)
        assert isinstance(found, Refused)
        assert "added you" in found.reason
        await add_person(store, "ann@courier.example", Role.ADMIN, Actor("boss"), time.time())
        again = await goes(store, ours, idp)
        assert isinstance(again, SignedIn)
        assert again.person.role is Role.ADMIN

    with_store(body)


def test_an_address_that_passes_on_does_not_pass_on_the_account(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    The provider's own id for a person counts as well, until an admin removes them here; another provider starts anew.
    """

    async def body(store: Store) -> None:
        assert isinstance(await goes(store, ours, idp), SignedIn)
        idp.does(claims={"sub": "subject-2"})
        found = await goes(store, ours, idp)
        assert isinstance(found, Refused)
        assert "another account" in found.reason
        await remove_person(store, "ann@courier.example", Actor("boss"), time.time())
        assert isinstance(await goes(store, ours, idp), SignedIn)
        await store.ask("HSET", PEOPLE, "subject:ann@courier.example", "https://earlier.example subject-1")
        assert isinstance(await goes(store, ours, idp), SignedIn)

    with_store(body)


def test_signing_in_ends_the_browsers_old_session(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    Whoever's it was.
    """

    async def body(store: Store) -> None:
        eve = await add_person(store, "eve", Role.VIEWER, Actor("boss"), time.time())
        old = await open_session(store, eve, time.time(), HERE)
        first = await begun(store, ours)
        query = idp.lets_in(first.url)
        assert isinstance(await finish(store, ours, query, first.binding, HERE, time.time(), old), SignedIn)
        assert await find_session(store, old, time.time()) is None

    with_store(body)


@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/keys", "/token"])
@pytest.mark.parametrize("wrong", ["redirect", "large", "words", 500])
def test_a_provider_that_answers_otherwise_is_told(
    with_store: Run, idp: Running, ours: Provider, path: str, wrong: str | int
) -> None:
    """
    No redirect is followed, no endless answer read, nothing but what the standard says is taken; nobody gets in.
    """
    idp.does(wrong={path: wrong})

    async def body(store: Store) -> None:
        if path == "/token" and wrong in ("redirect", "words"):
            assert isinstance(await goes(store, ours, idp), Refused)
        else:
            with pytest.raises(ProviderUnavailable, match="sign-in provider") as raised:
                await goes(store, ours, idp)
            assert "never-shown" not in str(raised.value)
        assert "/elsewhere" not in idp.asked()
        assert await list_people(store) == []
        idp.does()
        assert isinstance(await goes(store, ours, idp), SignedIn)

    with_store(body)


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"issuer": "https://evil.example"}, "calls itself 'https://evil.example'"),
        ({"token_endpoint": "ftp://x/y"}, "expected https"),
        ({"jwks_uri": None}, "cannot be read"),
    ],
)
def test_a_provider_that_describes_itself_otherwise_is_told(
    with_store: Run, idp: Running, ours: Provider, metadata: dict[str, Any], says: str
) -> None:
    """
    Its name is exactly the configured one, and its endpoints are addresses.
    """
    idp.does(metadata=metadata)

    async def body(store: Store) -> None:
        with pytest.raises(ProviderUnavailable, match=says):
            await begin(store, ours, HERE, time.time())

    with_store(body)


def test_a_provider_that_is_away_is_told(with_store: Run, settings: Settings) -> None:
    """
    Nothing listens there.
    """
    ours = open_provider(msgspec.structs.replace(settings, oidc_issuer="http://127.0.0.1:9"))
    assert ours

    async def body(store: Store) -> None:
        with pytest.raises(ProviderUnavailable, match="cannot be asked"):
            await begin(store, ours, HERE, time.time())

    with_store(body)


def test_what_the_provider_says_of_itself_is_kept_for_an_hour(with_store: Run, idp: Running, ours: Provider) -> None:
    """
    A sign-in costs one request to it, not three.
    """

    async def body(store: Store) -> None:
        for _ in range(3):
            assert isinstance(await goes(store, ours, idp), SignedIn)
        asked = idp.asked()
        assert (asked["/.well-known/openid-configuration"], asked["/keys"], asked["/token"]) == (1, 1, 3)
        await begun(store, ours, time.time() + 3600)
        assert idp.asked()["/.well-known/openid-configuration"] == 2

    with_store(body)


CLAIMS = {"sub": "1", "email": "ann@courier.example"}


@pytest.mark.parametrize(
    ("issuer", "claims", "let_in"),
    [
        ("https://accounts.google.com", {"email_verified": True, "hd": "courier.example"}, True),
        ("https://accounts.google.com", {"email_verified": True}, False),
        ("https://accounts.google.com", {"email_verified": False, "hd": "courier.example"}, False),
        ("https://login.microsoftonline.com/t/v2.0", {"xms_edov": True}, True),
        ("https://login.microsoftonline.com/t/v2.0", {"xms_edov": "1"}, True),
        ("https://login.microsoftonline.com/t/v2.0", {"xms_edov": "0"}, False),
        ("https://login.microsoftonline.com/t/v2.0", {}, False),
        ("https://keycloak.courier.example/realms/news", {"email_verified": True}, True),
        ("https://keycloak.courier.example/realms/news", {"xms_edov": True}, False),
    ],
)
def test_who_answers_for_an_address(issuer: str, claims: dict[str, Any], let_in: bool) -> None:
    """
    Google for the accounts an organisation manages, Entra where it knows the domain's owner, others by the standard.
    """
    ours = Provider(issuer, CLIENT, "", BASE, frozenset({"courier.example"}), None)
    if let_in:
        assert signin._name_in(ours, {**CLAIMS, **claims}) == "ann@courier.example"
    else:
        with pytest.raises(signin._NotBelieved):
            signin._name_in(ours, {**CLAIMS, **claims})


def test_without_settings_there_is_no_provider(settings: Settings, tmp_path: Path) -> None:
    """
    And a secret that everybody can read, or that is none, is refused in words.
    """
    assert open_provider(Settings()) is None
    path = tmp_path / "secret"
    path.chmod(0o644)
    with pytest.raises(BadSecret, match="chmod 600"):
        open_provider(settings)
    path.chmod(0o600)
    for wrong in ("", "two words", "a\x07b"):
        path.write_text(wrong)
        with pytest.raises(BadSecret, match="expected"):
            open_provider(settings)
    path.unlink()
    with pytest.raises(BadSecret, match="cannot be read"):
        open_provider(settings)


def test_a_public_client_proves_itself_by_the_verifier_alone(with_store: Run, idp: Running, settings: Settings) -> None:
    """
    Without a secret file none is sent; this provider knows us by one, so it refuses.
    """
    ours = open_provider(msgspec.structs.replace(settings, oidc_client_secret_file=None))
    assert ours

    async def body(store: Store) -> None:
        assert isinstance(await goes(store, ours, idp), Refused)
        assert "invalid_grant" in await why(store)

    with_store(body)


def test_basic_and_post_are_both_spoken(with_store: Run, idp: Running, settings: Settings, tmp_path: Path) -> None:
    """
    Whichever way of bringing the secret the provider understands.
    """

    async def body(store: Store) -> None:
        for methods in (["client_secret_basic"], ["client_secret_post"], ["private_key_jwt", "client_secret_basic"]):
            idp.does(metadata={"token_endpoint_auth_methods_supported": methods})
            ours = open_provider(settings)
            assert ours
            assert isinstance(await goes(store, ours, idp), SignedIn)
        person = await read_person(store, "ann@courier.example")
        assert person

    with_store(body)
