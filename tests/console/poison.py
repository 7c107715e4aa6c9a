"""A catalog whose every text is the same: markup, a formula, or a word without end."""

import time
from enum import Enum
from typing import Any

from msgspec import Struct, structs

from adserver import versions
from adserver.console.desk import read_live
from adserver.model import Kind, LineItem, Pause, Political
from adserver.store import Store

KEPT = {
    "id", "slot", "campaign", "advertiser", "line_item", "group", "image", "still", "time_zone", "hours",
    "lang", "country", "device",
}  # fmt: skip
"""Names of other entries, and what is one of a short list: text that no person has written."""
EXTRA = {"passback": "", "contact": "c", "reason": "r", "by": "b"}
"""Texts that an entry may go without."""


def texts_of(entry: Struct) -> list[str]:
    """The fields of *entry* that hold texts, or entries with such."""
    names = {"creatives"} if isinstance(entry, LineItem) else set()
    return [name for name in entry.__struct_fields__ if name not in KEPT | names]


def poisoned(value: Any, text: str) -> Any:
    """*value* with *text* in place of each text in it."""
    match value:
        case Enum():
            return value
        case Struct():
            fields = {name: getattr(value, name) for name in texts_of(value)}
            given = {name: old or EXTRA.get(name, old) for name, old in fields.items()}
            return structs.replace(value, **{name: poisoned(old, text) for name, old in given.items()})
        case str():
            return text if value else value
        case tuple() if value and all(type(one) is str for one in value):
            return (text,)
        case tuple():
            return tuple(poisoned(one, text) for one in value)
        case dict():
            return dict.fromkeys([text] if value else [], (text,))
    return value


async def poison(store: Store, text: str, slot: int) -> dict[str, str]:
    """Publish the live catalog so, past the checks of the forms; a booking of *slot*, a creative of it, the version."""
    live = await read_live(store)
    document = live.document
    line_item = next(one for one in document.line_items if slot in one.slots)
    facts = Political(
        sponsor="s", controlled_by="c", paid_by="p", election="e", targeted=True, notice_url="https://example.com/"
    )
    creatives = tuple(
        structs.replace(one, political=facts) if one.kind is Kind.TEXT else one for one in document.creatives
    )
    pause = Pause(id="made-up", category="c", starts=time.time() - 60, ends=time.time() + 3600, reason="r", by="b")
    made = poisoned(structs.replace(document, creatives=creatives, pauses=(pause,)), text)
    version = versions.Version(number=live.number + 1, author=text, at=time.time(), note=text, document=made)
    await versions.publish(store, version, {}, live.number)
    return {
        "line_item": line_item.id,
        "creative": line_item.creatives[0],
        "advertiser": made.advertisers[0].id,
        "version": str(version.number),
    }
