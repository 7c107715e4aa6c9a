"""What a delivery call says of its reader besides its query: device, country, and whether they may be told apart.

A country is what a trusted proxy says, or what the newsroom's own MaxMind file says of a public address; a call that a
template makes from the newsroom's own network has neither. A reader is a key that the site chooses, never kept as it
is: what leaves this module is a hash with the signing keys' salt. Without a key, without consent, or with `Sec-GPC` or
`DNT` there is no reader.
"""

import hashlib
import ipaddress
from functools import lru_cache
from pathlib import Path

import maxminddb

from adserver.answers import Client, Headers, Scope
from adserver.context import Query
from adserver.devices import device_of
from adserver.errors import ConfigError, Problem
from adserver.targeting import Context

_WANTED = frozenset((b"user-agent", b"sec-ch-ua-mobile", b"sec-ch-ua-platform"))
_ALIKE = 65_536


class Readers:
    """For one worker. *salt* makes keys of readers unlike those of any other service."""

    def __init__(self, salt: bytes, country_header: str = "", country_file: Path | None = None) -> None:
        self._salt = salt
        self._header = country_header.lower().encode()
        self._countries = open_countries(country_file) if country_file else None

    def context(self, query: Query, scope: Scope) -> Context:
        """The query's context, with device and country where it does not give them."""
        known = query.context
        given = {fact.partition("=")[0] for fact in known.facts}
        facts = set(known.facts)
        if "device" not in given and (device := self._device(query, scope["headers"])):
            facts.add(f"device={device}")
        if "country" not in given and (
            country := self._country(scope["headers"], scope["client"], proxied=scope.get("proxied", False))
        ):
            facts.add(f"country={country}")
        return known if len(facts) == len(known.facts) else Context(frozenset(facts), known.path, known.address)

    def key(self, query: Query, headers: Headers) -> bytes:
        """Who reads, as 16 bytes; empty when nobody may know."""
        if not query.reader or not agrees(query, headers):
            return b""
        return hashlib.blake2s(query.reader.encode(), digest_size=16, key=self._salt, person=b"reader").digest()

    def _device(self, query: Query, headers: Headers) -> str:
        if query.user_agent:
            return device_of(query.user_agent)
        found = {name: value.decode("latin-1") for name, value in headers if name in _WANTED}
        hints = found.get(b"sec-ch-ua-mobile", ""), found.get(b"sec-ch-ua-platform", "")
        return device_of(found.get(b"user-agent", ""), *hints)

    def _country(self, headers: Headers, client: Client, *, proxied: bool) -> str:
        if client is None:
            return ""
        if self._header and proxied:
            for name, value in headers:
                if name == self._header:
                    return _code(value.decode("latin-1"))
        return _find_country(self._countries, client[0]) if self._countries else ""


def agrees(query: Query, headers: Headers) -> bool:
    """Whether the page says that its reader consented, and their browser does not say otherwise."""
    return query.consent and not refuses(headers)


REFUSALS = (b"sec-gpc", b"dnt")


def refuses(headers: Headers) -> bool:
    """Whether the reader's browser asks not to be told apart (w3c.github.io/gpc; DNT as it was)."""
    return any(name in REFUSALS and value.strip() == b"1" for name, value in headers)


def open_countries(path: Path) -> maxminddb.Reader:
    """A country or city database. Raises ConfigError."""
    try:
        found = maxminddb.open_database(path, maxminddb.MODE_MMAP)
    except (OSError, maxminddb.InvalidDatabaseError, ValueError) as error:
        what = f"cannot be used: {error}; expected a MaxMind country or city database (.mmdb)"
        raise ConfigError([Problem(str(path), what)]) from None
    return found


@lru_cache(_ALIKE)
def _find_country(countries: maxminddb.Reader, address: str) -> str:
    try:
        if not ipaddress.ip_address(address).is_global:
            return ""
        found = countries.get(address)
    except (ValueError, maxminddb.InvalidDatabaseError):
        return ""
    country = found.get("country") if isinstance(found, dict) else None
    code = country.get("iso_code") if isinstance(country, dict) else None
    return _code(code) if isinstance(code, str) else ""


def _code(text: str) -> str:
    """Two letters; what proxies say of addresses they cannot place (XX, T1) is no country."""
    code = text.strip().lower()
    return code if len(code) == 2 and code.isascii() and code.isalpha() and code not in ("xx", "zz") else ""
