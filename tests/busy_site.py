"""A site as large as they come, made up: 18 slots, 1,000 line items, 200 of them with a goal, and pages that are all
different. Its goals are planned every second, as they are while serving.
"""

import random
from collections.abc import Iterator, Mapping

from msgspec import structs

from adserver.catalog import Catalog
from adserver.days import Days
from adserver.decide import Filled, Page, decide
from adserver.hours import Week
from adserver.model import Cap, Goal, Group, LineItem, Measure, Priority, Rotation, SlotId, Targeting, Terms
from adserver.pacing import Figures
from adserver.planner import Heard, Planner
from adserver.targeting import Context, know
from adserver.traffic import Outlook, flat
from tests.make import NOON, creative, document, group, line_item

SLOTS = tuple(SlotId(889977 + n) for n in range(18))
SECTIONS = ("business", "sport", "culture", "town", "world", "opinion", "science", "travel")
DAY = 86_400.0


def booked(dice: random.Random) -> Catalog:
    items: list[LineItem] = []
    creatives = []
    for n in range(1000):
        names = tuple(f"creative-{n}-{m}" for m in range(dice.randint(1, 3)))
        creatives += [creative(name) for name in names]
        daily = dice.random() < 0.3
        goal = Goal(dice.choice([3_000, 20_000, 150_000, 800_000]), Measure.IMPRESSIONS, daily=daily)
        kind = Priority.STANDARD if n < 200 else dice.choice([Priority.STANDARD, Priority.BULK, Priority.HOUSE])
        terms = Terms(
            section=(dice.choice(SECTIONS),) if dice.random() < 0.6 else (),
            tag=(f"tag {dice.randrange(400)}",) if dice.random() < 0.3 else (),
            url=(f"https://courier.example/{dice.choice(SECTIONS)}/",) if dice.random() < 0.2 else (),
            device=("mobile",) if dice.random() < 0.1 else (),
        )
        items.append(
            line_item(
                f"autumn-campaign-{n}",
                priority=Priority.SPONSORSHIP if 200 <= n < 240 else kind,
                share=5.0 if 200 <= n < 240 else None,
                slots=tuple(dice.sample(SLOTS, dice.choice([1, 1, 2, 3]))),
                creatives=names,
                goal=goal if n < 200 else None,
                starts=NOON - dice.uniform(1, 20) * DAY if n < 200 else None,
                ends=NOON + dice.uniform(1, 20) * DAY if n < 200 else None,
                targeting=Targeting(any=terms) if dice.random() < 0.4 else None,
                frequency=(Cap(3, 86_400),) if dice.random() < 0.05 else (),
                rotation=dice.choice([Rotation.EVEN, Rotation.EVEN, Rotation.WEIGHTED, Rotation.OPTIMISED]),
            )
        )
    made = document(*items, creatives=creatives, groups=[group(*SLOTS[:3], id="side-rail")])
    return Catalog(structs.replace(made), 41)


class BusySite:
    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.catalog = booked(self._dice)
        self._counters: dict[int | str, int] = {slot: self._dice.randrange(5_000_000) for slot in SLOTS}
        self._counters["side-rail"] = 70_000
        self.planner = Planner(self._counters)
        self.planner.follow(self.catalog)
        self._delivered = {one.id: Figures() for one in self.catalog.goals}
        self._outlook: Outlook | None = None
        for one in self.catalog.goals:
            assert one.goal
            so_far = int(one.goal.n * self._dice.uniform(0, 1.0))
            self._delivered[one.id] = Figures(so_far, so_far)
        self.planner.take({one.id: self._earned(one) for one in self.catalog.measured})
        self.serial = 0

    def _earned(self, one: LineItem) -> Mapping[str, float]:
        return {name: self._dice.random() for name in one.creatives}

    def pages(self, second: int, rate: int) -> Iterator[tuple[float, Page, dict[int | str, int], int, list[bytes]]]:
        """What is served in a second, after its goals were planned: instant, page, draws, first serial and ads."""
        if self._outlook is None:
            self._outlook = Outlook(dict.fromkeys(map(int, SLOTS), flat(rate / 8)), Week("UTC"))
        if second % 60 == 0:  # as the pacer does
            near = {int(slot): self._dice.uniform(0.95, 1.05) for slot in SLOTS}
            self._outlook.correct(near, near, NOON + second)
        heard = Heard(self._delivered, self._delivered, {})
        self.planner.plan(heard, self._outlook, NOON + second, Days("UTC"))
        for n in range(rate):
            at = NOON + second + (n + self._dice.random()) / rate
            page = self._page()
            draws: dict[int | str, int] = {}
            for name in self._asked(page):
                draws[name] = self._counters[name] = self._counters[name] + 1
            decisions = decide(self.catalog, at, page, draws, self.planner.pace)
            ads = [one.ad for one in decisions if isinstance(one, Filled)]
            for ad in ads:
                if ad.line_item.id in self._delivered:
                    figures = self._delivered[ad.line_item.id]
                    figures.served, figures.impressions = figures.served + 1, figures.impressions + 1
            if ads:
                yield at, page, draws, self.serial, [ad.key for ad in ads]
                self.serial += len(ads)

    def _asked(self, page: Page) -> Iterator[int | str]:
        for ask in page.asks:
            if isinstance(ask, Group):
                yield ask.id
                yield from (int(one.slot) for one in ask.slots)
            else:
                yield int(ask)

    def _page(self) -> Page:
        dice = self._dice
        held = left = None
        if dice.random() < 0.3:
            held = {
                name: "this reader has seen it 3 times within a day"
                for name in self.catalog.caps
                if dice.random() < 0.1
            }
            left = {f"line_item:{name}": dice.randint(1, 3) for name in self.catalog.caps if name not in held}
        if dice.random() < 0.6:
            return Page((dice.choice(SLOTS),), context=self._context(), held=held, left=left or {})
        rail = self.catalog.groups["side-rail"]
        asks = (*dice.sample(SLOTS[3:], dice.randint(2, 5)), *((rail,) if dice.random() < 0.2 else ()))
        return Page(asks, context=self._context(), held=held, left=left or {})

    def _context(self) -> Context:
        dice = self._dice
        section = dice.choice(SECTIONS)
        return know(
            section=section,
            tags=[f"tag {dice.randrange(2_000)}" for _ in range(3)],
            url=f"https://ann:secret@courier.example/{section}/{dice.randrange(10**6)}?reader={dice.randrange(10**9)}",
            device=dice.choice(["mobile", "desktop"]),
            lang="nl",
        )
