"""Advanced Ads' ads, groups and placements as configuration files, and the list of what has no equal here.

An ad there is the place, the booking and the creative at once, so each becomes a slot with the ad's number, which
shortcodes in articles name, a line item in it and a creative. All are of one advertiser, which may be on a page with
several, as there. What is written passes `adserver check`; what would not is left out and said.
"""

import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import tomli_w
from msgspec import Struct, convert

from adserver.advanced_ads.conditions import NoEqual, targeting_of
from adserver.advanced_ads.creative import Made, NotMoved, Read, make_creative
from adserver.advanced_ads.kept import Export, Left, OldAd, OldGroup, OldPlacement, read_clock, say_what
from adserver.checks import check
from adserver.documents import Entry, read_tables
from adserver.errors import BadExport
from adserver.fields import parse_click_url, parse_name, parse_word, parse_zone
from adserver.model import Targeting
from adserver.targeting import why_never

_OWNER = "from-advanced-ads"
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SHOWN = ("publish", "future", "advanced_ads_expired")
_FACTS = {
    "country": (
        "country",
        "adserver knows a reader's country by ADSERVER_COUNTRY_HEADER or ADSERVER_COUNTRY_FILE alone",
    ),
    "url": ("address", "WordPress and Django say a page's address; other templates and proxies have to pass url="),
}
_WHERE = {
    "header": "in the head of each page",
    "footer": "at the end of each page",
    "post_top": "before the text",
    "post_bottom": "after the text",
    "post_content": "within the text",
    "post_content_random": "somewhere within the text",
    "post_content_middle": "in the middle of the text",
    "post_above_headline": "above the headline",
    "archive_pages": "between the posts of lists",
    "sidebar_widget": "in a widget area",
}


_FEW = 5


class NothingMoved(BadExport):
    """None of an export's ads can be moved; *left* says of each why, the text of the first few."""

    def __init__(self, left: tuple[Left, ...]) -> None:
        self.left = left
        named = "; ".join(str(one) for one in left[:_FEW])
        more = f"; and {len(left) - _FEW:,} more" if len(left) > _FEW else ""
        super().__init__(f"holds nothing that could be moved: {named}{more}" if left else "holds no ads")

    def __reduce__(self) -> tuple[Any, ...]:
        """An export that came to the service is moved in a process of its own."""
        return NothingMoved, (self.left,)


class Moved(Struct, frozen=True):
    """Files by name, pictures by the names that the files give them, and what has no equal."""

    files: dict[str, str]
    pictures: dict[str, bytes]
    left: tuple[Left, ...]


class _Row(Struct, frozen=True):
    """The entries that one thing became. *what* names that thing, also to `check`, which tells it back."""

    what: str
    entries: tuple[tuple[str, dict[str, Any]], ...]


def nothing_at_hand(_: str) -> None:
    """For who has no copy of the site's pictures."""


def move(export: Export, read: Read = nothing_at_hand, zone: str | None = None) -> Moved:
    """The catalog that *export* is. *read* gives pictures by their addresses; *zone* is the newsroom's where the export
    names none, and was told to who read it, too. Raises NothingMoved: a directory without slots is no catalog.
    """
    return _Move(export, read, zone).made()


class _Move:
    def __init__(self, export: Export, read: Read, zone: str | None) -> None:
        self._export = export
        self._read = read
        self._left: list[Left] = []
        self._facts: dict[str, list[str]] = {}
        self._pictures: dict[str, bytes] = {}
        self._site = self._make_site(zone)
        self._clock = ZoneInfo(self._site["time_zone"])

    def made(self) -> Moved:
        site, of_site = self._site, len(self._left)
        for one in self._export.left:
            self._leave(one.what, one.why)
        ads = self._checked(self._ads(), ())
        if not ads:
            raise NothingMoved(_once(self._left[of_site:]))
        slots = {row.entries[0][1]["id"] for row in ads}
        groups: dict[int, _Row] = {}
        for group in self._export.groups:
            if (row := self._group(group, slots, again=group.id in groups)) is not None:
                groups[group.id] = row
        named = {str(number) for number in groups}
        placements: dict[str, _Row] = {}
        for placement in self._export.placements:
            if (row := self._placement(placement, slots, named, again=placement.key in placements)) is not None:
                placements[placement.key] = row
        named_or_grouped = self._checked([*groups.values(), *placements.values()], ads)
        creatives = [raw for row in ads for table, raw in row.entries if table == "creative"]
        if any(raw["kind"] == "tag" for raw in creatives):
            site["tags"] = True
        self._say_facts({raw["id"] for raw in creatives})
        used = {raw["image"].partition("/")[2] for raw in creatives if "image" in raw}
        pictures = {name: self._pictures[name] for name in sorted(used)}
        return Moved(self._files(ads, named_or_grouped), pictures, _once(self._left))

    def _leave(self, what: str, why: str) -> None:
        """What an export holds reaches somebody's terminal by this."""
        self._left.append(Left(_printable(what), _printable(why)))

    def _say_facts(self, moved: set[str]) -> None:
        """What is asked of readers and pages here is known only where somebody says it."""
        for kind, owners in self._facts.items():
            n = len(moved.intersection(owners))
            if n:
                who, how = _FACTS[kind]
                self._leave(
                    f"{n} {'ads' if n > 1 else 'ad'} by {who}",
                    f"{how}; where nobody says it, an ad for some is not shown, and one that excludes some is",
                )

    # The site

    def _make_site(self, zone: str | None) -> dict[str, Any]:
        site: dict[str, Any] = {"name": _name(self._export.site, "News")}
        site["time_zone"] = self._zone(self._export.clock, zone)
        with suppress(ValueError):
            site["home_url"] = parse_click_url(f"{self._export.url}/")
        return site

    def _zone(self, clock: str, zone: str | None) -> str:
        what = "the time zone"
        with suppress(ValueError):
            found = parse_zone(clock)
            if zone and zone != found:
                self._leave(what, f"the site keeps {found}, so {zone} is not written")
            return found
        if zone:
            return zone
        offset = read_clock(clock)
        hours = offset.utcoffset(None) / timedelta(hours=1) if isinstance(offset, timezone) else None
        if hours is None:
            self._leave(what, "the export does not name the newsroom's: UTC is written, correct it in site.toml")
            return "UTC"
        with suppress(ValueError):
            found = parse_zone(f"Etc/GMT{-hours:+g}" if hours else "UTC")  # these are named the other way around
            self._leave(what, f"the site keeps {clock}, without summer time: {found} is written, or say --time-zone")
            return found
        self._leave(what, f"the site keeps {clock}, which no zone has: UTC is written, correct it in site.toml")
        return "UTC"

    def _owner(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("advertiser", {"id": _OWNER, "name": self._site["name"], "several": True}),
            ("campaign", {"id": _OWNER, "name": "From Advanced Ads", "advertiser": _OWNER}),
        ]

    # Ads

    def _ads(self) -> list[_Row]:
        rows: dict[int, _Row] = {}
        for ad in self._export.ads:
            what = say_what("ad", ad.id, ad.title)
            if ad.id in rows:
                self._leave(what, "another ad has the same id")
                continue
            if ad.status not in _SHOWN:
                self._leave(what, f"is not published there ({ad.status})")
                continue
            if ad.status == "advanced_ads_expired" and ad.ends is None:
                self._leave(what, "has expired")
                continue
            try:
                made = make_creative(ad, self._read)
            except NotMoved as error:
                self._leave(what, str(error))
                continue
            rows[ad.id] = _Row(what, tuple(self._entries(ad, what, made)))
        return list(rows.values())

    def _entries(self, ad: OldAd, what: str, made: Made) -> list[tuple[str, dict[str, Any]]]:
        for note in made.notes:
            self._leave(what, note)
        self._pictures |= made.pictures
        name, one = _name(ad.title, f"Ad {ad.id}"), f"ad-{ad.id}"
        if ad.title and name != ad.title:
            self._leave(what, f"its title cannot be a name as it is; it is {name!r} now")
        return [
            ("slot", {"id": ad.id, "name": name, "size": made.size}),
            ("line_item", {"id": one, "name": name, "campaign": _OWNER, "priority": "standard", "slots": [ad.id],
                           "creatives": [one], **self._booking(ad, what)}),
            ("creative", {"id": one, "advertiser": _OWNER, "size": made.size, **made.fields}),
        ]  # fmt: skip

    def _booking(self, ad: OldAd, what: str) -> dict[str, Any]:
        """When, for whom, and how much of it shows."""
        booking: dict[str, Any] = {}
        starts = ad.starts if ad.status == "future" or _is_paced(ad) else None
        for field, instant in (("starts", starts), ("ends", ad.ends)):
            if instant is not None:
                try:
                    booking[field] = datetime.fromtimestamp(instant, self._clock)
                except (ValueError, OverflowError, OSError):
                    booking["weight"] = 0
                    self._leave(
                        what,
                        f"{field} at an instant that is none ({instant:.0f}); it has weight 0, so it does not show",
                    )
        for field, missing in (("starts", ad.status == "future" and ad.starts is None), ("ends", _ends_sometime(ad))):
            if missing:
                booking["weight"] = 0
                self._leave(what, f"{field} at an instant that cannot be read; it has weight 0, so it does not show")
        if ad.days is not None:
            hours = [f"{_DAYS[day]} 00:00-24:00" for day in dict.fromkeys(ad.days) if 0 <= day < len(_DAYS)]
            if hours and len(hours) < len(_DAYS):
                booking["hours"] = hours
            elif not hours:
                booking["weight"] = 0
                self._leave(what, "shows on no day of the week; it has weight 0")
        try:
            targeting = _both(targeting_of(ad.display), targeting_of(ad.visitors))
            if targeting:
                booking["targeting"] = targeting
            for kind in {kind for terms in targeting.values() for kind in terms if kind in _FACTS}:
                self._facts.setdefault(kind, []).append(f"ad-{ad.id}")
        except NoEqual as error:
            booking["weight"] = 0
            self._leave(
                what, f"shows under conditions that have no equal ({error}); it has weight 0, so it does not show: "
                "set its targeting, then its weight"
            )  # fmt: skip
        return {**booking, **self._goal(ad, what)}

    def _goal(self, ad: OldAd, what: str) -> dict[str, Any]:
        """The tracking add-on ends an ad after so many impressions or clicks."""
        limits, unreadable = _limits(ad)
        if unreadable:
            self._leave(what, f"ends after {unreadable}, which cannot be read; it has weight 0, so it does not show")
            return {"weight": 0}
        if not limits:
            return {}
        goal = next(iter(limits))
        self._leave(what, f"ends after {limits[goal]:,} {goal}, which are counted from 0 again")
        if len(limits) > 1:
            self._leave(what, f"ends after {limits['clicks']:,} clicks, too; a booking has one goal")
        return {"goal": {goal: limits[goal]}, "pacing": "even" if _is_paced(ad) else "asap"}

    # Groups and placements

    def _group(self, group: OldGroup, slots: set[int], *, again: bool) -> _Row | None:
        what = say_what("group", group.id, group.name)
        if again:
            self._leave(what, "another group has the same id")
            return None
        weights = {ad: weight for ad, weight in group.weights.items() if weight > 0 and ad in slots}
        if not weights:
            self._leave(what, "has no ad that was moved and has a weight")
            return None
        if group.kind != "default":
            self._leave(what, f"shows its ads as {group.kind!r:.40}; here one is chosen by weight")
        if group.shown != 1:
            self._leave(
                what,
                "shows several ads at once; here it shows one: repeat the shortcode, or put the slots side by side",
            )
        members = [{"slot": ad, "weight": weight} for ad, weight in weights.items()]
        return _Row(
            what, (("group", {"id": str(group.id), "name": _name(group.name, f"Group {group.id}"), "slots": members}),)
        )

    def _placement(self, placement: OldPlacement, slots: set[int], groups: set[str], *, again: bool) -> _Row | None:
        what = say_what("placement", placement.key[:80], placement.name)
        if again:
            self._leave(what, "another placement has the same id")
            return None
        if not placement.published:
            self._leave(what, "is not published there")
            return None
        kind, _, number = placement.item.partition("_")
        if kind == "ad" and re.fullmatch("[0-9]{1,10}", number, re.ASCII) and int(number) in slots:
            item: dict[str, Any] = {"slot": int(number)}
        elif kind == "group" and number in groups:
            item = {"group": number}
        else:
            self._leave(what, "shows an ad or a group that was not moved" if placement.item else "shows nothing")
            return None
        try:
            parse_word(placement.key)
        except ValueError as error:
            self._leave(what, f"its id {error}")
            return None
        if placement.conditions and placement.kind == "default":
            self._leave(
                what, "shows on some pages or to some readers alone, which a placement cannot say here; it stands in "
                "pages by itself, so it is left out: target its bookings, then add it"
            )  # fmt: skip
            return None
        if placement.kind != "default":
            where = _WHERE.get(placement.kind, f"as {placement.kind!r:.40}")
            how = f'[the_ad_placement id="{placement.key}"]'
            self._leave(what, f"Advanced Ads put it {where} by itself; put {how} there, or adserver's block or widget")
        if placement.conditions:
            self._leave(
                what, "shows on some pages or to some readers alone; put it on those pages, or target its bookings"
            )
        return _Row(what, (("placement", {"id": placement.key, "name": _name(placement.name, placement.key), **item}),))

    # The whole

    def _checked(self, rows: list[_Row], beside: "tuple[_Row, ...] | list[_Row]") -> list[_Row]:
        """Those of *rows* that `check` finds nothing wrong with; the others are left."""
        while True:
            entries = [Entry("the site", "site", {**self._site, "tags": True})]
            entries += [Entry("the site", table, raw) for table, raw in self._owner()]
            entries += [Entry(row.what, table, raw) for row in (*beside, *rows) for table, raw in row.entries]
            document, known, problems = read_tables(entries)
            wrong: dict[str, list[str]] = {}
            for problem in [*problems, *check(document, known)]:
                whose = next((row.what for row in rows if problem.where.startswith(f"{row.what}: ")), None)
                if whose is None:
                    raise AssertionError(f"what was moved before is wrong now: {problem}")
                wrong.setdefault(whose, []).append(problem.what)
            if not wrong:
                return rows
            for what, problems_of in wrong.items():
                self._leave(what, "; ".join(dict.fromkeys(problems_of)))
            rows = [row for row in rows if row.what not in wrong]

    def _files(self, ads: list[_Row], others: list[_Row]) -> dict[str, str]:
        entries = [one for row in ads for one in row.entries]
        slots = [one for one in entries if one[0] == "slot"] + [one for row in others for one in row.entries]
        bookings = [*self._owner(), *(one for one in entries if one[0] != "slot")]
        files = {"site.toml": [("site", self._site)], "slots.toml": slots, "bookings.toml": bookings}
        head = f"# Moved from Advanced Ads{' of ' + self._export.url if _plain(self._export.url) else ''}.\n"
        return {name: head + "".join(_write(*one) for one in found) for name, found in files.items()}


def _once(left: list[Left]) -> tuple[Left, ...]:
    return tuple(dict.fromkeys(left))


def _write(table: str, raw: dict[str, Any]) -> str:
    """An entry as a person would write it."""
    if table == "site":
        return f"\n[site]\n{tomli_w.dumps(raw)}"
    text = tomli_w.dumps({table: [raw]}, multiline_strings=True)
    if text.startswith(f"{table} = "):  # what is short is written in one line
        text = f"[[{table}]]\n{tomli_w.dumps(raw)}"
    return f"\n{text}"


def _both(pages: dict[str, Any], readers: dict[str, Any]) -> dict[str, Any]:
    """What holds for pages and for readers: Advanced Ads asks both. Raises NoEqual where both are alternatives, and
    where nobody can be all that is asked.
    """
    if "any" in pages and "any" in readers:
        raise NoEqual("alternatives for pages and for readers at once")
    both = {table: {**pages.get(table, {})} for table in [*pages, *readers]}
    for table, terms in readers.items():
        for kind, values in terms.items():
            both[table][kind] = [*both[table].get(kind, []), *values]
    if why := why_never(convert(both, Targeting)):
        raise NoEqual(why)
    return both


def _ends_sometime(ad: OldAd) -> bool:
    """Whether something is kept as its end that is no instant."""
    return ad.ends is None and ad.options.get("expiry_date") not in (None, False, 0, "", "0")


def _limits(ad: OldAd) -> tuple[dict[str, int], str]:
    """Measures of goals and how many of each, as the tracking add-on keeps them; and what of these is no number."""
    tracking = ad.options.get("tracking")
    found, unreadable = {}, []
    for goal, key in (("impressions", "impression_limit"), ("clicks", "click_limit")):
        kept = tracking.get(key) if isinstance(tracking, dict) else None
        if kept in (None, False, 0, "", "0"):
            continue
        if isinstance(kept, int | str) and re.fullmatch("[1-9][0-9]{0,11}", str(kept).strip(), re.ASCII):
            found[goal] = int(kept)
        else:
            unreadable.append(f"{kept!r:.40} {goal}")
    return found, " and ".join(unreadable)


def _is_paced(ad: OldAd) -> bool:
    """Whether it has a limit, which is spread over the time until its end."""
    return ad.starts is not None and ad.ends is not None and ad.starts < ad.ends and bool(_limits(ad)[0])


def _printable(text: str) -> str:
    """*text* in one line of moderate length, and nothing in it that a terminal obeys."""
    return "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))[:500]


def _name(text: str, other: str) -> str:
    """*text* as a name, or *other* where it cannot be one."""
    try:
        return parse_name(text[:200])
    except ValueError:
        return other


def _plain(url: str) -> bool:
    return re.fullmatch(r"https?://[!-~]{1,200}", url) is not None
