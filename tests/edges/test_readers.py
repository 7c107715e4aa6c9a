"""What a call says of its reader: device, country and a key, each only where it can be told."""

from pathlib import Path
from struct import pack
from typing import Any

import pytest

from adserver.context import Query, parse_query
from adserver.errors import ConfigError
from adserver.readers import Readers, open_countries

PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile/15E148"
SALT = b"s" * 32


def encode(value: Any) -> bytes:
    """*value* in MaxMind's own coding (maxmind.github.io/MaxMind-DB): small maps, texts, lists and whole numbers."""
    match value:
        case dict():
            return bytes([0xE0 | len(value)]) + b"".join(encode(one) for pair in value.items() for one in pair)
        case str():
            data = value.encode()
            return (bytes([0x40 | len(data)]) if len(data) < 29 else bytes([0x5D, len(data) - 29])) + data
        case list():
            return bytes([len(value), 4]) + b"".join(map(encode, value))
        case int():
            return bytes([0xC4]) + value.to_bytes(4, "big")
    raise TypeError(value)


def countries(path: Path) -> Path:
    """A database in which addresses from 128.0.0.0 up are Dutch and the others are nobody's."""
    found = encode({"country": {"iso_code": "NL"}})
    tree = pack(">I", 1)[1:] + pack(">I", 1 + 16)[1:]  # one node: left is not found, right is the first of the data
    about = {
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1, "ip_version": 4,
        "database_type": "Test-Country", "languages": ["en"], "node_count": 1, "record_size": 24,
        "description": {"en": "test"},
    }  # fmt: skip
    path.write_bytes(tree + bytes(16) + found + b"\xab\xcd\xefMaxMind.com" + encode(about))
    return path


def facts(readers: Readers, query: str = "", client: str = "198.51.100.7", **more: Any) -> set[str]:
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in more.pop("headers", {}).items()]
    scope = {"headers": headers, "client": (client, 5), **more}
    return set(readers.context(parse_query(query.encode()) if query else Query(), scope).facts)


def test_a_device_is_derived_where_the_query_gives_none() -> None:
    """
    By hints, else by name; a template names its reader's browser with `ua`.
    """
    readers = Readers(SALT)
    assert facts(readers, headers={"user_agent": PHONE}) == {"device=mobile"}
    assert facts(readers, headers={"user_agent": PHONE, "sec_ch_ua_mobile": "?0"}) == {"device=desktop"}
    assert facts(readers, "device=tablet", headers={"user_agent": PHONE}) == {"device=tablet"}
    assert facts(readers, f"ua={PHONE.replace(' ', '%20')}", headers={"user_agent": "httpx"}) == {"device=mobile"}
    assert facts(readers, "section=a", headers={"user_agent": "httpx"}) == {"section=a"}


def test_a_country_is_a_trusted_proxys_word() -> None:
    """
    Nobody else's: the same header straight from a client says nothing.
    """
    readers = Readers(SALT, "CF-IPCountry")
    said: dict[str, Any] = {"headers": {"cf_ipcountry": "NL"}}
    assert facts(readers, **said, proxied=True) == {"country=nl"}
    assert facts(readers, "country=de", **said, proxied=True) == {"country=de"}
    assert facts(readers, **said) == set()
    for nowhere in ("XX", "T1", "", "Netherlands", "é1"):
        assert facts(readers, headers={"cf_ipcountry": nowhere}, proxied=True) == set()


def test_a_country_is_found_in_the_newsrooms_own_file(tmp_path: Path) -> None:
    """
    Of public addresses only: a template's call from the same network says nothing of a reader.
    """
    readers = Readers(SALT, country_file=countries(tmp_path / "countries.mmdb"))
    assert facts(readers, client="193.0.6.139") == {"country=nl"}
    for private in ("9.9.9.9", "192.168.1.5", "127.0.0.1", "2001:db8::1", "testclient"):
        assert facts(readers, client=private) == set()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """
    With what was expected.
    """
    (tmp_path / "x.mmdb").write_bytes(b"junk")
    for path in (tmp_path / "x.mmdb", tmp_path / "missing.mmdb"):
        with pytest.raises(ConfigError, match="expected a MaxMind country or city database"):
            open_countries(path)


def test_a_reader_is_known_by_consent_only() -> None:
    """
    Sixteen bytes that say nothing of the key, another salt's are others; without consent, or refused, nobody.
    """
    readers, query = Readers(SALT), parse_query(b"reader=ann&consent=1")
    key = readers.key(query, [])
    assert len(key) == 16
    assert key == Readers(SALT).key(query, [(b"dnt", b"0")])
    assert key != Readers(b"t" * 32).key(query, [])
    assert key != readers.key(parse_query(b"reader=bob&consent=1"), [])
    for nobody in (b"reader=ann", b"reader=ann&consent=0", b"consent=1", b"reader=&consent=1"):
        assert readers.key(parse_query(nobody), []) == b""
    for refusal in (b"sec-gpc", b"dnt"):
        assert readers.key(query, [(refusal, b"1")]) == b""
