"""What deciding costs with everything in use, and in a catalog of 100,000 line items; and publishing that catalog."""

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import msgspec

from adserver import versions
from adserver.documents import Document
from adserver.model import (
    Advertiser,
    Campaign,
    Creative,
    Goal,
    Kind,
    LineItem,
    Measure,
    PageRule,
    Priority,
    Slot,
    SlotId,
    Targeting,
    Terms,
)
from adserver.store import open_store
from adserver.versions import Version
from benchmarks.processes import CannotRun, Service, ask

FIRST = 100_000
LARGE = 10_000, 100_000
SMALL = 18, 30
_SECTIONS = ("business", "sport", "culture", "town")
_SEEN_S = 30.0


def made_up(slots: int, line_items: int, *, rich: bool = False) -> Document:
    """So many slots and line items, spread alike. *rich*: goals, hours, targeting and page rules among them."""
    dice = random.Random(slots)
    advertisers = [Advertiser(id=f"a-{n}", name=f"Advertiser {n}", several=n % 2 == 0) for n in range(50)]
    campaigns = [Campaign(id=f"c-{n}", name=f"Campaign {n}", advertiser=f"a-{n % 50}") for n in range(200)]
    creatives = [
        Creative(id=f"x-{n}", advertiser=f"a-{n}", kind=Kind.TEXT, title="Bread by seven", text="From our own mill.",
                 click_url="https://bread.example/")
        for n in range(50)
    ]  # fmt: skip
    items = [
        LineItem(
            id=f"l-{n}",
            name=f"Line item {n}",
            campaign=f"c-{n % 200}",
            priority=Priority.STANDARD if n % 3 else Priority.BULK,
            slots=(SlotId(FIRST + n % slots),),
            creatives=(f"x-{n % 50}",),
            weight=1.0 if rich and n % 2 == 0 else 1.0 + n % 3,
            goal=Goal(10**9, Measure.IMPRESSIONS, daily=True) if rich and n % 2 == 0 else None,
            targeting=Targeting(any=Terms(section=(dice.choice(_SECTIONS),))) if rich and n % 3 == 0 else None,
            hours=("mon-sun 00:00-24:00",) if rich and n % 5 == 0 else (),
            page=PageRule.ROADBLOCK_ALL if rich and n % 7 == 0 else PageRule.ONE,
        )
        for n in range(line_items)
    ]
    return Document(
        slots=tuple(Slot(id=SlotId(FIRST + n), name=f"Slot {n}", sizes=((300, 250),)) for n in range(slots)),
        advertisers=tuple(advertisers),
        campaigns=tuple(campaigns),
        creatives=tuple(creatives),
        line_items=tuple(items),
    )


def publish(service: Service, document: Document) -> float:
    """Make *document* live; the seconds until the worker serves it, from the write on."""

    async def write() -> tuple[int, float]:
        async with open_store(f"unix://{service.data / 'valkey' / 'valkey.sock'}") as store:
            number = await versions.live_number(store)
            version = Version(number=number + 1, author="bench", at=time.time(), note="", document=document)
            began = time.monotonic()
            await versions.publish(store, version, {}, number)
            return number + 1, began

    number, began = asyncio.run(write())
    path = f"/ads?id={document.slots[-1].id}"
    while msgspec.json.decode(ask(service.port, "GET", path).body)["version"] != number:
        if time.monotonic() - began > _SEEN_S:
            raise CannotRun(f"version {number} was not served within {_SEEN_S:.0f} s")
        time.sleep(0.01)
    return time.monotonic() - began


class Watch:
    """Asks for one ad after the other on one connection, and notes when it asked and how long each took."""

    def __init__(self, port: int, path: str) -> None:
        command = [sys.executable, "-m", "benchmarks.watch", str(port), path]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout
        self._process.stdout.read(1)  # until it has begun: what is measured meanwhile may take less than its start

    def end(self) -> list[tuple[float, float]]:
        out, _ = self._process.communicate(timeout=30)
        return msgspec.json.decode(out, type=list[tuple[float, float]])


class Published(msgspec.Struct, frozen=True):
    """*seconds* until it is served; in milliseconds the 99th of 100 requests in as long a time before, the slowest of
    those, and the slowest meanwhile. Medians of several times.
    """

    seconds: float
    p99_ms: float
    before_ms: float
    meanwhile_ms: float


_TIMES = 7


def while_publishing(service: Service, document: Document, told: Callable[[str], None]) -> Published:
    """What publishing *document* costs those who ask for an ad."""
    watch = Watch(service.port, f"/ads/{FIRST}")
    times: list[tuple[float, float]] = []
    for number in range(_TIMES + 1):  # the first brings the slot that is asked for
        told(f"publishing {number} of {_TIMES}")
        began = time.monotonic()
        seconds = publish(service, msgspec.structs.replace(document, line_items=document.line_items[number:]))
        times.append((began, seconds))
        time.sleep(2)
    took = watch.end()
    each = []
    for began, seconds in times[1:]:
        before = sorted(one for at, one in took if began - 0.1 - seconds <= at < began - 0.1)
        then = max(one for at, one in took if began <= at < began + seconds)
        each.append((seconds, before[int(len(before) * 0.99)] * 1000, before[-1] * 1000, then * 1000))
    return Published(*(median(column) for column in zip(*each, strict=True)))


def write_targets(path: Path, slots: int, *, query: str = "", busy_slots: int = 300) -> None:
    """Ads of up to so many slots: of thousands a site has, those on the pages that are read."""
    dice = random.Random(1)
    busy = dice.sample(range(slots), min(slots, busy_slots))
    path.write_text("".join(f"/ads/{FIRST + dice.choice(busy)}{query}\n" for _ in range(20_000)))
