"""The numbered versions of the booking document in the store, and the images they show.

All versions live in one hash, so that publishing is one write command: the new document and the pointer to it appear
together or not at all. A version never changes; its number is never used again while the store remembers it.
"""

import asyncio
import hashlib
import re
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from adserver.documents import Document
from adserver.errors import Conflict, StoreRefused
from adserver.model import LineItem
from adserver.steps import Steps, at_once
from adserver.store import Store

KEY = "as:{catalog}"
_DOCUMENT = msgspec.json.Decoder(Document)
_ITEMS = msgspec.json.Decoder(tuple[LineItem, ...])
_ASSET = re.compile(r"[0-9a-f]{32}\.[a-z]{3,4}", re.ASCII)

_PUBLISH = """
local live = redis.call('HGET', KEYS[1], 'live') or '0'
if live ~= ARGV[1] then return {'moved', live} end
redis.call('HSET', KEYS[1], 'v:' .. ARGV[2], ARGV[3], 's:' .. ARGV[2], ARGV[4], 'live', ARGV[2])
return {'live', ARGV[2]}
"""


class Version(Struct, frozen=True, kw_only=True):
    """A published document. *at* is the Unix second; *origin* says who edits it: files or the console."""

    number: int
    author: str
    at: float
    note: str
    document: Document
    origin: str = "files"


class Summary(Struct, frozen=True, kw_only=True):
    """A version without its document."""

    number: int
    author: str
    at: float
    note: str
    origin: str = "files"


_PLAIN = b"{"
_LINES = b"x"
"""How a large version begins that was stored as lines compressed together, before each part was apart."""
_PART = 100
"""Entries in one part of a large version: to decode it takes half a millisecond."""
_LET_GO = 10_000
FARTHEST_S = 400 * 86_400.0
"""How far from now another instant may be that somebody asks about."""
_TABLES = tuple(field for field in Document.__struct_fields__ if field != "site")


def encode(version: Version) -> bytes:
    """JSON; a version of more entries than one part as a list, in MessagePack, of compressed parts: the version with
    no entries and then documents that hold some of them each. A tenth of the bytes come through the event loop, and
    whoever decodes holds up nobody for longer than a part takes.
    """
    tables = {name: getattr(version.document, name) for name in _TABLES}
    if sum(map(len, tables.values())) <= _PART:
        return msgspec.json.encode(version)
    parts: list[object] = [structs.replace(version, document=Document(site=version.document.site))]
    for name, entries in tables.items():
        parts += ({name: entries[start : start + _PART]} for start in range(0, len(entries), _PART))
    return msgspec.msgpack.encode([zlib.compress(msgspec.json.encode(part), 1) for part in parts])


def decode(data: bytes) -> Version:
    """Raises StoreRefused when *data* is not a version as this service writes them."""
    return at_once(decoding(data))


def decoding(data: bytes) -> Steps[Version]:
    """The same in steps. (In one, if a version before 0.1.0 was released wrote it.)"""
    try:
        if data[:1] == _PLAIN:
            return msgspec.json.decode(data, type=Version)
        if data[:1] == _LINES:
            return _decode_lines(zlib.decompress(data))
        first, *parts = msgspec.msgpack.decode(data, type=list[memoryview])
        version = msgspec.json.decode(zlib.decompress(first), type=Version)
        tables: dict[str, list[Any]] = {name: [] for name in _TABLES}
        for part in parts:
            document = _DOCUMENT.decode(zlib.decompress(part))
            for name, entries in tables.items():
                entries += getattr(document, name)
            yield
        whole = {}
        for name, entries in tables.items():
            whole[name] = tuple(entries)
            yield
            while entries:  # to look at each of 100,000 once more takes a millisecond
                del entries[-_LET_GO:]
                yield
        return structs.replace(version, document=structs.replace(version.document, **whole))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError, zlib.error) as error:
        raise StoreRefused(f"{KEY} holds a version this service cannot read: {error}") from None


def _decode_lines(data: bytes) -> Version:
    """A version with some of its line items, then a line for each part of the others."""
    first, *parts = data.split(b"\n")
    version = msgspec.json.decode(first, type=Version)
    items = (*version.document.line_items, *(item for part in parts for item in _ITEMS.decode(part)))
    return structs.replace(version, document=structs.replace(version.document, line_items=items))


def _asset_key(name: str) -> str:
    return f"as:{{asset:{name}}}"


async def live_number(store: Store) -> int:
    """The live version's number; 0 when nothing was published yet."""
    value = await store.ask("HGET", KEY, "live")
    if value is None:
        return 0
    try:
        return int(value)
    except ValueError:
        raise StoreRefused(f"{KEY} says that {value!r:.40} is live, which is not a version number") from None


async def read_version(store: Store, number: int) -> Version | None:
    data = await read_raw(store, number)
    return None if data is None else decode(data)


async def read_raw(store: Store, number: int) -> bytes | None:
    """A version as `encode` made it."""
    data: bytes | None = await store.ask("HGET", KEY, f"v:{number}")
    return data


async def read_version_at(store: Store, at: float) -> Version | None:
    """The version that was live at the Unix second *at*; None before the first."""
    number = await live_number(store)
    while number > 0:
        version = await read_version(store, number)
        if version is not None and version.at <= at:
            return version
        number -= 1
    return None


async def publish(store: Store, version: Version, assets: dict[str, bytes], expected: int) -> None:
    """Make *version* live if *expected* still is (0: nothing). Raises Conflict. Its images are there before it is."""
    for name, data in assets.items():
        await keep_asset(store, name, data)
    data = await asyncio.to_thread(encode, version)
    summary = msgspec.json.encode({name: getattr(version, name) for name in Summary.__struct_fields__})
    reply: Any = await store.ask("EVAL", _PUBLISH, 1, KEY, expected, version.number, data, summary)
    if reply[0] != b"live":
        raise Conflict(f"version {int(reply[1])} is live by now, not {expected}")


async def read_summaries(store: Store, numbers: Sequence[int]) -> list[Summary]:
    """The versions of these numbers that the store still has."""
    if not numbers:
        return []
    found: Any = await store.ask("HMGET", KEY, *(f"s:{number}" for number in numbers))
    summaries = []
    for number, data in zip(numbers, found, strict=True):
        if data is not None:
            summaries.append(msgspec.json.decode(data, type=Summary))
        elif version := await read_version(store, number):
            fields = {name: getattr(version, name) for name in Summary.__struct_fields__}
            summaries.append(Summary(**fields))
    return summaries


async def hold_asset(store: Store, name: str, data: bytes, days: int) -> None:
    """Keep an image that no version shows yet for so many days."""
    await store.ask("SET", _asset_key(name), data, "EX", days * 86_400, "NX")


async def keep_asset(store: Store, name: str, data: bytes) -> None:
    """Keep an image for good."""
    await store.ask("SET", _asset_key(name), data, "NX")
    await store.ask("PERSIST", _asset_key(name))


async def read_asset(store: Store, name: str) -> bytes | None:
    """An image's bytes; None when the store does not have it or has something else under its name."""
    data: bytes | None = await store.ask("GET", _asset_key(name))
    if (
        data is None
        or not _ASSET.fullmatch(name)
        or hashlib.blake2b(data, digest_size=16).hexdigest() != name.split(".")[0]
    ):
        return None
    return data
