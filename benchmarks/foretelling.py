"""How long a forecast takes: a month of 18 slots by the sample configuration, and what helps goals that fall short."""

import random
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from adserver.config_files import read_config
from adserver.documents import Document
from adserver.forecast import View
from adserver.hours import Week
from adserver.model import Goal, LineItem, Measure, Priority
from adserver.simulate import shape
from adserver.targeting import know
from adserver.traffic import STEPS, WEEK_STEPS, Outlook
from adserver.whatif import World, ask
from benchmarks.catalogs import made_up

DAYS = 30
MANY = 10_000
REMEDIES_S = 15.0
VIEWS = 2_000
_TEMPLATES = 40
MOST_S = 20.0
MOST_OF_MANY_S = 60.0
"""What the console waits for."""
_BEGINS = 1_790_000_417.0
_PER_DAY = 2_000
_SECTIONS = ("business", "travel", "sport", "housing", "news", "culture")
_TAGS = ("accident", "rates", "bank", "obituary", "energy")
UNREACHABLE, DEAR = 5_000_000, 20_000
"""Goals that no request could make good, and that remedies have to be tried for."""


def sample() -> Document:
    return read_config(Path(__file__).parent.parent / "config").document


def world(document: Document) -> World:
    """Pages made by forty templates, which ask for different things together."""
    dice = random.Random(3)
    slots = [int(one.id) for one in document.slots]
    groups = [one.id for one in document.groups][:1]
    templates: list[tuple[int | str, ...]] = [
        (*dice.sample(slots, dice.choice((2, 3, 6, 10))), *dice.choice(([], groups))) for _ in range(_TEMPLATES)
    ]
    views = []
    for _ in range(VIEWS):
        asks = dice.choice((tuple(slots[:6]), dice.choice(templates)))
        tags = dice.sample(_TAGS, dice.randrange(3))
        views.append(View(asks, know(section=dice.choice(_SECTIONS), tags=tags)))
    week = [_PER_DAY / STEPS * shape(20_514 + step // STEPS, step % STEPS) for step in range(WEEK_STEPS)]
    weeks = {slot: [n * (1 + at % 4) for n in week] for at, slot in enumerate(slots)}
    outlook = Outlook(weeks, Week(document.site.time_zone))
    return World(outlook, views, {}, _BEGINS, _BEGINS + DAYS * 86_400.0)


def with_short(document: Document, n: int, goal: int) -> Document:
    """*n* more bookings, of the lowest priority that is sold, beside those that already take their slots."""
    like = [one for one in document.line_items if not one.goal and one.share is None and not one.targeting]
    more = [_short(like[5 * number % len(like)], number, goal) for number in range(n)]
    return structs.replace(document, line_items=(*document.line_items, *more))


def _short(like: LineItem, number: int, goal: int) -> LineItem:
    return structs.replace(
        like,
        id=f"short-{number}",
        name=f"Short {number}",
        goal=Goal(goal, Measure.IMPRESSIONS),
        priority=Priority.BULK,
        weight=1.0,
        hours=(),
        starts=_BEGINS - 5 * 86_400,
        ends=_BEGINS + 20 * 86_400,
    )


def measure(told: Callable[[str], None]) -> list[tuple[str, float, float, float]]:
    """What was asked, the seconds and processor seconds that it took, and the most seconds it may take."""
    document = sample()
    found = []
    for what, n, goal in (
        ("a month of 18 slots, as it is", 0, 0),
        ("a month of 18 slots, one unreachable goal", 1, UNREACHABLE),
        ("a month of 18 slots, five unreachable goals", 5, UNREACHABLE),
        ("a month of 18 slots, five goals that something may help", 5, DEAR),
    ):
        told(f"forecast, {what}")
        asked = with_short(document, n, goal)
        began, used = time.perf_counter(), time.process_time()
        ask(world(document), asked, None, lambda _: None)
        found.append((what, time.perf_counter() - began, time.process_time() - used, MOST_S))
    told(f"forecast, a change among {MANY:,} line items")
    asked = many()
    changed = structs.replace(asked, line_items=(*asked.line_items, _short(asked.line_items[0], 0, DEAR)))
    what = f"100 slots and {MANY:,} line items, with a change"
    began, used = time.perf_counter(), time.process_time()
    ask(world(asked), asked, changed, lambda _: None, lambda: time.perf_counter() - began > REMEDIES_S)
    found.append((what, time.perf_counter() - began, time.process_time() - used, MOST_OF_MANY_S))
    return found


def many() -> Document:
    """A catalog of thousands of flights, half of them with goals."""
    dice = random.Random(1)
    document = made_up(100, MANY)
    items = []
    for n, one in enumerate(document.line_items):
        starts = (_BEGINS // 86_400 + dice.randrange(-30, 60)) * 86_400
        goal = Goal(dice.choice((500, 5_000, 50_000)), Measure.IMPRESSIONS) if n % 2 else None
        ends = starts + dice.choice((7, 14, 30)) * 86_400
        items.append(structs.replace(one, starts=starts, ends=ends, goal=goal, weight=1.0))
    return structs.replace(document, line_items=tuple(items))
