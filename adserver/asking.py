"""Commands that ask the decision without serving anything: `explain` and `simulate`.

What they need is imported when they run, so that other commands start quickly.
"""

import argparse
import asyncio
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from adserver.columns import columns
from adserver.errors import AdserverError
from adserver.settings import Settings

DONE = 0


class BadQuestion(AdserverError):
    """What was asked for cannot be: the words say why."""


def explain(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadQuestion, StoreUnavailable or StoreRefused."""
    from adserver.decide import Page
    from adserver.explain import explain
    from adserver.model import SlotId
    from adserver.targeting import know

    catalog, pace, now = asyncio.run(_read(settings, options.at))
    keys: dict[str, list[str]] = {}
    for pair in options.key:
        name, _, value = pair.partition("=")
        keys.setdefault(name, []).append(value)
    said = {name: getattr(options, name) for name in ("section", "url", "lang", "country", "device")}
    context = know(tags=options.tag, keys=keys, **said)
    held: dict[str, str] | None = {} if options.fresh_reader else None
    page = Page(tuple(SlotId(slot) for slot in options.slots), context=context, held=held)
    found = explain(catalog, now, page, defaultdict(lambda: options.view), pace)
    if options.json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return DONE
    for number, one in enumerate(found):
        rows = [[row.line_item, row.priority, row.step or "shows", row.reason] for row in one.candidates]
        print("\n" * bool(number) + f"{one.slot}, {one.at}, version {one.version}", one.sentence, sep="\n")
        if rows:
            print("", columns(["line item", "priority", "step", "reason"], rows), sep="\n", end="")
    return DONE


async def _read(settings: Settings, at: str | None) -> tuple[Any, Any, float]:
    """The live catalog, the pace its workers keep, and the instant asked about."""
    from adserver.catalog import Catalog
    from adserver.pacer import read_pace
    from adserver.publish import export
    from adserver.store import open_store

    async with open_store(settings.store_url) as store:
        live = await export(store)
        if live is None:
            raise BadQuestion("nothing is published yet; start the service, or publish with 'adserver apply'")
        catalog = Catalog(live[0].document, live[0].number)
        instant = _instant(at, catalog.document.site.time_zone)
        return catalog, await read_pace(store, catalog, time.time(), instant if at else None), instant


def _instant(text: str | None, time_zone: str) -> float:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    if not text:
        return time.time()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadQuestion(f"--at {text!r:.60}: expected an instant, such as 2026-03-10T09:00") from None
    return (at if at.tzinfo else at.replace(tzinfo=ZoneInfo(time_zone))).timestamp()


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
    explained.add_argument("slots", metavar="SLOT", type=int, nargs="+", help="slot id; several make a page")
    explained.add_argument("--at", metavar="INSTANT", help="such as 2026-03-10T09:00, newsroom time (default: now)")
    explained.add_argument("--view", metavar="N", type=int, default=0, help="which view it is (default: 0)")
    for name in ("section", "url", "lang", "country", "device"):
        explained.add_argument(f"--{name}", metavar="TEXT", default="", help=f"the page's {name}, as in a request")
    explained.add_argument("--tag", metavar="TEXT", action="append", default=[], help="a tag of the page; repeat it")
    explained.add_argument(
        "--key", metavar="NAME=TEXT", action="append", default=[], help="a key of the site's own; repeat it"
    )
    explained.add_argument(
        "--fresh-reader", action="store_true", help="for a known reader who has seen nothing yet (default: unknown)"
    )
    explained.add_argument("--json", action="store_true", help="the same as JSON")
    add_store(explained)
    simulated = add("simulate", simulate, "pace goals through days of made-up traffic, and compare")
    simulated.description = (
        "Send made-up traffic (quiet nights, weekends, noise, an hour of four times as many readers that nobody "
        "foresaw) through the real deciding and pacing, with several workers that hear of each other a second late. "
        "Goals of 40 % and 85 % of the supply and one of 20 are paced evenly, by the clock alone, and as fast as "
        "possible. Touches no store."
    )
    simulated.add_argument("--days", metavar="N", type=_above_0, default=3, help="length of the flight (default: 3)")
    simulated.add_argument(
        "--requests", metavar="N", type=_above_0, default=10_000, help="of each slot and day (default: 10,000)"
    )
    simulated.add_argument(
        "--workers", dest="many", metavar="N", type=_above_0, default=4, help="worker processes (default: 4)"
    )
    simulated.add_argument("--seed", metavar="N", type=int, default=1, help="of the noise (default: 1)")


def _above_0(text: str) -> int:
    n = int(text)
    if n < 1:
        raise ValueError
    return n
