"""The store's URL as values: one server, a primary that sentinels know, or a cluster.

Sentences about a URL never repeat its password, so they name the part that is wrong and not the whole.
"""

import re
from enum import Enum
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from msgspec import Struct

_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = {
    "server": ("db", "username", "password", *_TLS_FILES),
    "sentinel": ("sentinel_username", "sentinel_password", *_TLS_FILES),
    "cluster": _TLS_FILES,
}
_SCHEMES = {
    "redis": ("server", False),
    "rediss": ("server", True),
    "unix": ("server", False),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
}
_PARTS = re.compile(r"[a-z+]+://(?:([^/?#@]*)@)?([^/?#@]*)(/[^?#@]*)?(?:\?([^#@]*))?", re.ASCII)
_NODE = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_LOCAL = ("localhost", "127.0.0.1", "::1")


class Form(Enum):
    """What the URL leads to."""

    SERVER = "server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class StoreUrl(Struct, frozen=True, kw_only=True):
    """*nodes* are the sentinels, or the cluster's nodes to ask first; *name* is what sentinels call the primary.

    *login* and *sentinel_login* are the client's arguments for each side, TLS included. For one server the client
    reads *text* itself.
    """

    text: str
    form: Form
    nodes: tuple[tuple[str, int], ...] = ()
    name: str = ""
    login: dict[str, Any] = {}
    sentinel_login: dict[str, Any] = {}
    is_private: bool
    """On this machine alone, or with a password and TLS."""

    def __repr__(self) -> str:
        return f"<StoreUrl of a {self.form.value}>"


def parse_store_url(text: str) -> StoreUrl:
    """Raises ValueError with the end of a sentence that begins with the setting's name."""
    kind = _SCHEMES.get(text.partition("://")[0]) if "://" in text else None
    if kind is None:
        raise ValueError(
            ": expected redis://…, rediss://… (TLS), unix://…, redis+sentinel://… or redis+cluster://… "
            "(with TLS rediss+sentinel://… or rediss+cluster://…)"
        )
    form, tls = Form(kind[0]), kind[1]
    return _parse_server(text, tls=tls) if form is Form.SERVER else _parse_nodes(text, form, tls=tls)


def _parse_server(text: str, *, tls: bool) -> StoreUrl:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # it is looked at when it is asked for
    except ValueError as error:
        raise ValueError(f" cannot be read as a URL ({error})") from None
    if "," in parts.netloc.rpartition("@")[2]:
        raise ValueError(
            " names several servers; use redis+sentinel://…/NAME for those behind sentinels, redis+cluster://… for "
            "a cluster"
        )
    _options(Form.SERVER, parts.query)
    local = parts.scheme == "unix" or parts.hostname in _LOCAL
    return StoreUrl(text=text, form=Form.SERVER, is_private=local or bool(parts.password and tls))


def _parse_nodes(text: str, form: Form, *, tls: bool) -> StoreUrl:
    found = _PARTS.fullmatch(text)
    if found is None:
        raise ValueError(
            " cannot be read as a URL; expected SCHEME://USER:PASSWORD@HOST:PORT,HOST:PORT/…, with '@', '/', '?' and "
            "'#' in the password as %40, %2F, %3F and %23"
        )
    user, _, password = (found[1] or "").partition(":")
    port = 26379 if form is Form.SENTINEL else 6379
    nodes = tuple(_parse_node(one, number, port) for number, one in enumerate(found[2].split(","), 1))
    options = _options(form, found[4] or "")
    security: dict[str, Any] = {name: value for name, value in options.items() if name in _TLS_FILES}
    if tls:
        security["ssl"] = True
    elif security:
        raise ValueError(f" has the option {min(security)!r} without TLS; begin it with rediss+{form.value}://")
    login = {**security, **_given(username=unquote(user), password=unquote(password))}
    name, db = _parse_path(found[3] or "", form)
    if db:
        login["db"] = db
    sentinel_login = {
        **security,
        **_given(username=options.get("sentinel_username"), password=options.get("sentinel_password")),
    }
    local = all(host in _LOCAL for host, _ in nodes)
    return StoreUrl(
        text=text,
        form=form,
        nodes=nodes,
        name=name,
        login=login,
        sentinel_login=sentinel_login if form is Form.SENTINEL else {},
        is_private=local or bool(password and tls),
    )


def _given(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _parse_node(text: str, number: int, port: int) -> tuple[str, int]:
    found = _NODE.fullmatch(text)
    if found is None or not 0 < int(found[2] or port) < 65536:
        # It is not shown: where the '@' is missing, it is the password.
        raise ValueError(
            f" names a server, number {number}, that is none; expected HOST:PORT, several separated by commas, and "
            "an '@' between a password and the first"
        )
    return found[1].strip("[]"), int(found[2] or port)


def _parse_path(path: str, form: Form) -> tuple[str, int]:
    """The primary's name and the database's number."""
    words = path.strip("/").split("/") if path.strip("/") else []
    if form is Form.CLUSTER:
        if words and words != ["0"]:
            raise ValueError(f" has the path {path!r:.60}; a cluster has database 0 only, so leave it out")
        return "", 0
    if not words or not _NAME.fullmatch(words[0]):
        raise ValueError(
            " names no primary; expected the name the sentinels know it by after the hosts, as in "
            "redis+sentinel://HOST:26379/mymaster"
        )
    if len(words) > 2 or not re.fullmatch("[0-9]{1,5}", words[-1] if len(words) == 2 else "0"):
        raise ValueError(f" has the path {path!r:.60}; expected /NAME or /NAME/DATABASE, a number")
    return words[0], int(words[1]) if len(words) == 2 else 0


def _options(form: Form, query: str) -> dict[str, str]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    known = _OPTIONS[form.value]
    if strangers := given.keys() - set(known):
        raise ValueError(f" has the option {min(strangers)!r:.40}; expected none but {', '.join(known)}")
    return given
