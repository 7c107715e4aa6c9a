"""Signing in through an OpenID Connect provider: the authorization code flow with PKCE, state and nonce.

Rules: what the provider says is believed only from an ID token that is signed by one of its keys with an algorithm of
ours, made for us, for this very sign-in, not expired, and about an address that the provider answers for. A person is
known by that address and from then on by the provider's own id for them as well, so that an address that passes on to
somebody else does not pass on the account. A sign-in under way is kept for 10 minutes and only for the browser it
began in. The provider is asked within 5 seconds, without following redirects, and at most half a megabyte is read.
"""

import asyncio
import functools
import ssl
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec
from authlib.oauth2.client import OAuth2Client  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.parameters import prepare_token_request  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError, UnsupportedAlgorithmError
from joserfc.jwk import JWKRegistry, Key, KeySet
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry
from msgspec import Struct

from adserver.console.audit import LOG, Entry, fields
from adserver.console.people import (
    PEOPLE,
    SCRIPT,
    BadName,
    NoSuchPerson,
    Person,
    Role,
    new_generation,
    parse_person_name,
    read_person,
)
from adserver.console.sessions import open_session
from adserver.console.throttle import Wait, beginning
from adserver.console.unguessable import digest, is_secret, new_secret
from adserver.errors import AdserverError
from adserver.secret import BadSecret, read_private
from adserver.settings import Settings
from adserver.store import Store

CALLBACK = "/console/signin/callback"
STATE_S = 600
TIMEOUT_S = 5.0
LEEWAY_S = 60
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
_KEY_TYPES = ("RSA", "EC", "OKP")
_MOST_BYTES = 512 * 1024
_LONGEST_SUBJECT = 255
_FRESH_S = 3600.0
"""How long what the provider says of itself is kept."""
_KEYS_AGAIN_S = 30.0
"""A token by an unknown key makes us ask for the keys again, at most this often."""
_KIND = b"signin"
_GOOGLE = "https://accounts.google.com"
_ENTRA = "https://login.microsoftonline.com/"
T = TypeVar("T")


class ProviderUnavailable(AdserverError):
    """The sign-in provider did not answer, or not as OpenID Connect has it."""


class Begun(Struct, frozen=True):
    """Send the browser to *url*, with *binding* in a cookie (HttpOnly, Secure, SameSite=Lax) for `CALLBACK`."""

    url: str
    binding: str


class SignedIn(Struct, frozen=True):
    """*token* is for the session's cookie; *return_to* is what `begin` was given."""

    token: str
    person: Person
    return_to: str


class Refused(Struct, frozen=True):
    """*reason* is a sentence for the person; *detail* says more, for the log."""

    reason: str
    detail: str = ""


class _Pending(Struct, frozen=True, kw_only=True):
    nonce: str
    verifier: str
    begun: float
    return_to: str


class _Metadata(Struct, frozen=True, kw_only=True):
    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False


class _Jwks(Struct, frozen=True):
    keys: list[dict[str, Any]]


class _Answer(Struct, frozen=True):
    id_token: str


class _Allowed(JWSRegistry):
    """Only our algorithms; headers that say nothing to us are passed over, as the standard has it."""

    def __init__(self) -> None:
        super().__init__(algorithms=ALGORITHMS, strict_check_header=False)

    def get_alg(self, name: str) -> Any:
        # The library's own would warn at each EdDSA token that the name, not the algorithm, is going out of use.
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"the algorithm {name!r:.40} is not among ours")
        return self.algorithms[name]


class _NotBelieved(Exception):
    """An ID token, or a person in it, is not accepted; the reason is a sentence, the detail for the log."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Provider:
    """A sign-in provider, and what it says of itself. One for a process; `open_provider` makes it."""

    def __init__(
        self, issuer: str, client_id: str, secret: str, callback: str, domains: frozenset[str], role: Role | None
    ) -> None:
        self.issuer = issuer
        self.callback = callback
        self.domains = domains
        self.role = role
        self.client_id = client_id
        self._secret = secret
        self._metadata: _Metadata | None = None
        self._keys: KeySet | None = None
        self._asked = self._asked_keys = float("-inf")

    def __repr__(self) -> str:
        known = "asked" if self._metadata else "not asked yet"
        return f"<Provider {self.issuer} for {self.client_id!r}, {known}, {len(list(self._keys or []))} keys>"

    async def metadata(self, now: float) -> _Metadata:
        """Its endpoints. Raises ProviderUnavailable."""
        if self._metadata is None or not 0 <= now - self._asked < _FRESH_S:
            found = await _get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration", _Metadata)
            if found.issuer != self.issuer:
                raise ProviderUnavailable(
                    f"the sign-in provider calls itself {found.issuer!r:.200}, not {self.issuer!r}; set "
                    "ADSERVER_OIDC_ISSUER to exactly what it says"
                )
            for url in (found.authorization_endpoint, found.token_endpoint, found.jwks_uri):
                _check_url(url, self.issuer)
            self._metadata, self._asked = found, now
        return self._metadata

    async def keys(self, now: float, *, again: bool = False) -> KeySet:
        """Its keys, asked for *again* when a token names one we do not know. Raises ProviderUnavailable."""
        age = now - self._asked_keys
        if self._keys is None or not 0 <= age < _FRESH_S or (again and age >= _KEYS_AGAIN_S):
            found = await _get((await self.metadata(now)).jwks_uri, _Jwks)
            self._keys, self._asked_keys = KeySet(_usable(found.keys)), now
        return self._keys

    def client(self, metadata: _Metadata) -> Any:
        """The flow's own knowledge of what to send; it does not send it."""
        supported = metadata.token_endpoint_auth_methods_supported
        method = "client_secret_post" if "client_secret_post" in supported else "client_secret_basic"
        return OAuth2Client(
            None,
            client_id=self.client_id,
            client_secret=self._secret,
            token_endpoint_auth_method=method if self._secret else "none",
            scope="openid email",
            redirect_uri=self.callback,
            code_challenge_method="S256",
        )


def open_provider(settings: Settings) -> Provider | None:
    """The provider the settings name, if they do; it is asked nothing yet. Raises BadSecret."""
    if not settings.oidc_issuer:
        return None
    secret = ""
    if settings.oidc_client_secret_file:
        secret = read_private(settings.oidc_client_secret_file)
        if not secret or not secret.isprintable() or " " in secret:
            raise BadSecret(f"{settings.oidc_client_secret_file}: expected the client's secret, without blanks")
    return Provider(
        settings.oidc_issuer,
        settings.oidc_client_id,
        secret,
        settings.base_url + CALLBACK,
        frozenset(domain.lower() for domain in settings.oidc_domains.split()),
        None if settings.oidc_role == "none" else Role(settings.oidc_role),
    )


# The two steps


async def begin(store: Store, provider: Provider, address: str, now: float, return_to: str = "") -> Begun | Wait:
    """Where to send a browser that wants to sign in. Raises ProviderUnavailable."""
    if (wait := await beginning(store, address, now, STATE_S)) is not None:
        return wait
    metadata = await provider.metadata(now)
    state, binding = new_secret(), new_secret()
    pending = _Pending(nonce=new_secret(), verifier=new_secret(), begun=now, return_to=return_to)
    url, _ = provider.client(metadata).create_authorization_url(
        metadata.authorization_endpoint, state=state, code_verifier=pending.verifier, nonce=pending.nonce
    )
    await store.ask("SET", _key(state, binding), msgspec.json.encode(pending), "EX", STATE_S)
    return Begun(url, binding)


async def finish(
    store: Store,
    provider: Provider,
    query: Mapping[str, str],
    binding: str,
    address: str,
    now: float,
    old: str = "",
) -> SignedIn | Refused:
    """What came of it, from the callback's *query* and the cookie's *binding*; ends the browser's *old* session.

    Raises ProviderUnavailable.
    """
    pending = await _take(store, query.get("state", ""), binding, now)
    if pending is None:
        return Refused("This sign-in took too long, or began in another browser. Please sign in again.")
    metadata = await provider.metadata(now)
    try:
        said = query.get("iss")
        if said != provider.issuer and (said is not None or metadata.authorization_response_iss_parameter_supported):
            raise _NotBelieved("The answer came from another sign-in provider.", f"iss is {said!r:.200}")
        if "code" not in query:
            raise _NotBelieved("The sign-in provider did not let you in.", f"error is {query.get('error')!r:.200}")
        said_of_them = await _exchange(provider, metadata, query["code"], pending.verifier)
        claims = await _believe(provider, said_of_them, pending.nonce, now)
        name = _name_in(provider, claims)
        person = await _welcome(store, provider, name, claims["sub"], address, now)
        token = await open_session(store, person, now, address, old)
    except _NotBelieved as error:
        await store.ask("XADD", LOG, "*", *fields(_failure(error, address, now)))
        return Refused(error.reason, error.detail)
    except NoSuchPerson as error:
        return Refused(str(error))
    return SignedIn(token, person, pending.return_to)


def _failure(error: _NotBelieved, address: str, now: float) -> Entry:
    return Entry(at=now, who="", what="fails to sign in", subject="by provider", detail=error.detail, address=address)


def _key(state: str, binding: str) -> str:
    """Both are in the key's name: with another browser's cookie there is nothing to find, or to use up."""
    return f"as:{{console}}:signin:{digest(_KIND, state + binding)}"


async def _take(store: Store, state: str, binding: str, now: float) -> _Pending | None:
    if not is_secret(state) or not is_secret(binding):
        return None
    found = await store.ask("GETDEL", _key(state, binding))
    pending = msgspec.json.decode(found, type=_Pending) if found else None
    return pending if pending and now < pending.begun + STATE_S else None


async def _exchange(provider: Provider, metadata: _Metadata, code: str, verifier: str) -> str:
    client = provider.client(metadata)
    body = prepare_token_request(
        "authorization_code", code=code, redirect_uri=provider.callback, code_verifier=verifier
    )
    headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
    auth = client.client_auth(client.token_endpoint_auth_method)
    url, headers, body = auth.prepare("POST", metadata.token_endpoint, headers, body)
    status, content = await _ask("POST", url, headers=headers, content=body)
    if status >= 500:
        raise ProviderUnavailable(f"the sign-in provider answers with status {status}")
    try:
        return msgspec.json.decode(content, type=_Answer).id_token
    except msgspec.DecodeError:
        raise _NotBelieved(
            "The sign-in provider did not let you in.", f"the token endpoint answers {status}: {_error_in(content)}"
        ) from None


def _error_in(content: bytes) -> str:
    """The standard's `error`, and nothing else: an answer may hold tokens."""
    try:
        return f"error is {msgspec.json.decode(content, type=dict[str, Any]).get('error')!r:.100}"
    except msgspec.DecodeError:
        return "no JSON"


async def _believe(provider: Provider, token: str, nonce: str, now: float) -> dict[str, Any]:
    """The claims of *token*, if all about it is right. Raises _NotBelieved or ProviderUnavailable."""
    try:
        try:
            claims = jwt.decode(token, await provider.keys(now), registry=_Allowed()).claims
        except InvalidKeyIdError:  # the provider has changed its keys since
            claims = jwt.decode(token, await provider.keys(now, again=True), registry=_Allowed()).claims
        JWTClaimsRegistry(
            now=int(now),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": provider.issuer},
            aud={"essential": True, "value": provider.client_id},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        ).validate(claims)
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise _NotBelieved("The sign-in provider's answer cannot be believed.", f"ID token: {error}") from None
    audience, party = claims["aud"], claims.get("azp")
    if party not in (None, provider.client_id) or (isinstance(audience, list) and len(audience) > 1 and party is None):
        raise _NotBelieved("The sign-in provider's answer cannot be believed.", "ID token: it is another client's")
    if len(claims["sub"]) > _LONGEST_SUBJECT:
        raise _NotBelieved("The sign-in provider's answer cannot be believed.", "ID token: sub is too long")
    return claims


def _name_in(provider: Provider, claims: dict[str, Any]) -> str:
    """The address that the provider answers for. Raises _NotBelieved."""
    email = claims.get("email")
    if not isinstance(email, str) or "@" not in email or not email.isascii():
        raise _NotBelieved("The sign-in provider did not tell your e-mail address.", "ID token: no email")
    verified = claims.get("email_verified") is True
    if provider.issuer.startswith(_ENTRA):  # its own claim for the same; the standard's it never sends
        verified = verified or claims.get("xms_edov") in (True, 1, "1", "true")
    if not verified:
        raise _NotBelieved("The sign-in provider has not verified your e-mail address.", "ID token: email not verified")
    domain = email.rpartition("@")[2].lower()
    if provider.issuer == _GOOGLE and domain != "gmail.com" and not claims.get("hd"):
        # Verified once, when the account was made: its holder may have left the domain since.
        raise _NotBelieved("Your Google account is not managed by your organisation.", "ID token: no hd")
    if provider.domains and domain not in provider.domains:
        raise _NotBelieved("Your e-mail address is not of a domain that may sign in here.", f"domain {domain!r:.100}")
    try:
        return parse_person_name(email)
    except BadName as error:
        raise _NotBelieved("Your e-mail address cannot be used as a name here.", str(error)) from None


_WELCOME = f"""{SCRIPT}
local subject, issuer = ARGV[2] .. ' ' .. ARGV[3], ARGV[2] .. ' '
if not get('role') then
  if ARGV[4] == '' then return 'nobody' end
  set('role', ARGV[4])
  set('added', ARGV[5])
  set('generation', ARGV[6])
  set('subject', subject)
  note(7, 'for the first time, as ' .. ARGV[4])
  return 'done'
end
local known = get('subject')
if known and known ~= subject and string.sub(known, 1, #issuer) == issuer then return 'other' end
set('subject', subject)
note(7)
return 'done'
"""


async def _welcome(store: Store, provider: Provider, name: str, subject: str, address: str, now: float) -> Person:
    """Who *name* is, added if that is allowed. Raises _NotBelieved."""
    entry = Entry(at=now, who=name, what="signs in", detail="by provider", address=address)
    role = provider.role.value if provider.role else ""
    reply = await store.ask(
        "EVAL", _WELCOME, 2, PEOPLE, LOG,
        name, provider.issuer, subject, role, f"{now:.3f}", new_generation(), *fields(entry),
    )  # fmt: skip
    person = await read_person(store, name) if reply == b"done" else None
    if reply == b"other":
        raise _NotBelieved(
            "This e-mail address belonged to another account at the sign-in provider. Ask an admin to remove that "
            "person here first.",
            f"{name!r} has another subject",
        )
    if person is None:
        raise _NotBelieved("Nobody has added you here yet. Ask an admin.", f"{name!r} is not among the people")
    return person


# Asking the provider


def _check_url(url: str, issuer: str) -> None:
    scheme = urlsplit(url).scheme
    if scheme != "https" and not (scheme == "http" and issuer.startswith("http://")):
        raise ProviderUnavailable(f"the sign-in provider names the endpoint {url!r:.200}; expected https://")


def _usable(found: list[dict[str, Any]]) -> list[Key]:
    """The keys we can check signatures with; a provider may publish others."""
    keys = []
    for one in found:
        if one.get("kty") in _KEY_TYPES and one.get("use", "sig") == "sig":
            try:
                keys.append(JWKRegistry.import_key(one))
            except (JoseError, ValueError, TypeError, KeyError):
                continue
    return keys


async def _get(url: str, type_: type[T]) -> T:
    status, content = await _ask("GET", url, headers={"accept": "application/json"})
    if status != 200:
        raise ProviderUnavailable(f"the sign-in provider answers {url} with status {status}")
    try:
        return msgspec.json.decode(content, type=type_)
    except msgspec.DecodeError as error:
        raise ProviderUnavailable(f"the sign-in provider's {url} cannot be read: {error}") from None


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once, and beside the event loop: reading the root certificates takes 30 ms."""
    return httpx.create_ssl_context()


async def _ask(method: str, url: str, **request: Any) -> tuple[int, bytes]:
    content, tls = b"", await asyncio.to_thread(_tls)
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(verify=tls, timeout=TIMEOUT_S, follow_redirects=False) as client,
            client.stream(method, url, **request) as response,
        ):
            async for part in response.aiter_bytes():
                content += part
                if len(content) > _MOST_BYTES:
                    raise ProviderUnavailable(f"the sign-in provider's {url} is larger than {_MOST_BYTES:,} bytes")
            return response.status_code, content
    except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
        raise ProviderUnavailable(
            f"the sign-in provider cannot be asked at {url}: {str(error) or type(error).__name__}"
        ) from None
