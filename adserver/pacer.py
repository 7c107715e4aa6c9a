"""Keeps one worker's pace: every second it hears what was delivered everywhere and plans each goal's next seconds.

The workers of a service, on however many machines, tell each other through one hash that they are there and how often
those with a goal took the chances they asked for. Without the store the last plan goes on within what was allowed by
then: nothing waits for it, and nothing is overshot.
"""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import msgspec

from adserver import metrics
from adserver.ages import Ages, read_ages
from adserver.archive import Book
from adserver.background import wait_for_any
from adserver.catalog import Catalog
from adserver.curves import Curves, put_away, read_day, read_live, settled
from adserver.days import Days
from adserver.decide import Page
from adserver.delivered import Delivered
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.model import Measure, Rotation
from adserver.pacing import Pace
from adserver.planner import Chances, Heard, Planner, weigh
from adserver.store import Store, open_store
from adserver.traffic import KEPT_DAYS, STEP_S, STEPS, Outlook, compare, flat, step_of, week_of

log = logging.getLogger(__name__)

TICK_S = 0.8
WORKERS = "as:{pace}:workers"
"""Hash: worker to when it was last seen and what became of the chances it asked for, in msgpack."""
_ALIVE_S = 6.0
_FORGET_S = 600.0
_FLUSH_S = 5.0
_RECENT_S = 60.0
_READ_S = 0.2
"""How long a tick reads days gone by, where a goal is new; the others are planned meanwhile."""


class Known(msgspec.Struct, frozen=True):
    """What a worker has heard, a second ago at most, and expects of *slots*: for who asks what is to come."""

    heard: Heard
    outlook: Outlook
    slots: frozenset[int]
    day: int

    def covers(self, planner: Planner, catalog: Catalog, today: int) -> bool:
        """Whether it holds all that *catalog*'s goals are planned by. A draft may have goals that nobody else has."""
        return (
            today == self.day
            and planner.slots <= self.slots
            and all(one.id in self.heard.whole for one in catalog.goals)
        )


class Pacer:
    """One worker's pace, for `decide`. In the event loop only.

    *requests* is the last draw of each slot. `mark` gives something that `counted` says yes to as soon as the store has
    counted every event journalled before it was given.
    """

    def __init__(self, requests: Mapping[int | str, int]) -> None:
        self.last_page: Page | None = None
        self.mark: Callable[[], Any] = lambda: None
        self.counted: Callable[[Any], bool] = lambda _: False
        self.planner = Planner(requests)
        self.trouble: str | None = None
        """Why nothing was heard of what is delivered, at the last look; None when it was."""
        self._name = secrets.token_hex(8)
        self._requests = requests
        self.book: Book | None = None
        """The archive, for what the store has forgotten; see `look_into`."""
        self._delivered = Delivered()
        self._outlook: Outlook | None = None
        self._heard: Heard | None = None
        self._curves = Curves()
        self.ages = Ages()
        self._late: Mapping[tuple[Measure, int], Sequence[int]] = {}
        self._unseen: deque[tuple[Any, dict[str, int]]] = deque(maxlen=1000)
        self._seen: dict[str, int] = {}
        self._flushed = dict(requests)
        self._flushed_at = self._recent_at = -inf
        self._learned: tuple[int, frozenset[int]] | None = None
        self._earned: tuple[Catalog, int] | None = None

    def __repr__(self) -> str:
        return f"<Pacer {self._name}: {self.planner!r}>"

    @property
    def heard(self) -> Heard | None:
        """What was delivered everywhere, as far as this worker knows; None before it has asked."""
        return self._heard

    @property
    def outlook(self) -> Outlook | None:
        """The traffic that is expected of slots with goals; None before it was read."""
        return self._outlook

    @property
    def known(self) -> Known | None:
        """What it has heard and expects; None before it has, and while the store is away."""
        if self._heard is None or self._outlook is None or self._learned is None or self.trouble:
            return None
        today, slots = self._learned
        return Known(self._heard, self._outlook, slots, today)

    def look_into(self, book: Book) -> None:
        """Read what the store has forgotten from *book*, of flights that are longer than it remembers."""
        self.book, self._delivered = book, Delivered(book)

    async def run(self, current: Callable[[], Catalog], url: str, stopping: asyncio.Event) -> None:
        """Keep the pace of *current*'s catalog until *stopping* is set."""
        while not stopping.is_set():
            try:
                async with open_store(url) as store:
                    while not stopping.is_set():
                        await self._tick(current(), store)
                        self.trouble = None
                        await wait_for_any(TICK_S, stopping)
                    await self._leave(current(), store)
            except (StoreUnavailable, StoreRefused) as error:
                if self.trouble != str(error):
                    log.warning("goals are paced by what was last heard: %s", error)
                self.trouble = str(error)
                self._plan(current(), time.time())
                await wait_for_any(TICK_S, stopping)

    async def _tick(self, catalog: Catalog, store: Store) -> None:
        now = time.time()
        days = Days(catalog.document.site.time_zone)
        self.planner.follow(catalog)
        self._unseen.append((self.mark(), dict(self.planner.served)))
        others = await self._meet(store, self.planner.observe(now), now)
        seen = self._counted_by_now()
        await self._delivered.refresh(store, catalog, days, now, _READ_S)
        self._seen = seen
        names = sorted([self._name, *others])
        whole, of_today = self._delivered.totals(), self._delivered.totals(days.locate(now)[0])
        chances = tuple(others.values())
        recent = self._delivered.recent(*days.locate(now))
        place = names.index(self._name)
        self._heard = Heard(whole, of_today, seen, len(names), place, chances, recent, self._late)
        await self._hand_over(store, catalog, days, now)
        await self._learn(store, catalog, days, now)
        self.planner.follow(catalog)
        for _ in self.planner.planning(self._heard, self._outlook, now, days):
            await asyncio.sleep(0)
        metrics.GOALS_BEHIND.set(len(self.planner.behind))
        await self._weigh(catalog, now)

    async def _weigh(self, catalog: Catalog, now: float) -> None:
        """Weigh creatives anew, each hour and for each catalog: some 60 ms for ten of them, so in a thread."""
        hour = catalog, int(now // 3600)
        if self._earned == hour or not self._delivered.complete:
            return
        self._earned = hour
        mine = [one for one in catalog.measured if one.rotation is Rotation.OPTIMISED]
        seen = {one.id: self._delivered.creatives(one.id) for one in mine}
        self.planner.take(await asyncio.to_thread(weigh, mine, seen, hour[1]))

    def _plan(self, catalog: Catalog, now: float) -> None:
        self.planner.follow(catalog)
        self.planner.plan(self._heard, self._outlook, now, Days(catalog.document.site.time_zone))
        metrics.GOALS_BEHIND.set(len(self.planner.behind))

    async def _meet(self, store: Store, chances: Chances, now: float) -> dict[str, Chances]:
        """Say that this worker is there, and hear who else is."""
        await store.ask("HSET", WORKERS, self._name, msgspec.msgpack.encode((now, chances)))
        others = await read_workers(store, now)
        others.pop(self._name, None)
        return others

    async def _leave(self, catalog: Catalog, store: Store) -> None:
        self._flushed_at = -inf
        await self._hand_over(store, catalog, Days(catalog.document.site.time_zone), time.time())
        await store.ask("HDEL", WORKERS, self._name)

    def _counted_by_now(self) -> dict[str, int]:
        """What this worker had served at the last mark whose events the store has counted."""
        found = self._seen
        while self._unseen and self.counted(self._unseen[0][0]):
            found = self._unseen.popleft()[1]
        return found

    async def _hand_over(self, store: Store, catalog: Catalog, days: Days, now: float) -> None:
        """Give the curves what was asked for here, every few seconds."""
        steady = time.monotonic()
        if steady - self._flushed_at < _FLUSH_S:
            return
        before, self._flushed = self._flushed, dict(self._requests)
        came = {slot: n - before.get(slot, -1) for slot, n in self._flushed.items() if isinstance(slot, int)}
        self._curves.add({slot: n for slot, n in came.items() if n}, days, now)
        page, self.last_page = self.last_page, None
        if page is not None:
            self._curves.add_page(page, days, now)
        await self._curves.flush(store)
        today = days.locate(now)[0]
        await self.ages.flush(store, catalog.by_key.get, self.planner.slots, today)
        self._late = await read_ages(store, today, self.planner.slots)
        self._flushed_at = steady

    async def _learn(self, store: Store, catalog: Catalog, days: Days, now: float) -> None:
        """Read the curves anew each day, and each minute how the traffic goes compared with them."""
        slots, (today, _) = self.planner.slots, days.locate(now)
        if self._learned != (today, slots):
            for day in settled(days, now):
                await put_away(store, day, catalog.slots)
            self._outlook = await read_outlook(store, catalog, today, sorted(slots))
            self._learned, self._recent_at = (today, slots), -inf
        if self._outlook is not None and time.monotonic() - self._recent_at >= _RECENT_S:
            self._outlook = await with_young(store, self._outlook, sorted(slots), days, now)
            await correct(store, self._outlook, sorted(slots), days, now)
            self._recent_at = time.monotonic()


async def read_pace(
    store: Store,
    catalog: Catalog,
    now: float,
    at: float | None = None,
    known: Known | None = None,
    book: Book | None = None,
) -> Pace:
    """The pace that a worker keeps now, or kept or will keep *at* another instant, for who only asks.

    What the store has forgotten is read from *book*. A worker that asks says what it has *known*, so that what is to
    come needs no reading of all the days gone by.
    Raises StoreUnavailable or StoreRefused.
    """
    if not catalog.goals:
        return Pace()
    was = at is not None and at < now
    now = at if at is not None and was else now
    days, planner, delivered = Days(catalog.document.site.time_zone), Planner({}), Delivered(book)
    planner.follow(catalog)
    today, _ = days.locate(now)
    if known is not None and at is not None and not was and known.covers(planner, catalog, today):
        heard = msgspec.structs.replace(
            known.heard, seen={}, workers=1, place=0, others=tuple((await read_workers(store, now)).values())
        )
        outlook = known.outlook.again(catalog.week)
        planner.plan(heard, outlook, now, days)
        return planner.project(heard, outlook, now, at, days) if at > now else planner.pace
    slots = sorted(planner.slots)
    await delivered.refresh(store, catalog, days, now)
    outlook = await with_young(store, await read_outlook(store, catalog, today, slots), slots, days, now)
    await correct(store, outlook, slots, days, now)
    others = await read_workers(store, now)
    if was:
        delivered.until(*days.locate(now))
    recent, late = delivered.recent(*days.locate(now)), await read_ages(store, today, planner.slots)
    heard = Heard(
        delivered.totals(), delivered.totals(today), {}, others=tuple(others.values()), recent=recent, ages=late
    )
    planner.plan(heard, outlook, now, days)
    return planner.project(heard, outlook, now, at, days) if at is not None and at > now else planner.pace


async def read_workers(store: Store, now: float) -> dict[str, Chances]:
    """The workers that are there, and what each says of its chances; those long gone are forgotten."""
    found = await store.ask("HGETALL", WORKERS)
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    workers: dict[str, Chances] = {}
    for key, data in pairs:
        try:
            at, theirs = msgspec.msgpack.decode(data, type=tuple[float, Chances])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            at, theirs = -inf, {}
        if now - at > _FORGET_S:
            await store.ask("HDEL", WORKERS, key)
        elif abs(now - at) < _ALIVE_S:
            workers[key.decode("utf-8", "replace")] = theirs
    return workers


async def read_outlook(store: Store, catalog: Catalog, today: int, slots: list[int]) -> Outlook:
    """What can be expected of *slots* from today on, by the days before."""
    if not slots:
        return Outlook({}, catalog.week)
    by_slot: dict[int, dict[int, Any]] = {slot: {} for slot in slots}
    for day in range(today - KEPT_DAYS, today):
        for slot, steps in (await read_day(store, day, slots)).items():
            by_slot[slot][day] = steps
    return Outlook(await asyncio.to_thread(_weeks, by_slot), catalog.week)


def _weeks(by_slot: Mapping[int, Mapping[int, Any]]) -> dict[int, list[float]]:
    return {slot: week_of(days) for slot, days in by_slot.items() if days}


async def with_young(store: Store, outlook: Outlook, slots: list[int], days: Days, now: float) -> Outlook:
    """*outlook* with slots that were first asked for today: they go on at the rate they have had since."""
    today, _ = days.locate(now)
    young = [slot for slot in slots if slot not in outlook.weeks or slot in outlook.young]
    if not young:
        return outlook
    weeks, passed = dict(outlook.weeks), now - days.start(today)
    for slot, steps in (await read_live(store, today, young)).items():
        first = next((at for at, n in enumerate(steps) if n), 0)
        weeks[slot] = flat(sum(steps) / max(STEP_S, passed - first * STEP_S))
    return Outlook(weeks, outlook.clock, frozenset(young))


async def correct(store: Store, outlook: Outlook, slots: list[int], days: Days, now: float) -> None:
    """Hold the last hour and the last day against what was expected of them."""
    today, _ = days.locate(now)
    live = await read_live(store, today, slots) if slots else {}
    before = await read_day(store, today - 1, slots) if slots else {}
    step = step_of(now - days.start(today))
    near, far = {}, {}
    for slot in outlook.weeks:
        line = [*before.get(slot, [0] * STEPS), *live.get(slot, [0] * STEPS)][: STEPS + step]  # whole steps only
        start = days.start(today) + step * STEP_S - len(line) * STEP_S
        usual = [outlook.at(slot, start + at * STEP_S) for at in range(len(line))]
        near[slot], far[slot] = compare(line[-STEPS:], usual[-STEPS:])
    outlook.correct(near, far, now)
