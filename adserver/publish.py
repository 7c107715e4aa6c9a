"""From files to the live version and back: what `apply`, `export`, SIGHUP and `--watch` do.

One function publishes, whoever calls it; a configuration with a problem, or one that would overwrite what somebody
else published, changes nothing.
"""

import time
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from adserver import versions
from adserver.config_files import Files, plain
from adserver.console import audit
from adserver.console.audit import Entry
from adserver.documents import Document
from adserver.errors import Conflict
from adserver.store import Store
from adserver.versions import Version


class Published(Struct, frozen=True):
    """What `publish_files` did. *changes* are sentences; *number* is live now."""

    number: int
    changes: list[str]
    overwrote: int | None = None


async def publish_files(store: Store, files: Files, *, author: str, note: str, force: bool = False) -> Published:
    """Make *files* live unless they are already. Raises Conflict when live has moved on since they were exported."""
    number = await versions.live_number(store)
    live = await versions.read_version(store, number) if number else None
    changes = difference(live.document if live else Document(), files.document)
    if live and not changes:
        return Published(number, [])
    moved_on = live is not None and _moved_on(live, files)
    if moved_on and not force:
        raise Conflict(
            f"version {number} is live, and these files were written from "
            f"{f'version {files.exported_from}' if files.exported_from else 'no version of it'}; "
            "run 'adserver export' and put your changes on top, or use --force to overwrite"
        )
    version = Version(number=number + 1, author=author, at=time.time(), note=note, document=files.document)
    await versions.publish(store, version, files.assets, number)
    said = f"{note}: {'; '.join(changes)}" if note else "; ".join(changes)
    entry = Entry(at=version.at, who=author, what="publishes files", subject=f"version {version.number}", detail=said)
    await audit.note(store, entry)
    return Published(version.number, changes, number if moved_on else None)


def _moved_on(live: Version, files: Files) -> bool:
    """Files that name a version must name the live one; files that name none may follow files, never the console."""
    if files.exported_from is not None:
        return files.exported_from != live.number
    return live.origin != "files"


_LONGEST = 120
_NAMES = {
    "slots": "slot",
    "groups": "group",
    "placements": "placement",
    "advertisers": "advertiser",
    "campaigns": "campaign",
    "line_items": "line item",
    "creatives": "creative",
    "pauses": "pause",
}


def difference(before: Document, after: Document) -> list[str]:
    """What changes from *before* to *after*, a sentence each; values as a configuration file has them."""
    zone = ZoneInfo(after.site.time_zone)
    sentences = _changed("site", before.site, after.site, zone)
    for plural, name in _NAMES.items():
        old = {row.id: row for row in getattr(before, plural)}
        new = {row.id: row for row in getattr(after, plural)}
        sentences += [f"adds {name} {key!r}" for key in new if key not in old]
        sentences += [f"removes {name} {key!r}" for key in old if key not in new]
        for key in new:
            if key in old and old[key] != new[key]:
                sentences += _changed(f"{name} {key!r}", old[key], new[key], zone)
        if list(old) != list(new) and set(old) == set(new):
            sentences.append(f"puts the {name}s in another order")
    return sentences


def _changed(what: str, old: Struct, new: Struct, zone: ZoneInfo) -> list[str]:
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in new.__struct_fields__)
    return [
        f"changes {what}: {name} from {_say(name, before, zone)} to {_say(name, after, zone)}"
        for name, before, after in pairs
        if before != after
    ]


def _say(name: str, value: Any, zone: ZoneInfo) -> str:
    return "nothing" if value is None or value in ((), "") else _line(plain(name, value), zone)


def _line(value: Any, zone: ZoneInfo) -> str:
    """TOML on one line; a text is cut, and nothing else."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            text = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
            return msgspec.json.encode(text).decode()
        case datetime():
            return value.astimezone(zone).isoformat(timespec="seconds")
        case list() | tuple():
            return f"[{', '.join(_line(one, zone) for one in value)}]"
        case dict():
            return f"{{ {', '.join(f'{key} = {_line(one, zone)}' for key, one in value.items())} }}"
    return str(value)


async def export(store: Store) -> tuple[Version, dict[str, bytes]] | None:
    """The live version with its images, or None when nothing is published."""
    number = await versions.live_number(store)
    version = await versions.read_version(store, number)
    if version is None:
        return None
    names = {creative.image for creative in version.document.creatives if creative.image}
    return version, await read_assets(store, names)


async def read_assets(store: Store, names: Iterable[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in sorted(names):
        data = await versions.read_asset(store, name)
        if data is not None:
            found[name] = data
    return found
