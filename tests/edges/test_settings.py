"""Settings: flags before environment before defaults, and a sentence for everything that cannot be."""

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis.asyncio.connection import parse_url

from adserver.settings import PREFIX, BadSetting, Settings, descriptions, read_settings, unknown_variables
from adserver.store_url import parse_store_url

OIDC = {"oidc_issuer": "https://login.example/realm", "oidc_client_id": "adserver", "oidc_domains": "courier.example"}


def test_every_setting_is_described() -> None:
    """
    `serve --help` has a sentence, a type and a default for each, and its variable is documented by it.
    """
    found = descriptions()

    assert list(found) == list(Settings.__struct_fields__)
    assert all(len(about) > 10 and about[-1] != "." for about, _, _ in found.values())
    assert {name: default for name, (_, _, default) in found.items()} == msgspec.structs.asdict(Settings())


def test_flags_come_before_the_environment_and_that_before_defaults() -> None:
    """
    An empty variable and a flag that was not given say nothing.
    """
    environ = {"ADSERVER_PORT": "9000", "ADSERVER_HOST": "10.0.0.1", "ADSERVER_DATA_DIR": "", "PORT": "1"}

    found = read_settings(environ, {"port": "9001", "host": None})

    assert (found.port, found.host, found.data_dir, found.workers) == (9001, "10.0.0.1", "var", None)


def test_the_environment_of_a_worker_means_the_same() -> None:
    """
    What the supervisor hands down is read back as it was, for every kind of value.
    """
    whole = Settings(
        host="::1", port=1, ops_port=2, workers=3, config="a", data_dir="b", watch=True, redis_url="redis://localhost",
        redis_insecure=True, public_url="https://ads.example", secret_file="c", log_format="json", grace_s=0.5,
    )  # fmt: skip
    for settings in (Settings(), whole):
        assert read_settings(settings.environment()) == settings


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "eighty", "expected"),
        ("port", "70000", "65535"),
        ("port", "-1", ">= 0"),
        ("port", "８０", "expected"),
        ("workers", "0", ">= 1"),
        ("workers", "1e3", "expected"),
        ("grace_s", "nan", ">= 0"),
        ("grace_s", "inf", "<= 3600"),
        ("request_timeout_s", "0", ">= 0.01"),
        ("log_format", "xml", "xml"),
        ("watch", "perhaps", "bool"),
        ("connections", "0", ">= 1"),
    ],
)
def test_a_bad_value_names_its_variable_and_flag(name: str, value: str, says: str) -> None:
    """
    One sentence: where, what is wrong, what was expected; the same from a flag.
    """
    for environ, flags in (({PREFIX + name.upper(): value}, None), ({}, {name: value})):
        with pytest.raises(BadSetting) as raised:
            read_settings(environ, flags)
        assert str(raised.value).startswith(f"{PREFIX}{name.upper()} (--{name.replace('_', '-')}): ")
        assert says.lower() in str(raised.value).lower()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"public_url": "javascript:alert(1)"}, "PUBLIC_URL"),
        ({"trusted_proxies": "10.0.0.0/8 300.1.1.1/99"}, "TRUSTED_PROXIES"),
        ({"allowed_hosts": "http://ads.example.com"}, "ALLOWED_HOSTS"),
        ({"public_url": "https://ads.example/ x"}, "PUBLIC_URL"),
        ({"ops_port": "8000"}, "the same as ADSERVER_PORT"),
        ({"trusted_proxies": "10.0.0.0/8 *"}, "believes everybody"),
        ({"redis_url": "localhost:6379"}, "expected redis://"),
        ({"redis_url": "http://localhost"}, "expected redis://"),
        ({"redis_url": "redis://[::1"}, "cannot be read"),
        ({"redis_url": "redis://localhost:99999"}, "cannot be read"),
        ({"redis_url": "redis://localhost:abc"}, "cannot be read"),
        ({"redis_url": "redis://localhost?decode_responses=true"}, "decode_responses"),
        ({"redis_url": "rediss://u:p@h?ssl_cert_reqs=none"}, "ssl_cert_reqs"),
        ({"redis_url": "redis://localhost?socket_timeout=x"}, "socket_timeout"),
        ({"oidc_client_id": "adserver"}, "set both, or neither"),
        ({**OIDC, "oidc_issuer": "http://login.example"}, "OIDC_ISSUER"),
        ({**OIDC, "oidc_issuer": "http://127.0.0.1.evil.example"}, "OIDC_ISSUER"),
        ({**OIDC, "oidc_issuer": "https://login.example?tenant=1"}, "OIDC_ISSUER"),
        ({**OIDC, "oidc_issuer": "login.example"}, "OIDC_ISSUER"),
        ({**OIDC, "oidc_client_id": ""}, "OIDC_CLIENT_ID"),
        ({**OIDC, "oidc_client_id": "two words"}, "OIDC_CLIENT_ID"),
        ({**OIDC, "oidc_domains": "@courier.example"}, "OIDC_DOMAINS"),
        ({**OIDC, "oidc_domains": ""}, "ADSERVER_OIDC_ROLE=none"),
        ({**OIDC, "oidc_role": "admin"}, "OIDC_ROLE"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(given: dict[str, str], says: str) -> None:
    """
    A URL that is none, ports that collide, a proxy list that believes everybody, options that change the protocol.
    """
    with pytest.raises(BadSetting, match=says.replace("?", r"\?")):
        read_settings({PREFIX + name.upper(): value for name, value in given.items()})


@pytest.mark.parametrize("more", [{}, {"oidc_domains": "", "oidc_role": "none"}, {"oidc_role": "sales"}])
def test_a_sign_in_provider_is_named(more: dict[str, str]) -> None:
    """
    By its issuer, our id there, and whose people may come: a domain's, or only who was added.
    """
    given = {**OIDC, **more}
    found = read_settings({PREFIX + name.upper(): value for name, value in given.items()})
    assert found.oidc_issuer == "https://login.example/realm"
    assert found.oidc_role == more.get("oidc_role", "viewer")
    for url in ("http://127.0.0.1:8080", "http://localhost:8080/realms/news", "http://[::1]:8080"):
        assert read_settings({}, {**given, "oidc_issuer": url}).oidc_issuer == url


@pytest.mark.parametrize(
    ("url", "insecure", "allowed"),
    [
        ("redis://localhost:6379/0", False, True),
        ("redis://127.0.0.1", False, True),
        ("redis://[::1]:6379", False, True),
        ("unix:///run/redis.sock?db=1", False, True),
        ("rediss://user:secret@redis.example:6380/0", False, True),
        ("rediss://:secret@redis.example", False, True),
        ("rediss://redis.example", False, False),
        ("redis://:secret@redis.example", False, False),
        ("redis://redis.example", False, False),
        ("redis://127.0.0.1.evil.example", False, False),
        ("redis://redis.example", True, True),
    ],
)
def test_another_machine_needs_a_password_and_tls(url: str, insecure: bool, allowed: bool) -> None:
    """
    Anybody on the way could change counts otherwise; one setting allows it on a network that is trusted.
    """
    environ = {"ADSERVER_REDIS_URL": url, "ADSERVER_REDIS_INSECURE": "1" if insecure else "0"}
    if allowed:
        assert read_settings(environ).store_url == url
    else:
        with pytest.raises(BadSetting, match="REDIS_INSECURE") as raised:
            read_settings(environ)
        assert "secret" not in str(raised.value)


def test_a_password_is_not_shown() -> None:
    """
    Neither by the settings' repr nor by the message about a URL that cannot be read.
    """
    settings = Settings(redis_url="rediss://user:sesame@redis.example")
    assert "sesame" not in f"{settings!r} {settings}"
    with pytest.raises(BadSetting) as raised:
        read_settings({"ADSERVER_REDIS_URL": "rediss://user:sesame@redis.example:99999"})
    assert "sesame" not in str(raised.value)


def test_a_slip_of_the_pen_is_noticed() -> None:
    """
    Each ADSERVER_ variable that is no setting is named, with the setting it resembles.
    """
    sentences = unknown_variables({"ADSERVER_PROT": "1", "ADSERVER_PORT": "1", "ADSERVER_QQQ": "", "HOME": "/"})

    assert sentences == [
        "ADSERVER_PROT is not a setting; did you mean ADSERVER_PORT?",
        "ADSERVER_QQQ is not a setting",
    ]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"host": "0.0.0.0", "port": 9}, "http://localhost:9"),
        ({"host": "::"}, "http://localhost:8000"),
        ({"host": "::1"}, "http://[::1]:8000"),
        ({"public_url": "https://ads.example/x/"}, "https://ads.example/x"),
    ],
)
def test_urls_in_snippets_begin_with_the_public_address(given: dict[str, Any], url: str) -> None:
    """
    What was set, else what is listened on, in a form a browser on this machine can open.
    """
    assert Settings(**given).base_url == url


def test_a_socket_path_is_never_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    In a deep data directory the embedded store's socket moves below /tmp; the same place each time, whoever asks.
    """
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    short, deep = Settings(data_dir="/srv/var"), Settings(data_dir=str(tmp_path / ("x" * 120)))

    assert short.store_socket == Path("/srv/var/valkey/valkey.sock")
    assert len(str(deep.store_socket)) <= 103
    assert deep.store_socket == Settings(data_dir=deep.data_dir).store_socket
    assert deep.store_socket.parent.parent == Path("/tmp")
    assert deep.store_socket != Settings(data_dir=deep.data_dir + "y").store_socket


@pytest.mark.parametrize("name", ["var", "my data", "100%20", "a?db=3", "a#b", "séjour"])
def test_the_embedded_store_is_reached_whatever_the_directory_is_called(name: str) -> None:
    """
    The URL that the client is given leads to the socket's path, letter for letter.
    """
    settings = Settings(data_dir=f"/srv/{name}")
    parse_store_url(settings.store_url)

    assert parse_url(settings.store_url)["path"] == str(settings.store_socket)
