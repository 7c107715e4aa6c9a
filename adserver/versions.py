"""The numbered versions of the booking document in the store, and the images they show.

All versions live in one hash, so that publishing is one write command: the new document and the pointer to it appear
together or not at all. A version never changes; its number is never used again while the store remembers it.
"""

import hashlib
import re
import zlib
from typing import Any

import msgspec
from msgspec import Struct, structs

from adserver.documents import Document
from adserver.errors import Conflict, StoreRefused
from adserver.model import LineItem
from adserver.store import Store

KEY = "as:{catalog}"
_ITEMS = msgspec.json.Decoder(list[LineItem])
_ASSET = re.compile(r"[0-9a-f]{32}\.[a-z]{3,4}", re.ASCII)

_PUBLISH = """
local live = redis.call('HGET', KEYS[1], 'live') or '0'
if live ~= ARGV[1] then return {'moved', live} end
redis.call('HSET', KEYS[1], 'v:' .. ARGV[2], ARGV[3], 'live', ARGV[2])
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


_COMPRESSED = b"x"
_PART = 500
"""Line items in one part of a large version: decoding a part holds up nobody for more than some milliseconds."""


def encode(version: Version) -> bytes:
    """JSON; of a version with more line items than one part the further ones follow, a line for each part, and all is
    compressed: a tenth of the bytes come through the event loop.
    """
    items = version.document.line_items
    if len(items) <= _PART:
        return msgspec.json.encode(version)
    head = structs.replace(version, document=structs.replace(version.document, line_items=items[:_PART]))
    parts = (items[start : start + _PART] for start in range(_PART, len(items), _PART))
    return zlib.compress(b"\n".join([msgspec.json.encode(head), *map(msgspec.json.encode, parts)]), 1)


def decode(data: bytes) -> Version:
    """Raises StoreRefused when *data* is not a version as this service writes them."""
    try:
        if data[:1] == _COMPRESSED:
            data = zlib.decompress(data)
        first, *parts = data.split(b"\n")
        version = msgspec.json.decode(first, type=Version)
        if not parts:
            return version
        items = list(version.document.line_items)
        for part in parts:
            items += _ITEMS.decode(part)
        return structs.replace(version, document=structs.replace(version.document, line_items=tuple(items)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, zlib.error) as error:
        raise StoreRefused(f"{KEY} holds a version this service cannot read: {error}") from None


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
        await store.ask("SET", _asset_key(name), data, "NX")
    reply: Any = await store.ask("EVAL", _PUBLISH, 1, KEY, expected, version.number, encode(version))
    if reply[0] != b"live":
        raise Conflict(f"version {int(reply[1])} is live by now, not {expected}")


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
