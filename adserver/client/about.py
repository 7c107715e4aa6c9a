"""What is said of a page and its reader, as the query of a delivery call. What is wrong with it is left out of it.

The names are those of the delivery API: `url`, `section`, `tags` (its `tag`, repeated), `lang`, `country`, `device`,
`reader`, `ua`, `consent` (true, false, or not known), `keys` (its `key.NAME`), `format`, and with the format `email`
the `issue` and `index` of a newsletter's place. Beside them stands `gpc`: that the reader's browser sent `Sec-GPC: 1`
or `DNT: 1`.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote_plus

from msgspec import Struct

NAMES = frozenset("url section tags lang country device reader ua consent keys format issue index gpc".split())  # noqa: SIM905
FORMATS = ("html", "placeholder", "email", "amp", "native")
_MOST_BYTES = 1800
"""The service takes addresses of up to 2,048 bytes. What is said first is worth most; what does not fit is not said."""
_MOST_TAGS = 64
_MOST_CHARACTERS = 300


class About(Struct, frozen=True):
    """*query* is ready for an address, with its question mark. *unknown* are names that say nothing here."""

    query: str
    gpc: bool
    personal: bool
    """Whether a reader is named: then the answer is theirs alone."""
    unknown: tuple[str, ...] = ()


def say(facts: Mapping[str, Any], form: str = "html") -> About:
    """Put *facts* into an address; *form* is the format where they name none. Never raises for what is in *facts*."""
    given = {name: value for name, value in facts.items() if name in NAMES and value is not None}
    said, personal = ["?repair=0"], False  # what is sent was mended before
    left = _MOST_BYTES - len(said[0])
    for name, value in _pairs(given, form):
        part = f"&{quote_plus(name)}={quote_plus(value, errors='replace')}"
        if len(part) > left:
            continue
        left -= len(part)
        said.append(part)
        personal = personal or name == "reader"
    unknown = tuple(str(name) for name in facts if name not in NAMES)
    return About("".join(said), bool(given.get("gpc")), personal, unknown)


def _pairs(given: Mapping[str, Any], form: str) -> Iterator[tuple[str, str]]:
    chosen = _text(given.get("format", form))
    if chosen in FORMATS and chosen != "html":
        yield "format", chosen
    for name in ("issue", "index") if chosen == "email" else ():
        if text := _text(given.get(name, "")):
            yield name, text
    if "consent" in given:
        agreed = given["consent"]
        yield "consent", "1" if agreed is True or str(agreed) == "1" else "0"
    for name in ("section", "lang", "country", "device", "reader"):
        if text := _text(given.get(name, "")):
            yield name, text
    for text in _texts(given.get("tags", ())):
        yield "tag", text
    keys = given.get("keys")
    for name, values in (keys if isinstance(keys, Mapping) else {}).items():
        for text in _texts(values):
            yield f"key.{name}", text
    if text := _text(given.get("url", "")).partition("#")[0].partition("?")[0]:  # targeting reads no further
        yield "url", text
    if text := _text(given.get("ua", ""))[:_MOST_CHARACTERS]:
        yield "ua", text


def _texts(values: Any) -> list[str]:
    """Several words, or a single one."""
    several = values if isinstance(values, Iterable) and not isinstance(values, str | bytes) else (values,)
    return [text for value, _ in zip(several, range(_MOST_TAGS), strict=False) if (text := _text(value))]


def _text(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
