"""The environment, read once into one frozen struct. Every flag of `serve` is also a variable `ADSERVER_…`."""

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from adserver.errors import AdserverError, ConfigError
from adserver.fields import parse_url
from adserver.networks import Networks, parse_networks
from adserver.retention import Rules
from adserver.store_url import parse_store_url

PREFIX = "ADSERVER_"
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(?::[0-9]{1,5})?", re.ASCII)
_LOOPBACK = r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?"
_ISSUER = re.compile(rf"(?:https://[^/?#@\s]{{1,255}}|{_LOOPBACK})(?:/[^?#\s]{{0,500}})?", re.ASCII)
_CLIENT = re.compile(r"[!-~]{1,300}", re.ASCII)
_DOMAIN = re.compile(r"(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{2,63}", re.ASCII)
_LONGEST_SOCKET = 103  # sun_path has 104 bytes on macOS, 108 on Linux


RECEIPT_BYTES = 60
"""What a receipt takes on disk, and less: see tests/edges/test_keeping.py."""


class BadSetting(AdserverError):
    """A flag or variable that cannot be used as it is."""


class Settings(Struct, frozen=True, kw_only=True):
    """What ops decide. The descriptions are the manual: `adserver serve --help` prints them."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8000
    ops_port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(description="move /metrics, /readyz, /openapi.json, /api/report and /api/explain to a port of their own"),
    ] = None
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None, Meta(description="worker processes; default: the cores")
    ] = None
    config: Annotated[str, Meta(description="directory of *.toml files that an empty store is seeded from")] = "config"
    data_dir: Annotated[
        str, Meta(description="directory of ours alone: journals, catalog snapshot, signing keys, embedded store")
    ] = "var"
    watch: Annotated[bool, Meta(description="publish the config directory whenever a file in it is saved")] = False
    redis_url: Annotated[
        str | None,
        Meta(
            description="store to count in: redis://, rediss:// (TLS), unix://, redis+sentinel://HOST:PORT,…/NAME or "
            "redis+cluster://HOST:PORT,…; default: an embedded Valkey"
        ),
    ] = None
    redis_insecure: Annotated[
        bool, Meta(description="allow a store on another machine without password or without TLS")
    ] = False
    public_url: Annotated[
        str | None, Meta(description="base of the URLs in snippets; default: http://HOST:PORT as listened on")
    ] = None
    allowed_origins: Annotated[
        str, Meta(description="origins, separated by blanks, whose pages may fetch ads by script (CORS)")
    ] = ""
    allowed_hosts: Annotated[
        str, Meta(description="hosts, separated by commas, that a request may name in an absolute address")
    ] = ""
    trusted_proxies: Annotated[
        str, Meta(description="addresses or networks, separated by blanks, whose X-Forwarded-For is believed")
    ] = ""
    country_header: Annotated[
        str, Meta(description="header in which a trusted proxy names the reader's country, such as CF-IPCountry")
    ] = ""
    country_file: Annotated[
        str | None, Meta(description="MaxMind country or city database (.mmdb) of the newsroom's own")
    ] = None
    rate_per_minute: Annotated[
        int, Meta(ge=0, description="most events a minute one worker counts of a /24 or /48 of readers; 0: no limit")
    ] = 0
    staff_addresses: Annotated[
        str, Meta(description="our own addresses or networks, separated by blanks, whose events are not counted")
    ] = ""
    address_list_file: Annotated[
        str | None, Meta(description="file of addresses or networks, one a line, whose events are not counted")
    ] = None
    secret_file: Annotated[
        str | None, Meta(description="signing keys, a line each: id, blank, 64 hex digits; default: DATA_DIR/keys")
    ] = None
    staff_token_file: Annotated[
        str | None, Meta(description="file with the token that previews need; default: DATA_DIR/staff-token")
    ] = None
    receipt_days: Annotated[
        float, Meta(ge=0, le=400, description="days that what decisions were made of is kept for receipts; 0: none")
    ] = 30.0
    receipt_mb: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="most megabytes of receipts on this machine, the oldest go first; default: what these days "
            "take, of so many a second of each worker, at 60 bytes each"
        ),
    ] = None
    receipts_per_second: Annotated[
        int,
        Meta(ge=0, description="most decisions a second of one worker that get a receipt; of more an even sample does"),
    ] = 20
    archive_url: Annotated[
        str | None,
        Meta(
            description="where closed days are kept, file:///… or s3://… and the like; default: DATA_DIR/archive.sqlite"
        ),
    ] = None
    seal_after_h: Annotated[
        float, Meta(ge=0, le=720, description="hours a day stays open after the last of its tokens has expired")
    ] = 20.0
    seal_wait_h: Annotated[
        float, Meta(ge=0, le=720, description="hours a day waits for a journal that is away, then closes without it")
    ] = 72.0
    keep_journal_h: Annotated[
        float, Meta(ge=0, le=8760, description="hours a journal's segment is kept at least, closed and archived or not")
    ] = 48.0
    quarantine_days: Annotated[
        float, Meta(ge=1, le=36, description="days after which a segment that turns up is set aside and not counted")
    ] = 30.0
    keep_counts_days: Annotated[
        float, Meta(ge=40, le=4000, description="days the store keeps a closed day's totals; the archive keeps them on")
    ] = 400.0
    oidc_issuer: Annotated[
        str, Meta(description="sign-in provider of the console, an OpenID Connect issuer such as https://login.example")
    ] = ""
    oidc_client_id: Annotated[str, Meta(description="what the sign-in provider knows this service by")] = ""
    oidc_client_secret_file: Annotated[
        str | None, Meta(description="file with the secret that the sign-in provider gave this service; default: none")
    ] = None
    oidc_domains: Annotated[
        str, Meta(description="domains, separated by blanks, whose e-mail addresses may sign in by the provider")
    ] = ""
    oidc_role: Annotated[
        Literal["viewer", "sales", "none"],
        Meta(description="role of people who sign in by the provider for the first time; none: only who was added"),
    ] = "viewer"
    log_format: Annotated[Literal["text", "json"], Meta(description="log lines to read, or to collect")] = "text"
    access_log: Annotated[bool, Meta(description="log every request, with the address truncated")] = False
    grace_s: Annotated[float, Meta(ge=0, le=3600, description="seconds a stop may take to answer and to count")] = 20.0
    request_timeout_s: Annotated[
        float, Meta(ge=0.01, le=600, description="seconds a request may take to arrive, headers and body")
    ] = 5.0
    connections_per_address: Annotated[
        int, Meta(ge=0, description="most connections of one address to one worker; 0: no limit")
    ] = 0
    connections: Annotated[int, Meta(ge=1, description="most connections to one worker; over it: 503")] = 10_000

    def __repr__(self) -> str:  # the store's URL may hold a password
        return f"<Settings of {self.data_dir!r}, port {self.port}>"

    @property
    def data(self) -> Path:
        return Path(self.data_dir)

    @property
    def receipts(self) -> Path:
        """Where receipts are kept."""
        return self.data / "receipts"

    @property
    def receipt_bytes(self) -> int:
        """How much room they may take on this machine."""
        if self.receipt_mb is not None:
            return self.receipt_mb * 1_000_000
        a_second = self.receipts_per_second * (self.workers or cores())
        return int(self.receipt_days * 86_400 * a_second * RECEIPT_BYTES)

    @property
    def journals(self) -> Path:
        return self.data / "journal"

    @property
    def rules(self) -> Rules:
        return Rules(
            seal_after_s=self.seal_after_h * 3600,
            seal_wait_s=self.seal_wait_h * 3600,
            keep_journal_s=self.keep_journal_h * 3600,
            quarantine_s=self.quarantine_days * 86400,
            keep_counts_s=self.keep_counts_days * 86400,
        )

    @property
    def store_url(self) -> str:
        return self.redis_url or f"unix://{quote(os.fsencode(self.store_socket))}"

    @property
    def store_socket(self) -> Path:
        """The embedded store's socket: in the data directory, unless that path is longer than a socket's may be.

        Then it is below /tmp and not below TMPDIR, which may itself be deep, and which a command asked in another shell
        may have of its own.
        """
        path = (self.data / "valkey" / "valkey.sock").absolute()
        if len(os.fsencode(path)) <= _LONGEST_SOCKET:
            return path
        name = hashlib.blake2s(os.fsencode(path), digest_size=8).hexdigest()
        return Path(f"/tmp/adserver-{os.getuid()}-{name}/valkey.sock")  # noqa: S108 - refused unless it is ours alone

    @property
    def staff(self) -> Networks:
        """Raises ConfigError."""
        return parse_networks(("ADSERVER_STAFF_ADDRESSES", one) for one in self.staff_addresses.split())

    @property
    def base_url(self) -> str:
        """What URLs in snippets begin with; no slash at the end."""
        if self.public_url:
            return self.public_url.rstrip("/")
        host = "localhost" if self.host in ("0.0.0.0", "::", "") else self.host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """These settings as the variables that `read_settings` reads: how the workers get them."""
        values = msgspec.structs.asdict(self)
        return {PREFIX + name.upper(): _spell(value) for name, value in values.items() if value is not None}


def _spell(value: object) -> str:
    return ("1" if value else "0") if isinstance(value, bool) else str(value)


def descriptions() -> dict[str, tuple[str, Any, Any]]:
    """Each setting's description, type and default."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = msgspec.structs.asdict(Settings())
    return {
        name: (hints[name].__metadata__[0].description, hints[name].__origin__, defaults[name])
        for name in Settings.__struct_fields__
    }


def read_settings(environ: Mapping[str, str], flags: Mapping[str, object] | None = None) -> Settings:
    """The settings: *flags* before the environment before the defaults. Raises BadSetting."""
    given: dict[str, object] = {}
    for name in Settings.__struct_fields__:
        value = environ.get(PREFIX + name.upper(), "")
        if value != "":
            given[name] = value
    given.update({name: value for name, value in (flags or {}).items() if value is not None})
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        field = str(error).rsplit("$.", 1)[-1].rstrip("`")
        variable = PREFIX + field.upper()
        raise BadSetting(f"{variable} (--{field.replace('_', '-')}): {str(error).split(' - at')[0]}") from None
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if settings.public_url:
        try:
            parse_url(settings.public_url)
        except ValueError as error:
            raise BadSetting(f"ADSERVER_PUBLIC_URL {error}") from None
    if settings.ops_port is not None and settings.ops_port == settings.port:
        raise BadSetting("ADSERVER_OPS_PORT is the same as ADSERVER_PORT; give it a port of its own")
    if "*" in settings.trusted_proxies.split():
        raise BadSetting("ADSERVER_TRUSTED_PROXIES is '*', which believes everybody; name your proxies' networks")
    for proxy in settings.trusted_proxies.split():
        try:
            ip_network(proxy, strict=False)
        except ValueError:
            raise BadSetting(
                f"ADSERVER_TRUSTED_PROXIES names {proxy!r:.60}; expected an address or a network"
            ) from None
    if settings.country_header and not re.fullmatch(r"[A-Za-z0-9-]{1,100}", settings.country_header):
        raise BadSetting(f"ADSERVER_COUNTRY_HEADER is {settings.country_header!r:.60}; expected the name of a header")
    if settings.country_header and not settings.trusted_proxies:
        raise BadSetting("ADSERVER_COUNTRY_HEADER is believed of ADSERVER_TRUSTED_PROXIES only; name them, too")
    try:
        settings.staff  # noqa: B018  # it is looked at when it is asked for
    except ConfigError as error:
        raise BadSetting(str(error)) from None
    for host in settings.allowed_hosts.split(","):
        if host.strip() and not _HOST.fullmatch(host.strip()):
            raise BadSetting(f"ADSERVER_ALLOWED_HOSTS names {host!r:.60}; expected hosts such as ads.example.com:8000")
    if settings.archive_url is not None and not re.match("[a-z][a-z0-9+.-]*://", settings.archive_url):
        raise BadSetting("ADSERVER_ARCHIVE_URL: expected file:///…, or an object store such as s3://bucket/path")
    if settings.redis_url:
        _check_redis_url(settings)
    _check_oidc(settings)


def _check_oidc(settings: Settings) -> None:
    issuer = settings.oidc_issuer
    if not issuer:
        if settings.oidc_client_id:
            raise BadSetting("ADSERVER_OIDC_CLIENT_ID is set without ADSERVER_OIDC_ISSUER; set both, or neither")
        return
    if not _ISSUER.fullmatch(issuer):
        raise BadSetting(
            f"ADSERVER_OIDC_ISSUER is {issuer!r:.80}; expected the provider's https:// address without '?' and '#', "
            "exactly as its discovery document says it (http:// on this machine only)"
        )
    if not _CLIENT.fullmatch(settings.oidc_client_id):
        raise BadSetting("ADSERVER_OIDC_CLIENT_ID: expected the client's id at the provider, such as adserver")
    for domain in settings.oidc_domains.split():
        if not _DOMAIN.fullmatch(domain):
            raise BadSetting(f"ADSERVER_OIDC_DOMAINS names {domain!r:.60}; expected domains such as courier.example")
    if settings.oidc_role != "none" and not settings.oidc_domains.split():
        raise BadSetting(
            "ADSERVER_OIDC_DOMAINS names nobody, so everybody with an account at the provider could sign in; name "
            "your domains, or set ADSERVER_OIDC_ROLE=none and add people by name"
        )


def _check_redis_url(settings: Settings) -> None:
    try:
        url = parse_store_url(settings.redis_url or "")
    except ValueError as error:
        raise BadSetting(f"ADSERVER_REDIS_URL{error}") from None
    if not url.is_private and not settings.redis_insecure:
        raise BadSetting(
            "ADSERVER_REDIS_URL names another machine without a password and TLS, so anybody on the way could change "
            "the counts; use rediss://user:password@host (rediss+sentinel://, rediss+cluster://), or set "
            "ADSERVER_REDIS_INSECURE=1 on a network you trust"
        )


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each `ADSERVER_…` variable that is no setting of ours: most likely a slip of the pen."""
    known = [name.upper() for name in Settings.__struct_fields__]
    given = (name.removeprefix(PREFIX) for name in sorted(environ) if name.startswith(PREFIX))
    sentences = []
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {PREFIX}{close[0]}?" if close else ""
            sentences.append(f"{PREFIX}{name} is not a setting{hint}")
    return sentences


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
