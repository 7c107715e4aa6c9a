"""Commands that ask the decision without serving anything: `explain`, `forecast`, `receipt` and `simulate`.

What they need is imported when they run, so that other commands start quickly.
"""

import argparse
import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from adserver.columns import columns
from adserver.errors import AdserverError
from adserver.model import DEVICES
from adserver.settings import Settings

DONE = 0
_CAPPED = "How often each reader comes back is not foretold: they may deliver less, and others more."


class BadQuestion(AdserverError):
    """What was asked for cannot be: the words say why."""


def explain(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadQuestion, StoreUnavailable or StoreRefused."""
    from adserver.capping import hold_at_first
    from adserver.decide import Page
    from adserver.explain import explain
    from adserver.model import SlotId
    from adserver.targeting import know, withhold

    catalog, pace, now = asyncio.run(_read(settings, options.at))
    keys: dict[str, list[str]] = {}
    for pair in options.key:
        name, _, value = pair.partition("=")
        keys.setdefault(name, []).append(value)
    said = {name: getattr(options, name) for name in ("section", "url", "lang", "country", "device")}
    context = know(tags=options.tag, keys=keys, **said)
    slots = tuple(SlotId(slot) for slot in options.slots)
    if not options.consent and not catalog.third_party.isdisjoint(slots):  # as serving does
        context = withhold(context)
    page = Page(slots, context=context)
    if options.fresh_reader:
        held = hold_at_first(catalog, slots, now)
        page = Page(slots, context=context, held=held.line_items, left=held.left)
    view = int(now) if options.view is None else options.view  # which view comes at an instant, nobody can tell
    found = explain(catalog, now, page, defaultdict(lambda: view), pace)
    if options.json:
        told = [{**msgspec.structs.asdict(one), "view": view} for one in found]
        sys.stdout.write(msgspec.json.encode(told).decode() + "\n")
        return DONE
    _print_explanations(found)
    return DONE


def _print_explanations(found: list[Any]) -> None:
    for number, one in enumerate(found):
        rows = [[row.line_item, row.priority, row.step or "shows", row.reason] for row in one.candidates]
        print("\n" * bool(number) + f"{one.slot}, {one.at}, version {one.version}", one.sentence, sep="\n")
        if rows:
            print("", columns(["line item", "priority", "step", "reason"], rows), sep="\n", end="")


async def _read(settings: Settings, at: str | None) -> tuple[Any, Any, float]:
    """The catalog that is live at the instant asked about, the pace its workers keep then, and that instant."""
    from adserver.archive import open_book
    from adserver.catalog import Catalog
    from adserver.pacer import read_pace
    from adserver.publish import export
    from adserver.store import open_store
    from adserver.versions import read_version_at

    book = open_book(settings.archive_url, settings.data)
    async with open_store(settings.store_url) as store:
        live = await export(store)
        if live is None:
            raise BadQuestion("nothing is published yet; start the service, or publish with 'adserver apply'")
        version, now = live[0], time.time()
        if at is None:
            catalog = Catalog(version.document, version.number)
            return catalog, await read_pace(store, catalog, now, book=book), now
        instant = _instant(at, version.document.site.time_zone, now)
        if instant < now:
            was = await read_version_at(store, instant)
            if was is None:
                raise BadQuestion(f"--at {at!r:.60}: nothing was published then; the first version came later")
            version = was
        catalog = Catalog(version.document, version.number)
        return catalog, await read_pace(store, catalog, now, instant, book=book), instant


def _instant(text: str, time_zone: str, now: float) -> float:
    """Within as many days of *now* as a preview is. Raises BadQuestion."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from adserver.versions import FARTHEST_S

    far = f"--at {text!r:.60} lies more than {FARTHEST_S / 86_400:.0f} days away"
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadQuestion(f"--at {text!r:.60}: expected an instant, such as 2026-03-10T09:00") from None
    try:
        instant = (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(time_zone))).timestamp()
    except (OverflowError, ValueError):
        raise BadQuestion(far) from None
    if abs(instant - now) > FARTHEST_S:
        raise BadQuestion(far)
    return instant


def forecast(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadQuestion, ConfigError, StoreUnavailable or StoreRefused."""
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from adserver.config_files import read_changes, rows_of
    from adserver.errors import ConfigError
    from adserver.whatif import ask, change

    document, world = asyncio.run(_read_world(settings, options.days))
    changed = None
    if options.changes:
        tables = read_changes(options.changes)
        changed, problems = change(document, rows_of(document), tables, options.changes)
        if problems:
            raise ConfigError(problems)
    if options.draft:
        changed = asyncio.run(_read_drafted(settings, options.draft, document))
    began = time.monotonic()
    found = ask(
        world, document, changed, Progress("forecast"), lambda: time.monotonic() - began >= options.remedies_within
    )
    zone = ZoneInfo(document.site.time_zone)

    def say(at: float | None) -> str:
        return datetime.fromtimestamp(at, zone).isoformat(timespec="minutes") if at is not None else ""

    if options.json:
        sys.stdout.write(msgspec.json.encode(answer_of(world, found, say)).decode() + "\n")
        return DONE
    print(f"{say(world.begins)} to {say(world.ends)}{', with ' + options.changes if changed else ''}\n")
    print_forecast(found, {one.id: one for one in (changed or document).line_items}, say)
    return DONE


def answer_of(world: Any, found: Any, say: Callable[[float | None], str]) -> dict[str, Any]:
    """A forecast's answer for programs. *say* makes words of an instant."""
    return {
        "from": say(world.begins),
        "to": say(world.ends),
        "line_items": [
            {**msgspec.to_builtins(one), "reached_at": say(one.reached_at) or None, "counted": round(one.counted),
             "short": round(one.short), **_say_remedies(found.remedies.get(one.line_item))}
            for one in found.line_items
        ],
        "hurts": [msgspec.to_builtins(one) for one in found.hurts],
    }  # fmt: skip


def print_forecast(found: Any, items: Mapping[str, Any], say: Callable[[float | None], str]) -> None:
    """The same for people. *items* are the line items by id."""
    rows: list[list[Any]] = []
    for one in found.line_items:
        measure = items[one.line_item].goal
        what = measure.of.value if measure else "impressions"
        goal = f"{one.goal:,} a day" if one.daily else one.goal
        state = ", ".join(filter(None, (_state(one, say), "at most" if one.capped else "")))
        rows.append([one.line_item, what, one.before, round(one.counted), goal, state])
    print(columns(["line item", "of", "so far", "by then", "goal", ""], rows), end="")
    if capped := [items[one.line_item].name for one in found.line_items if one.capped]:
        print(f"At most, because of a frequency cap: {'; '.join(capped)}. {_CAPPED}")
    for hurt in found.hurts:
        name = items[hurt.line_item].name if hurt.line_item in items else hurt.line_item
        lost = f"{1 - hurt.having / hurt.without:.0%}"
        print(f"*{name}* loses {lost} by it: {hurt.having:,.0f} instead of {hurt.without:,.0f}.")
    for one in found.line_items:
        if remedies := found.remedies.get(one.line_item):
            print(_sentence(items[one.line_item].name, one, remedies))


def _state(one: Any, say: Callable[[float | None], str]) -> str:
    """How a line item's goal does, in a few words."""
    if one.goal is None:
        return ""
    if one.daily:
        if not one.daily.days:
            return "none of its days is over"
        reached = f"reached on {one.daily.reached} of {one.daily.days} days"
        return f"{reached}, {one.short:,.0f} short in all" if one.short else reached
    if one.reached_at is not None:
        return f"reached {say(one.reached_at)}"
    if not one.over:
        return "not yet over"
    return f"{one.short:,.0f} short" if one.short else "reached"


def _say_remedies(remedies: Any) -> dict[str, Any]:
    """For programs: null where none is needed, the words "not tried" where there was time for none."""
    if remedies is None:
        return {"remedies": None, "not_tried": []}
    none_tried = remedies.not_tried and not remedies.tried
    return {"remedies": "not tried" if none_tried else remedies.works, "not_tried": remedies.not_tried}


def _sentence(name: str, one: Any, remedies: Any) -> str:
    """What helps a line item that falls short, for people."""
    short = "falls short"
    if one.daily:
        short += f" on {one.daily.days - one.daily.reached} of {one.daily.days} days"
    if remedies.works:
        helps = f" What reaches its goal: {'; or '.join(remedies.works)}."
    elif remedies.tried:
        helps = " No longer flight, slot or priority that was tried is enough."
    elif remedies.not_tried:
        helps = ""
    else:
        helps = " There is no longer flight, slot or priority to try."
    if remedies.not_tried:
        helps += f" Not tried for want of time (--remedies-within): {'; '.join(remedies.not_tried)}."
    return f"*{name}* {short}.{helps}"


async def _read_world(settings: Settings, days_ahead: int) -> Any:
    """The live document, and everything a forecast begins with."""
    from adserver.archive import open_book
    from adserver.catalog import Catalog
    from adserver.curves import SAMPLED_DAYS, read_pages
    from adserver.days import Days
    from adserver.delivered import Delivered
    from adserver.forecast import Before, View, measure_of
    from adserver.pacer import correct, read_outlook, with_young
    from adserver.pacing import Figures, usual
    from adserver.publish import export
    from adserver.store import open_store
    from adserver.whatif import World

    async with open_store(settings.store_url) as store:
        live = await export(store)
        if live is None:
            raise BadQuestion("nothing is published yet; start the service, or publish with 'adserver apply'")
        document, now = live[0].document, time.time()
        catalog, days = Catalog(document, live[0].number), Days(document.site.time_zone)
        today, _ = days.locate(now)
        slots = sorted(catalog.slots)
        outlook = await with_young(store, await read_outlook(store, catalog, today, slots), slots, days, now)
        if not outlook.weeks:
            raise BadQuestion("no traffic is recorded yet; ask again when pages have asked for ads for some minutes")
        await correct(store, outlook, slots, days, now)
        delivered = Delivered(open_book(settings.archive_url, settings.data), everything=True)
        await delivered.refresh(store, catalog, days, now)
        pages = await read_pages(store, range(today - SAMPLED_DAYS + 1, today + 1))
        views = [View(one.asks, one.context) for one in pages]
        whole, of_today = delivered.totals(), delivered.totals(today)
        before = {}
        for one in document.line_items:
            found, measure = whole.get(one.id, Figures()), measure_of(one)
            so_far = of_today.get(one.id, Figures()).of(measure)
            before[one.id] = Before(found.of(measure), found.served, so_far)
        return document, World(outlook, views, before, now, now + days_ahead * 86_400.0, usual(whole.values()))


async def _read_drafted(settings: Settings, person: str, document: Any) -> Any:
    """The live document with *person*'s draft in the console on top."""
    from adserver.console.desk import read_draft
    from adserver.console.drafts import apply
    from adserver.store import open_store

    async with open_store(settings.store_url) as store:
        draft = await read_draft(store, person, 0)
    if not draft:
        raise BadQuestion(f"--draft {person!r:.60}: nobody of that name has a draft in the console")
    return apply(document, draft)


def receipt(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadQuestion, StoreUnavailable or StoreRefused."""
    from adserver.explain import tell
    from adserver.keeping import find
    from adserver.receipts import LONGEST_PAGE, decide_again, parse_id

    try:
        issuer, serial = parse_id(options.id)
    except ValueError as error:
        raise BadQuestion(f"{options.id!r:.80}: {error}") from None
    kept = find(settings.receipts, issuer, serial)
    if kept is None:
        raise BadQuestion(
            f"no receipt is kept of it in {settings.receipts}: it is too old, was served by another machine or only "
            "seconds ago and is not written yet, or was one of more than ADSERVER_RECEIPTS_PER_SECOND, of which a "
            "sample is kept"
        )
    if not kept.whole:
        raise BadQuestion(
            f"of its page too little is kept to decide it again: it had more than {LONGEST_PAGE:,} bytes of what "
            f"decides; {kept.n:,} ads were served together, by version {kept.version} of the catalog"
        )
    catalog = asyncio.run(_read_version(settings, kept.version))
    _, decisions, trace, same = decide_again(catalog, kept)
    found = tell(catalog, kept.at, decisions, trace)
    if options.json:
        sys.stdout.write(msgspec.json.encode({"same": same, "decisions": found}).decode() + "\n")
    else:
        _print_explanations(found)
        print("\nDecided again: the same." if same else "\nDecided again, another ad wins. This should not be.")
    return DONE if same else 1


async def _read_version(settings: Settings, number: int) -> Any:
    from adserver.catalog import Catalog
    from adserver.store import open_store
    from adserver.versions import read_version

    async with open_store(settings.store_url) as store:
        version = await read_version(store, number)
    if version is None:
        raise BadQuestion(f"version {number} of the catalog is not in the store any more")
    return Catalog(version.document, number)


def simulate(_: Settings, options: argparse.Namespace) -> int:
    """Pace goals through made-up days, by our rule and by two others."""
    from adserver.simulate import RULES, Settings, simulate, split

    given = Settings(options.days, options.requests, options.many, options.seed)
    rows = []
    for rule in RULES:
        for one in simulate(given, rule, Progress(rule)):
            sold = "-" if one.sold is None else f"{one.sold:.0%}"
            ended = [f"{one.goal:,}", f"{one.delivered:,}", f"{one.reached:.2%}"]
            rows.append([one.rule, sold, *ended, f"{one.unevenness:.3f}", f"{one.longest_gap_h:.1f}"])
    titles = ["pacing", "of supply", "goal", "delivered", "reached", "unevenness", "longest gap, h"]
    print(columns(titles, rows), end="")
    picks = 10_000
    off = ", ".join(f"{n:+d}" for n in split(picks, given.workers, given.seed))
    print(f"sponsorships of 60, 30 and 10 % after {picks:,} picks over {given.workers} workers: {off} from exact")
    return DONE


class Progress:
    """A bar on the terminal, and silence elsewhere."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = -1

    def __call__(self, done: float) -> None:
        percent = int(done * 100)
        if percent != self._shown and sys.stderr.isatty():
            self._shown = percent
            bar = "#" * (percent // 4)
            print(f"\r{self._what:<10} [{bar:<25}] {percent:3} %", end="", file=sys.stderr, flush=True)
            if percent == 100:
                print("\r" + " " * 50 + "\r", end="", file=sys.stderr, flush=True)


def add_commands(add: Callable[..., argparse.ArgumentParser], add_store: Callable[[Any], None]) -> None:
    """Add this module's commands to the command line."""
    explained = add("explain", explain, "why an ad shows in a slot, or why none does")
    explained.description = (
        "Ask the live catalog what it would show and why: one sentence, and every booking with what removed it. "
        "Several slots are decided as one page. Nothing is counted."
    )
    slot, view = _within("as an ad id", 1, 2**32 - 1), _within("views", 0, 2**32 - 1)
    explained.add_argument("slots", metavar="SLOT", type=slot, nargs="+", help="slot id; several make a page")
    explained.add_argument(
        "--at", metavar="INSTANT", help="such as 2026-03-10T09:00, newsroom time, at most 400 days away (default: now)"
    )
    explained.add_argument(
        "--view",
        metavar="N",
        type=view,
        help="which view of its slots it is, from 0 (default: one that the instant gives)",
    )
    for name in ("section", "url", "lang", "country"):
        explained.add_argument(f"--{name}", metavar="TEXT", default="", help=f"the page's {name}, as in a request")
    explained.add_argument("--device", type=str.lower, choices=DEVICES, default="", help="what the page is read on")
    explained.add_argument("--tag", metavar="TEXT", action="append", default=[], help="a tag of the page; repeat it")
    explained.add_argument(
        "--key", metavar="NAME=TEXT", action="append", default=[], help="a key of the site's own; repeat it"
    )
    explained.add_argument(
        "--fresh-reader", action="store_true", help="for a known reader who has seen nothing yet (default: unknown)"
    )
    explained.add_argument(
        "--consent",
        action="store_true",
        help="for a reader who has consented to third parties' tags (default: as a page that says nothing of it)",
    )
    explained.add_argument("--json", action="store_true", help="the same as JSON, and which view it was")
    add_store(explained)
    forecasted = add("forecast", forecast, "what each booking will deliver, and whom a change would hurt")
    forecasted.description = (
        "Ask the recorded traffic again, hour by hour, through the real deciding and pacing: what each line item will "
        "have delivered, when its goal is reached, and what would help one that falls short (a longer flight, a slot "
        "more, a higher priority; each is tried, while there is time). With --with also what a change costs others. "
        "What has a frequency cap gets the pages that name a reader, and as if each reader came once: its figures are "
        "the most it can deliver (in JSON 'capped': true). Nothing is published."
    )
    forecasted.add_argument(
        "--days", metavar="N", type=_days, default=30, help="how far ahead, 1 to 400 days (default: 30)"
    )
    forecasted.add_argument(
        "--remedies-within",
        metavar="S",
        type=_within("seconds", 0, 86_400),
        default=15,
        help="so many seconds after it began no remedy is tried any more; 0 tries none (default: 15)",
    )
    forecasted.add_argument(
        "--with", dest="changes", metavar="FILE", help="tables of the configuration to add, or to put in place by id"
    )
    forecasted.add_argument("--draft", metavar="PERSON", help="what a person has in the console and not published yet")
    forecasted.add_argument("--json", action="store_true", help="print JSON")
    add_store(forecasted)
    receipted = add("receipt", receipt, "what an ad that was served was decided by, decided once more")
    receipted.description = (
        "Find what a decision was made of and make it again: the same winner, and why everybody else lost. The id is "
        "16 characters of the tokens in each snippet, the 9th to the 24th; a whole token, address or snippet will do. "
        "Receipts are kept on the machine that served, for 30 days (ADSERVER_RECEIPT_DAYS). Exit code 1 where the "
        "decision comes out differently."
    )
    receipted.add_argument("id", metavar="ID", help="a decision's id, or anything that holds a token")
    receipted.add_argument("--json", action="store_true", help="print JSON")
    add_store(receipted)
    simulated = add("simulate", simulate, "pace goals through days of made-up traffic, and compare")
    simulated.description = (
        "Send made-up traffic (quiet nights, weekends, noise, an hour of four times as many readers that nobody "
        "foresaw) through the real deciding and pacing, with several workers that hear of each other a second late. "
        "Goals of 40 % and 85 % of the supply and one of 20 are paced evenly, by the clock alone, and as fast as "
        "possible. Touches no store."
    )
    simulated.add_argument(
        "--days", metavar="N", type=_days, default=7, help="length of the flight, 1 to 400 days (default: 7)"
    )
    simulated.add_argument(
        "--requests",
        metavar="N",
        type=_within("requests of each slot and day", 100, 100_000_000),
        default=2_500,
        help="of each slot and day, 100 or more (default: 2,500)",
    )
    simulated.add_argument(
        "--workers",
        dest="many",
        metavar="N",
        type=_within("workers", 1, 1_000),
        default=4,
        help="worker processes (default: 4)",
    )
    simulated.add_argument("--seed", metavar="N", type=int, default=1, help="of the noise (default: 1)")


def _within(what: str, least: int, most: int) -> Callable[[str], int]:
    """Reads a number with bounds, and says them where it is none."""

    def read(text: str) -> int:
        try:
            n = int(text)
        except ValueError:  # or more digits than Python reads
            n = least - 1
        if not least <= n <= most:
            raise argparse.ArgumentTypeError(f"{text!r:.40}: expected {least:,} to {most:,} {what}")
        return n

    return read


_days = _within("days", 1, 400)
