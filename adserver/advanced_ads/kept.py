"""What Advanced Ads keeps: its ads, groups and placements, in one shape wherever they come from.

The JSON is written by `wp adserver export-advanced-ads` (docs/integrations.md), the XML by Advanced Ads' own export.
Both hold what PHP had in hand: a number may be text, an empty table an empty list, and whatever is not set is missing,
so values are read as WordPress reads them. What cannot be meant is left, and said.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, tzinfo
from typing import Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Struct

from adserver.advanced_ads.markup import read_xml
from adserver.errors import BadExport

MOST_BYTES = 64 * 1024 * 1024
_OFFSET = re.compile(r"([+-])([01][0-9]):([0-5][0-9])", re.ASCII)
_NO_DATE = "0000-00-00 00:00:00"
_MARKS = ("<advads_import_img>", "</advads_import_img>")
_DEFAULT_WEIGHT = 10

_T = TypeVar("_T")


class Condition(Struct, frozen=True):
    """One row of an ad's display or visitor conditions, as it is kept. *either* joins it to the one before by `or`."""

    type: str
    is_not: bool
    value: Any
    rest: dict[str, Any]
    either: bool


class OldAd(Struct, frozen=True, kw_only=True):
    """An ad, which is the place, the booking and the creative at once. *starts* and *ends* are Unix seconds."""

    id: int
    title: str
    status: str
    kind: str
    content: str
    options: dict[str, Any]
    url: str
    size: tuple[int, int] | None
    picture: str
    picture_alt: str
    starts: float | None
    ends: float | None
    days: tuple[int, ...] | None
    display: tuple[Condition, ...]
    visitors: tuple[Condition, ...]
    groups: tuple[int, ...]


class OldGroup(Struct, frozen=True, kw_only=True):
    """Ads that take turns: *weights* by the ad's id, *shown* at once (0: all of them)."""

    id: int
    name: str
    kind: str
    shown: int
    weights: dict[int, int]


class OldPlacement(Struct, frozen=True, kw_only=True):
    """A spot of the theme. *item* is `ad_12` or `group_5`; *conditions*, whether it shows on some pages alone."""

    key: str
    name: str
    kind: str
    item: str
    published: bool
    conditions: bool


class Left(Struct, frozen=True):
    """Something of Advanced Ads that is not, or not quite, what it was: *what* it is, and *why*."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


class Export(Struct, frozen=True, kw_only=True):
    """All of it. *clock* is what the site keeps as its zone, a name or an offset such as `+02:00`; empty where the file
    does not say it, as Advanced Ads' own does not. *left* is what cannot be read.
    """

    site: str
    url: str
    clock: str
    ads: tuple[OldAd, ...]
    groups: tuple[OldGroup, ...]
    placements: tuple[OldPlacement, ...]
    left: tuple[Left, ...]


def read_export(data: bytes, zone: str | None = None) -> Export:
    """The export in *data*, JSON or XML; where it names no zone, its instants are of *zone*. Raises BadExport."""
    if len(data) > MOST_BYTES:
        raise BadExport(f"has {len(data):,} bytes; expected at most {MOST_BYTES:,}")
    if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return _of(_from_xml(read_xml(data)), zone)
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadExport(f"is neither Advanced Ads' XML nor JSON: {error}") from None
    return read_found(found, zone)


def read_found(found: object, zone: str | None = None) -> Export:
    """The export in what was JSON. Raises BadExport."""
    if not isinstance(found, dict) or found.get("advanced_ads_export") != 1:
        raise BadExport(
            "is no export of Advanced Ads; expected what 'wp adserver export-advanced-ads' writes: an object with "
            '"advanced_ads_export": 1'
        )
    return _of(found, zone)


# From XML


def _from_xml(root: Any) -> dict[str, Any]:
    """The same shape as the JSON's."""
    found = _table(root)
    ads = [_ad_of_xml(_table(one)) for one in _list(found.get("ads"))]
    weights: dict[int, dict[Any, Any]] = {}
    groups = {_int(one.get("term_id")): one for one in map(_table, _list(found.get("groups")))}
    for raw in _list(found.get("ads")):
        ad = _table(raw)
        for group in map(_table, _list(ad.get("groups"))):
            groups.setdefault(_int(group.get("term_id")), group)
            if not isinstance(group.get("weight"), dict | list) and group.get("weight") is not None:
                weights.setdefault(_int(group.get("term_id")), {})[_int(ad.get("ID"))] = group["weight"]
    return {
        "site": {"url": _site_of(found)},
        "ads": ads,
        "groups": [
            {"id": number, "name": one.get("name"), "options": one, "weights": weights.get(number) or one.get("weight")}
            for number, one in groups.items()
        ],
        "placements": [_placement_of_xml(_table(one)) for one in _list(found.get("placements"))],
    }


def _ad_of_xml(post: dict[str, Any]) -> dict[str, Any]:
    content = _text(post.get("post_content"))
    for mark in _MARKS:
        content = content.replace(mark, "")
    return {
        "id": post.get("ID"),
        "title": post.get("post_title"),
        "status": post.get("post_status"),
        "date": post.get("post_date"),
        "date_gmt": post.get("post_date_gmt"),
        "content": content,
        "options": _table(post.get("meta_input")).get("advanced_ads_ad_options"),
        "groups": [_table(one).get("term_id") for one in _list(post.get("groups"))],
        "picture": post.get("attached_img_url"),
    }


def _placement_of_xml(raw: dict[str, Any]) -> dict[str, Any]:
    """Advanced Ads 2 keeps them as posts, 1 as an option."""
    meta = _table(raw.get("meta_input"))
    if not meta and "post_name" not in raw:
        return raw
    return {
        "key": raw.get("post_name"),
        "type": meta.get("type"),
        "item": meta.get("item"),
        "options": meta.get("options"),
        "name": raw.get("post_title"),
        "status": raw.get("post_status"),
    }


def _site_of(found: dict[str, Any]) -> str:
    """Where the site is: an ad's own address begins so."""
    for ad in _list(found.get("ads")):
        match = re.match(r"https?://[^/?#\s]{1,253}", _text(_table(ad).get("guid")))
        if match:
            return match[0]
    return ""


# The shape


def _of(found: dict[str, Any], zone: str | None) -> Export:
    site = _table(found.get("site"))
    said = _text(site.get("timezone")).strip()
    clock = read_clock(said) or read_clock(zone or "")
    media = {_int(one.get("id")): one for one in map(_table, _list(found.get("media")))}
    left: list[Left] = []
    ads = _each("ad", enumerate(_list(found.get("ads"))), left, lambda _, raw: _ad(raw, clock, media))
    groups = _each("group", enumerate(_list(found.get("groups"))), left, lambda _, raw: _group(raw, ads))
    placements = found.get("placements")
    named = placements.items() if isinstance(placements, dict) else enumerate(_list(placements))
    return Export(
        site=_text(site.get("name")).strip(),
        url=_text(site.get("url")).rstrip("/"),
        clock=said,
        ads=ads,
        groups=groups,
        placements=_each("placement", named, left, _placement),
        left=tuple(left),
    )


def _each(
    kind: str, raw: Iterable[tuple[Any, Any]], left: list[Left], read: Callable[[Any, Any], _T]
) -> tuple[_T, ...]:
    """All that can be read; the others are *left* and do not keep them back."""
    found = []
    for key, one in raw:
        try:
            found.append(read(key, one))
        except ValueError as error:
            number = _int(_table(one).get("id"))
            what = say_what(kind, number, _text(_table(one).get("title"))) if number else f"{kind}s[{key}]"
            left.append(Left(what, str(error)))
    return tuple(found)


def say_what(kind: str, number: object, name: str) -> str:
    """`ad 12 "Soup"`, in one line whatever a title holds."""
    short = " ".join(name.split())[:60]
    return f'{kind} {number} "{short}"' if short else f"{kind} {number}"


def read_clock(text: str) -> tzinfo | None:
    """The clock of a zone or of an offset; None where it is neither."""
    if _OFFSET.fullmatch(text):
        return datetime.fromisoformat(f"2000-01-01T00:00:00{text}").tzinfo
    try:
        return ZoneInfo(text) if text else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _ad(raw: Any, clock: tzinfo | None, media: dict[int, dict[str, Any]]) -> OldAd:
    one = _entry(raw)
    if one.get("options") and not isinstance(one["options"], dict | list):
        raise ValueError("keeps its options as text that cannot be read, and so may not be shown to everybody")
    options = _table(one.get("options"))
    picture = media.get(_int(_table(options.get("output")).get("image_id")) or _int(options.get("image_id")), {})
    status = _text(one.get("status"))
    week = _table(options.get("weekdays"))
    return OldAd(
        id=_int(one.get("id")),
        title=_text(one.get("title")).strip(),
        status=status,
        kind=_text(options.get("type")) or "plain",
        content=_text(one.get("content")).replace("\r\n", "\n"),
        options=options,
        url=_text(options.get("url") or _table(options.get("tracking")).get("link")).strip(),
        size=_size(options, picture),
        picture=_text(picture.get("url") or one.get("picture")).strip(),
        picture_alt=_text(picture.get("alt")).strip(),
        starts=_starts(one, clock, needed=status == "future"),
        ends=float(_int(options.get("expiry_date"))) or None,
        days=tuple(map(_int, _list(week.get("day_indexes")))) if _flag(week.get("enabled")) else None,
        display=_conditions(options.get("conditions")),
        visitors=_conditions(options.get("visitors") or options.get("visitor")),
        groups=tuple(map(_int, _list(one.get("groups")))),
    )


def _size(options: dict[Any, Any], picture: dict[Any, Any]) -> tuple[int, int] | None:
    """Its width and height, or its picture's; of which one is kept alone the other follows, as in a browser."""
    width, height = (max(_int(options.get(side)), 0) for side in ("width", "height"))
    if width and height:
        return width, height
    across, down = (max(_int(picture.get(side)), 0) for side in ("width", "height"))
    if not (across and down):
        return None
    if width:
        return width, max(down * width // across, 1)
    return (max(across * height // down, 1), height) if height else (across, down)


def _starts(one: dict[str, Any], clock: tzinfo | None, *, needed: bool) -> float | None:
    """When it was published, or will be; WordPress keeps the instant by the site's clock, and in UTC."""
    try:
        for text, zone in ((_text(one.get("date_gmt")), UTC), (_text(one.get("date")), clock or UTC)):
            if text and text != _NO_DATE:
                return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()
    except (ValueError, OverflowError):
        if not needed:
            return None
        raise ValueError(f"says {text!r:.60} as its date; expected such as '2026-01-02 03:04:05'") from None
    return None


def _conditions(raw: Any) -> tuple[Condition, ...]:
    found = []
    for one in map(_table, _list(raw)):
        type_, operator = _text(one.get("type")), _text(one.get("operator"))
        rest = {key: value for key, value in one.items() if key not in ("type", "operator", "value", "connector")}
        more = {**rest, "operator": operator}
        found.append(Condition(type_, operator == "is_not", one.get("value"), more, one.get("connector") == "or"))
    if raw and not isinstance(raw, dict | list):  # something is asked for, and what cannot be told
        found.append(Condition("", is_not=False, value=str(raw)[:60], rest={}, either=False))
    return tuple(found)


def _group(raw: Any, ads: tuple[OldAd, ...]) -> OldGroup:
    one = _entry(raw)
    options, number = _table(one.get("options")), _int(one.get("id"))
    weights = {_int(ad): _int(weight) for ad, weight in _table(one.get("weights")).items()}
    for ad in ads:
        if number in ad.groups:
            weights.setdefault(ad.id, _DEFAULT_WEIGHT)
    shown = options.get("ad_count")
    return OldGroup(
        id=number,
        name=_text(one.get("name")).strip(),
        kind=_text(options.get("type")) or "default",
        shown=0 if shown == "all" else _int(shown) or 1,
        weights=weights,
    )


def _placement(key: Any, raw: Any) -> OldPlacement:
    one = _table(raw)
    options = _table(one.get("options"))
    asked = _table(options.get("placement_conditions"))
    return OldPlacement(
        key=_text(one.get("key")) or str(key),
        name=_text(one.get("name")).strip(),
        kind=_text(one.get("type")) or "default",
        item=_text(one.get("item")),
        published=_text(one.get("status")) in ("", "publish"),
        conditions=any(kept.get(of) for kept in (options, asked) for of in ("display", "visitors")),
    )


# What PHP had in hand


def _entry(raw: Any) -> dict[str, Any]:
    """Raises ValueError for what has no id."""
    one = _table(raw)
    number = one.get("id")
    if isinstance(number, bool) or not 0 < _int(number) < 2**32:
        raise ValueError(f"has the id {number!r:.40}; expected a number from 1 to 4,294,967,295")
    return one


def _table(value: Any) -> dict[Any, Any]:
    """An array of PHP with keys. With none it is a list."""
    if isinstance(value, dict):
        return value
    return dict(enumerate(value)) if isinstance(value, list) else {}


def _list(value: Any) -> list[Any]:
    """An array of PHP for the values alone."""
    return list(_table(value).values())


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "1" if value is True else ""
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


def _int(value: Any) -> int:
    """As PHP's `intval`, of what is plainly a number; 0 otherwise."""
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        return int(value) if abs(value) < 2**53 else 0
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text, re.ASCII) else 0


def _flag(value: Any) -> bool:
    return value not in (None, False, 0, "", "0", "off", "no", "false")
