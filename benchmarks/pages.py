"""How long each page of the console takes with 10,000 line items, and how late ads are meanwhile."""

import asyncio
import http.client
import re
import time
from collections.abc import Callable
from statistics import median

from msgspec import Struct, structs

from adserver.console import people, sessions
from adserver.console.audit import Actor
from adserver.console.desk import Live, read_live, write_draft
from adserver.console.drafts import Draft, put
from adserver.console.people import Role
from adserver.console.routes import RULES
from adserver.console.web import COOKIE
from adserver.documents import Document
from adserver.model import Advertiser, Campaign, LineItem
from adserver.store import open_store
from benchmarks.catalogs import Watch, made_up
from benchmarks.processes import CannotRun, Service
from benchmarks.table import Bound

LINE_ITEMS = 10_000
SLOTS = 1_000
ADVERTISERS = 2_000
CREATIVES = 4_000
MOST_MS = 200.0
_DAY_S = 86_400
_ROUNDS = 7
_ENOUGH_MS = 5_000.0
_PERSON = "bench@adserver.example"
_FILES = re.compile(r"\.csv$|\.xlsx$|/export/|/forecast$|^/api/|/files/|/report/|/console/(link|login|signin)")
"""What is no page: files for programs and spreadsheets, and what nobody signed in asks for."""
_MORE = ("/console?q=9", "/console/line-items?q=99", "/console/line-items?page=150", "/console/calendar?weeks=13",
         "/console/reports?by=line_item", "/console/reports?by=creative", "/console/reports?by=advertiser")  # fmt: skip


class Took(Struct, frozen=True):
    """A page's times, and of the ads asked for meanwhile the slowest; milliseconds."""

    path: str
    ms: list[float]
    ad_ms: float

    @property
    def row(self) -> Bound:
        is_page = not _FILES.search(self.path.partition("?")[0])
        slowest = f"ms, median of {len(self.ms)}; slowest ad meanwhile {self.ad_ms:.0f} ms"
        return Bound(self.path, slowest, median(self.ms), MOST_MS if is_page else None)


def document(like: Document) -> Document:
    """*like*'s site with so many line items of thousands of advertisers, with thousands of creatives; a quarter of them
    is over and a quarter is to come; the slots of its sample page are among them.
    """
    made = made_up(SLOTS, LINE_ITEMS, rich=True)
    sizes = {one.id: one for one in like.slots}
    names = dict(zip((one.id for one in made.slots), sizes, strict=False))
    slots = tuple(sizes[names[one.id]] if one.id in names else one for one in made.slots)
    items = tuple(
        structs.replace(one, slots=tuple(names.get(slot, slot) for slot in one.slots)) for one in made.line_items
    )
    return structs.replace(
        made,
        site=like.site,
        slots=slots,
        advertisers=tuple(Advertiser(id=f"a-{n}", name=f"Advertiser {n}", several=True) for n in range(ADVERTISERS)),
        campaigns=tuple(
            Campaign(id=f"c-{n}", name=f"Campaign {n}", advertiser=f"a-{n % ADVERTISERS}") for n in range(CREATIVES)
        ),
        creatives=tuple(
            structs.replace(made.creatives[0], id=f"x-{n}", advertiser=f"a-{n % ADVERTISERS}", title=f"Bread {n}")
            for n in range(CREATIVES)
        ),
        line_items=tuple(_dated(one, n, time.time()) for n, one in enumerate(items)),
    )


def _dated(line_item: LineItem, n: int, now: float) -> LineItem:
    """The *n*-th line item: of one of the campaigns, from some day on, until some day."""
    middle = now + (-90, 0, 0, 90)[n % 4] * _DAY_S
    span = (3 + n % 40) * _DAY_S
    return structs.replace(
        line_item,
        campaign=f"c-{n % CREATIVES}",
        creatives=(f"x-{n % CREATIVES}",),
        starts=middle - span,
        ends=middle + span,
    )


def sign_in(service: Service) -> tuple[str, Live]:
    """The cookie of an administrator with a draft of one change, and what is live."""

    async def body() -> tuple[str, Live]:
        async with open_store(f"unix://{service.data / 'valkey' / 'valkey.sock'}") as store:
            await people.add_person(store, _PERSON, Role.ADMIN, Actor("bench"), time.time(), None)
            person = await people.read_person(store, _PERSON)
            assert person
            live = await read_live(store)
            changed = structs.replace(live.document.line_items[7], name="Changed")
            draft = put(Draft(live.number), live.document, "line_items", changed)
            await write_draft(store, _PERSON, draft, "")
            return await sessions.open_session(store, person, time.time(), "127.0.0.1"), live

    return asyncio.run(body())


def paths_of(live: Live) -> list[str]:
    """Every address of the console that is only looked at, filled in, and some searches."""
    entries = {
        "line-items": live.document.line_items[5].id,
        "creatives": live.document.creatives[7].id,
        "advertisers": live.document.advertisers[3].id,
        "slots": str(live.document.slots[9].id),
        "history": str(live.number),
    }
    found = []
    for rule in RULES:
        if rule.method != "GET" or "{name}" in rule.path or "{token}" in rule.path or rule.least is None:
            continue
        table = f"{rule.path}//".split("/")[2]
        path = rule.path.replace("{form}", "xlsx").replace("{table}", "line_item")
        path = path.replace("{id}", entries.get(table, entries["line-items"])).replace("{number}", str(live.number))
        path += f"?slot={live.document.slots[9].id}" if path.endswith("/framed") else ""
        path += "?at=2027-03-10T09:00" if path == "/console/preview/page" else ""
        found.append(path)
    return [*found, *_MORE, f"/console/reports?by=line_item&id={entries['line-items']}"]


def measure(service: Service, path: str, cookie: str) -> Took:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
    watch = Watch(service.port, "/ads/889990")
    took: list[float] = []
    while len(took) < _ROUNDS and sum(took) < _ENOUGH_MS:
        began = time.monotonic()
        connection.request("GET", path, headers={"cookie": f"{COOKIE}={cookie}"})
        answer = connection.getresponse()
        answer.read()
        took.append((time.monotonic() - began) * 1000)
        if answer.status != 200:
            raise CannotRun(f"{path} answers {answer.status}")
    seen = watch.end()
    connection.close()
    return Took(path, took, max(seconds for _, seconds in seen) * 1000)


def measure_all(service: Service, told: Callable[[str], None]) -> list[Took]:
    cookie, live = sign_in(service)
    found = []
    for path in paths_of(live):
        told(path)
        found.append(measure(service, path, cookie))
    return found
