"""The booking form: what people type into it as entries of the document, every problem beside the field it is in.

A field's text becomes what a configuration file would hold, and is read by the very rules files are read by.
"""

import re
import unicodedata
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct, structs

from adserver.checks import check
from adserver.console import complaints
from adserver.console.drafts import find
from adserver.console.pictures import Kept, Picture
from adserver.console.sheet_times import instants
from adserver.console.words import exact, say
from adserver.documents import Document, Known, read_entry
from adserver.fields import read_digits, read_grouped
from adserver.model import Advertiser, Campaign, Creative, LineItem, Measure, Priority, Size, Terms

Fields = Mapping[str, Sequence[str]]
"""What the form holds, by name; a field may be there several times."""

NEW = "+"
"""The choice of an advertiser or campaign that is not there yet."""
_SLUG = re.compile(r"[^a-z0-9]+")
_GROUPS = ("any", "all", "none", "prefer")
_MEASURES = frozenset(measure.value for measure in Measure)
_KINDS = ("section", "tag", "url", "lang", "country", "device")
_SHOWN = {"goal": "goal_n", "targeting": "target_any"}
"""Fields of a line item whose input has another name."""


class Booked(Struct, frozen=True):
    """What a form asks for: entries to put into the draft, or what is *wrong* by the name of the input.

    The problem under "" belongs to no single input.
    """

    line_item: LineItem | None = None
    advertiser: Advertiser | None = None
    campaign: Campaign | None = None
    wrong: Mapping[str, str] = {}


def make_id(name: str, taken: Container[str], otherwise: str = "entry") -> str:
    """A lowercase word made of *name*, or *otherwise* where it has no letter for one, that is not taken."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    word = _SLUG.sub("-", plain).strip("-")[:48].strip("-") or otherwise
    n, found = 2, word
    while found in taken:
        found, n = f"{word}-{n}", n + 1
    return found


def parse_local(text: str, zone: str, *, once: bool = False) -> datetime:
    """Newsroom time as a date and time field gives it. What the clocks show twice is the first of both, or with *once*
    neither. Raises ValueError for that, and for what no clock ever shows.
    """
    try:
        naive = datetime.fromisoformat(text)
        if not 2 <= naive.year <= 9998:  # next to them instants have no place in every zone
            raise ValueError
    except ValueError:
        raise ValueError(f"is {text!r:.40}; expected a date and a time, such as 2027-06-30T18:00") from None
    if naive.tzinfo is not None:
        return naive
    found = instants(naive, ZoneInfo(zone))
    if not found:
        raise ValueError(f"is {text}, which the clocks skip that night; choose another time")
    if once and len(found) > 1:
        raise ValueError(f"is {text}, which comes twice that night; choose another time")
    return naive.replace(tzinfo=ZoneInfo(zone))


def blank(line_item: LineItem | None, zone: str, document: Document) -> dict[str, list[str]]:
    """The form's fields as they are before anybody types: empty, or those of a line item."""
    if line_item is None:
        return {"how": ["goal"], "goal_of": ["impressions"], "priority": ["standard"], "weight": ["1"]}
    campaign = find(document, "campaigns", line_item.campaign)
    how = "share" if line_item.share is not None else "goal" if line_item.goal else "rest"
    found = {
        "name": [line_item.name],
        "advertiser": [campaign.advertiser if campaign else ""],
        "campaign": [line_item.campaign],
        "slots": [str(slot) for slot in line_item.slots],
        "creatives": list(line_item.creatives),
        "starts": [_local(line_item.starts, zone)],
        "ends": [_local(line_item.ends, zone)],
        "how": [how],
        "weight": [exact(line_item.weight)],
        "priority": [line_item.priority.value],
        "pacing": [line_item.pacing.value],
        "on_shortfall": [line_item.on_shortfall.value],
        "rotation": [line_item.rotation.value],
        "page": [line_item.page.value],
        "hours": ["\n".join(line_item.hours)],
        "frequency": ["\n".join(say(cap, zone) or "" for cap in line_item.frequency)],
        "goal_of": ["impressions"],
    }
    if line_item.share is not None:
        found["share"] = [exact(line_item.share)]
    if line_item.goal:
        found |= {"goal_n": [str(line_item.goal.n)], "goal_of": [line_item.goal.of.value]}
        found["goal_daily"] = ["1"] if line_item.goal.daily else []
    for group in _GROUPS:
        terms = getattr(line_item.targeting, group) if line_item.targeting else None
        found[f"target_{group}"] = [_write_terms(terms)] if terms else [""]
    return found


def parse(fields: Fields, document: Document, zone: str, before: LineItem | None = None, now: float = 0.0) -> Booked:
    """What the form asks for at *now*. *before* is the line item it changes."""
    wrong: dict[str, str] = {}
    advertiser, campaign = parse_owner(fields, document, wrong)
    raw = _raw(fields, zone, wrong)
    taken = {one.id for one in document.line_items}
    raw |= {
        "id": before.id if before else make_id(raw["name"], taken),
        "campaign": campaign.id if campaign else "unknown",
    }
    for name in ("starts", "ends"):
        was = getattr(before, name, None)
        if was is not None and _one(fields, name) == _local(was, zone):
            raw[name] = datetime.fromtimestamp(was, UTC)  # seconds and summer time, which the input does not show
            wrong.pop(name, None)
    if before is None and "ends" in raw and raw["ends"].timestamp() <= now:
        wrong["ends"] = "This is in the past, so it would never show; choose a later time"
    found, problems = read_entry("line_item", raw)
    for name, what in problems.items():
        name = _SHOWN.get(name, name)
        wrong.setdefault(name, complaints.of_field(name, what))
    new = advertiser if advertiser and find(document, "advertisers", advertiser.id) is None else None
    fresh = campaign if campaign and find(document, "campaigns", campaign.id) is None else None
    whole = found if isinstance(found, LineItem) else _right_part(raw, problems)
    beside = {} if whole is None else _cross_check(whole, document, new, fresh)
    if wrong:  # what is wrong beside other fields may come of what was left out for these
        for name, depends in _DEPENDS.items():
            if not depends.isdisjoint(wrong):
                beside.pop(name, None)
    wrong = {**beside, **wrong}
    return Booked(None if wrong or not isinstance(found, LineItem) else found, new, fresh, wrong)


_DEPENDS = {
    "": frozenset({"advertiser", "new_advertiser", "campaign", "new_campaign"}),
    "campaign": frozenset({"advertiser", "new_advertiser", "new_campaign"}),
    "creatives": frozenset({"advertiser", "new_advertiser", "slots"}),
    "page": frozenset({"slots", "creatives"}),
    "pacing": frozenset({"goal_n", "goal_of", "share"}),
    "on_shortfall": frozenset({"goal_n", "goal_of"}),
    "share": frozenset({"slots", "starts", "ends", "hours"}),
    "starts": frozenset({"pacing"}),
    "ends": frozenset({"pacing"}),
}
"""Fields that cannot be held against the rest while one of these is wrong."""


def _right_part(raw: Mapping[str, Any], problems: Mapping[str, str]) -> LineItem | None:
    """The line item without the fields that are wrong, so that what is right can be held against the rest already."""
    right = {name: value for name, value in raw.items() if name not in problems}
    given = {"name": "a booking", "slots": [1], "creatives": ["none"], **right}
    found, _ = read_entry("line_item", given)
    if not isinstance(found, LineItem):
        return None
    return structs.replace(found, **{name: () for name in ("slots", "creatives") if name not in right})


def _one(fields: Fields, name: str) -> str:
    values = fields.get(name) or ("",)
    return values[0].strip()


def _lines(fields: Fields, name: str) -> list[str]:
    return [line.strip() for line in _one(fields, name).splitlines() if line.strip()]


def _in_turn(fields: Fields) -> list[str]:
    """The creatives that were chosen, a sequence by the numbers that were given to them."""
    chosen = list(fields.get("creatives", ()))
    if _one(fields, "rotation") == "sequence":
        chosen.sort(key=lambda name: number if (number := read_digits(_one(fields, f"turn-{name}"))) else inf)
    return chosen


def _raw(fields: Fields, zone: str, wrong: dict[str, str]) -> dict[str, Any]:
    """The line item as a file would hold it; what cannot even be written so is wrong."""
    how = _one(fields, "how") or "rest"
    raw: dict[str, Any] = {
        "name": _one(fields, "name"),
        "slots": [text if (n := read_digits(text)) is None else n for text in fields.get("slots", ())],
        "creatives": _in_turn(fields),
        "priority": "sponsorship" if how == "share" else _one(fields, "priority") or "standard",
    }
    if how != "share" and raw["priority"] == "sponsorship":
        raw["priority"] = "standard"
    for name in ("rotation", "page", "pacing", "on_shortfall"):
        if value := _one(fields, name):
            raw[name] = value
    for name in ("starts", "ends"):
        if text := _one(fields, name):
            try:
                raw[name] = parse_local(text, zone, once=True)
            except ValueError as error:
                wrong[name] = f"This {error}"
    if how == "share":
        _number(fields, "share", raw, wrong, "a percentage of the slot, such as 30")
    elif how == "goal" and (_one(fields, "goal_of") or "impressions") not in _MEASURES:
        wrong["goal_of"] = "This cannot be chosen; take one of the list"
    elif how == "goal":
        if (n := read_grouped(_one(fields, "goal_n"))) is not None:
            raw["goal"] = {_one(fields, "goal_of") or "impressions": n}
            raw["goal"] |= {"per": "day"} if _one(fields, "goal_daily") else {}
        else:
            wrong["goal_n"] = "This is no number; say how many, such as 100,000"
    if how == "rest" and _one(fields, "weight"):
        _number(fields, "weight", raw, wrong, "a number, such as 1; 2 is shown twice as often")
    for name in ("hours", "frequency"):
        if lines := _lines(fields, name):
            raw[name] = lines
    targeting = {}
    for group in _GROUPS:
        try:
            if lines := _lines(fields, f"target_{group}"):
                targeting[group] = _read_terms(lines)
        except ValueError as error:
            wrong[f"target_{group}"] = str(error)
    return raw | ({"targeting": targeting} if targeting else {})


def _number(fields: Fields, name: str, raw: dict[str, Any], wrong: dict[str, str], expected: str) -> None:
    try:
        raw[name] = float(_one(fields, name).removesuffix("%").strip().replace(",", "."))
    except ValueError:
        wrong[name] = f"This is no number; expected {expected}"


def parse_owner(fields: Fields, document: Document, wrong: dict[str, str]) -> tuple[Advertiser | None, Campaign | None]:
    """Whose booking it is: an advertiser and a campaign that exist or are to be made."""
    chosen = _one(fields, "advertiser")
    advertiser = find(document, "advertisers", chosen)
    if chosen == NEW:
        name = _one(fields, "new_advertiser")
        if any(one.name.casefold() == name.casefold() for one in document.advertisers):
            wrong["new_advertiser"] = "There is an advertiser of this name already; choose it from the list"
        words = [word.strip() for word in _one(fields, "new_categories").split(",") if word.strip()]
        raw = {"id": make_id(name, {one.id for one in document.advertisers}), "name": name, "categories": words}
        made, problems = read_entry("advertiser", raw)
        for field, what in problems.items():
            name = "new_categories" if field == "categories" else "new_advertiser"
            wrong.setdefault(name, complaints.of_field(name, what))
        advertiser = made if isinstance(made, Advertiser) else None
    elif advertiser is None:
        wrong["advertiser"] = "Choose who advertises, or a new advertiser"
    if advertiser is None:
        return None, None
    picked = _one(fields, "campaign")
    campaign = find(document, "campaigns", picked)
    if campaign is not None and campaign.advertiser == advertiser.id:
        return advertiser, campaign
    name = _one(fields, "new_campaign") or _one(fields, "name") or advertiser.name
    same = next((one for one in document.campaigns if (one.advertiser, one.name) == (advertiser.id, name)), None)
    if same is not None:
        return advertiser, same
    id_ = make_id(f"{advertiser.id}-{name}" if not name.lower().startswith(advertiser.id) else name,
                  {one.id for one in document.campaigns})  # fmt: skip
    made, problems = read_entry("campaign", {"id": id_, "name": name, "advertiser": advertiser.id})
    if problems:
        wrong["new_campaign"] = complaints.of_field("new_campaign", next(iter(problems.values())))
    return advertiser, made if isinstance(made, Campaign) else None


def _read_terms(lines: list[str]) -> dict[str, Any]:
    """`section: business, sport`, a line for each kind; any other word is a key of the site's own."""
    found: dict[str, Any] = {}
    for line in lines:
        kind, colon, values = line.partition(":")
        words = [word.strip() for word in values.split(",") if word.strip()]
        if not colon or not words:
            raise ValueError(f"{line!r:.60} says nothing; write it like 'section: business, sport'")
        kind = kind.strip().lower()
        into = found if kind in _KINDS else found.setdefault("keys", {})
        into.setdefault(kind, []).extend(words)
    return found


def _write_terms(terms: Terms) -> str:
    lines = [f"{kind}: {', '.join(getattr(terms, kind))}" for kind in _KINDS if getattr(terms, kind)]
    return "\n".join([*lines, *(f"{name}: {', '.join(values)}" for name, values in terms.keys.items())])


def _local(at: float | None, zone: str) -> str:
    return "" if at is None else datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%Y-%m-%dT%H:%M")


def _cross_check(
    line_item: LineItem, document: Document, advertiser: Advertiser | None, campaign: Campaign | None
) -> dict[str, str]:
    """What is wrong between the line item and the rest, by the input it shows in."""
    mine = {*line_item.slots}
    whole = Document(
        site=document.site,
        slots=tuple(one for one in document.slots if one.id in mine),
        advertisers=(*document.advertisers, *([advertiser] if advertiser else [])),
        campaigns=(*document.campaigns, *([campaign] if campaign else [])),
        creatives=tuple(one for one in document.creatives if one.id in line_item.creatives),
        line_items=(
            line_item,
            *(one for one in document.line_items if one.id != line_item.id and _shares_with(one, line_item)),
        ),
    )
    named: dict[tuple[str, object], str] = {("slot", one.id): "" for one in document.slots}
    named |= {("advertiser", one.id): "" for one in whole.advertisers}
    named |= {("campaign", one.id): "" for one in whole.campaigns}
    named |= {("creative", one.id): "" for one in document.creatives}
    named |= {("line_item", one.id): "" for one in (line_item, *document.line_items)}
    known, names = Known(named), complaints.names_of(whole)
    wrong: dict[str, str] = {}
    for problem in check(whole, known):
        said = complaints.of_entry(problem.what, names)
        if repr(line_item.id) in problem.where:
            wrong.setdefault(_SHOWN.get(said.field, said.field), said.sentence)
        elif any(str(slot) in problem.where for slot in line_item.slots):
            wrong.setdefault("share", said.sentence)
    return wrong


def _shares_with(one: LineItem, other: LineItem) -> bool:
    """Whether two sponsorships share a slot: their shares must not exceed what there is."""
    return one.priority is Priority.SPONSORSHIP and not {*one.slots}.isdisjoint(other.slots)


def size_of(pixels: Size, sizes: Iterable[Size]) -> Size | None:
    """The slot size an image of so many pixels is for: its own, or half of it on a dense screen."""
    half = pixels[0] // 2, pixels[1] // 2
    even = pixels[0] % 2 == pixels[1] % 2 == 0
    known = set(sizes)
    return pixels if pixels in known else half if even and half in known else None


class Drawn(Struct, frozen=True):
    """A form whose image is a creative, drafted nowhere yet: *fields* chooses it, *document* has it. *creative* is None
    while the form is *wrong* about it; something like it stands in its place then.
    """

    fields: Fields
    document: Document
    creative: Creative | None
    wrong: Mapping[str, str]


def with_image(fields: Fields, document: Document, picture: Kept | None) -> Drawn:
    """The form with the image that came with it as a creative of its own."""
    if picture is None:
        address = _one(fields, "click_url")
        _, problems = read_entry("creative", {"click_url": address} if address else {})
        wrong = (
            {"click_url": complaints.of_field("click_url", problems["click_url"])} if "click_url" in problems else {}
        )
        return Drawn(fields, document, None, wrong)
    owner, _ = parse_owner(fields, document, {})
    chosen = [one for one in document.slots if str(one.id) in fields.get("slots", ())]
    sizes = [size for slot in chosen or document.slots for size in slot.sizes]
    size = size_of(picture.size, sizes)
    owner, name = owner or Advertiser(id="nobody", name="nobody"), _one(fields, "name") or "ad"
    creative, wrong = image_creative(document, owner, name, size or picture.size, picture, fields)
    if sizes and size is None:
        words = ", ".join(dict.fromkeys(f"{width} × {height}" for width, height in sizes))
        width, height = picture.size
        wrong["image"] = f"It has {width} × {height} pixels; the places above take {words}, or exactly twice that"
    like = creative
    if like is None:
        right = {**fields, "alt": ["an image"], "click_url": ["https://example.com/"]}
        like, _ = image_creative(document, owner, name, size or picture.size, picture, right)
        assert like
    fields = {**fields, "creatives": [*fields.get("creatives", ()), like.id]}
    return Drawn(fields, structs.replace(document, creatives=(*document.creatives, like)), creative, wrong)


def image_creative(
    document: Document, advertiser: Advertiser, name: str, size: Size, picture: Kept | Picture, fields: Fields
) -> tuple[Creative | None, dict[str, str]]:
    """The creative of an uploaded image, or what is wrong with its texts by input."""
    raw: dict[str, Any] = {
        "id": make_id(f"{advertiser.id}-{name}-{size[0]}x{size[1]}", {one.id for one in document.creatives}),
        "advertiser": advertiser.id,
        "kind": "image",
        "size": f"{size[0]}x{size[1]}",
        "image": picture.name,
        "alt": _one(fields, "alt"),
        "click_url": _one(fields, "click_url"),
    }
    wrong = {}
    if not raw["alt"]:
        wrong["alt"] = "Say in words what the image shows: readers who cannot see it hear this"
    if not raw["click_url"]:
        wrong["click_url"] = "Say where a click leads, such as https://www.example.com/spring"
    found, problems = read_entry("creative", {key: value for key, value in raw.items() if value})
    wrong |= {field: complaints.of_field(field, what) for field, what in problems.items() if field not in wrong}
    if wrong or not isinstance(found, Creative):
        return None, wrong
    return structs.replace(found, image_size=picture.size, still=picture.still_name), {}
