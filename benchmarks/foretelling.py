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

DAYS = 30
VIEWS = 2_000
_TEMPLATES = 40
MOST_S = 20.0
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
    templates: list[tuple[int | str, ...]] = [
        (*dice.sample(slots, dice.choice((2, 3, 6, 10))), *dice.choice(([], ["side-rail"]))) for _ in range(_TEMPLATES)
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


def measure(told: Callable[[str], None]) -> list[tuple[str, float, float]]:
    """What was asked, and the seconds and processor seconds that it took."""
    document = sample()
    found = []
    for what, n, goal in (
        ("as it is", 0, 0),
        ("one unreachable goal", 1, UNREACHABLE),
        ("five unreachable goals", 5, UNREACHABLE),
        ("five goals that something may help", 5, DEAR),
    ):
        told(f"forecast, {what}")
        asked = with_short(document, n, goal)
        began, used = time.perf_counter(), time.process_time()
        ask(world(document), asked, None, lambda _: None)
        found.append((what, time.perf_counter() - began, time.process_time() - used))
    return found
