"""A store that was away: how fast what waits is counted once it is back, and what that costs live events and memory.

Two backlogs are told apart. One that dead workers left behind, for instance because all were replaced meanwhile, is
counted beside the live events. One of living workers is counted in its own order, live events last: a worker's
journal has one cursor.
"""

import asyncio
import os
import time
from itertools import cycle, islice
from pathlib import Path

import msgspec
from msgspec import Struct

from adserver.catalog import Catalog
from adserver.config_files import read_config
from adserver.days import Days
from adserver.events import Type
from adserver.journal import Journal, create_journal
from adserver.reader import Reader
from adserver.secret import read_keys
from adserver.settings import Settings, cores
from adserver.store import partition
from benchmarks.load import WrongAnswers
from benchmarks.processes import PROJECT, Service, StoreServer, ask, cpu_s, running_service, store_server
from benchmarks.readers import Readers, reading
from benchmarks.table import Bound, Row

LIVE_PAGES_A_SECOND = 100
_WORKERS = 2
_ADS = 90
"""Five ads take turns in each of the sample's 18 slots."""
_DRAINED_WITHIN_S = 600.0
_PATTERN = (Type.SERVED, Type.IMPRESSION, Type.VIEWABLE, Type.SERVED, Type.IMPRESSION)


class Memory:
    """Resident megabytes of the workers together, looked at whenever somebody waits."""

    def __init__(self, service: Service) -> None:
        self._workers = service.workers()
        self.series: list[tuple[float, float]] = []
        self._began = time.monotonic()
        self.look()

    def look(self) -> float:
        now: float = sum(one.memory_info().rss for one in self._workers) / 1e6
        self.series.append((time.monotonic() - self._began, now))
        return now

    def cpu_s(self) -> float:
        """Processor time that the workers have taken so far."""
        return sum(map(cpu_s, self._workers))

    def most(self) -> float:
        return max(mb for _, mb in self.series)


class Drained(Struct, frozen=True):
    """What was measured. Times in seconds, memory in MB of all workers together."""

    backlog: int
    workers: int
    away_s: float
    reconnect_s: float
    drain_s: float
    lags: list[float]
    rss_before: float
    rss_at_return: float
    rss_most: float
    live: int
    watched_s: float
    worker_cpu_s: float
    store_cpu_s: float
    series: list[tuple[float, float]]

    @property
    def most_lag_s(self) -> float:
        return max(self.lags, default=0.0)


def write_dead_journals(root: Path, total: int, journals: int) -> None:
    """*total* events in as many *journals*, whose writers are gone: two snippets, their impressions, one viewable."""
    root.parent.mkdir(mode=0o700, exist_ok=True)
    document = read_config(PROJECT / "config").document
    ads = list(Catalog(document, 1).by_key.values())[:_ADS]
    day, hour = Days(document.site.time_zone).locate(time.time())

    async def write(share: int) -> None:
        made = create_journal(root)
        for ad in ads:
            made.name(ad.key, ad.name)
        _append(made, share, [ad.key for ad in ads], day, hour)
        await made.close()

    for number in range(journals):
        asyncio.run(write(total // journals + (number < total % journals)))


def _append(to: Journal, count: int, keys: list[bytes], day: int, hour: int) -> None:
    serial = -1
    now = time.time()
    for type_ in islice(cycle(_PATTERN), count):
        serial += type_ is Type.SERVED
        key = keys[serial % len(keys)]
        to.append(type_, 0, day, hour, to.issuer, serial, key + bytes(8 - len(key)), now)


def measure_left_behind(directory: Path, total: int, workers: int = _WORKERS) -> Drained:
    """Workers that start beside *total* events of dead ones, while the store is away."""
    data = directory / "backlog"
    write_dead_journals(data / "journal", total, workers)
    with (
        store_server("valkey", directory / "store") as store,
        running_service(data, workers=workers, url=store.url) as service,
    ):
        return _measure(service, store, workers, LIVE_PAGES_A_SECOND, 2.0)


def measure_outage(directory: Path, seconds: float, pages_a_second: float, workers: int = _WORKERS) -> Drained:
    """The store goes away for *seconds* under load; the same workers go on."""
    data = directory / "outage"
    with store_server("valkey", directory / "store") as store:
        store.start()
        with running_service(data, workers=workers, url=store.url) as service:
            return _measure(service, store, workers, pages_a_second, seconds)


def _measure(service: Service, store: StoreServer, workers: int, pages_a_second: float, away_s: float) -> Drained:
    already = sum(_ends(service).values())
    memory = Memory(service)
    keys = read_keys(Settings(data_dir=str(service.data)))
    before = memory.look()
    with reading(Readers(service.port, pages_a_second, keys, store.client)) as readers:
        began = time.monotonic()
        time.sleep(1)
        store.kill()
        gone = time.monotonic()
        while time.monotonic() < gone + away_s:
            time.sleep(min(1.0, away_s))
            memory.look()
        at_return = memory.look()
        ends = _ends(service)
        cpu_s = memory.cpu_s()
        store.start()
        back = time.monotonic()
        waiting = sum(ends.values()) - sum(_cursors(store, ends))
        connected, drained = _await_drained(service, store, ends, memory)
        worker_cpu_s, store_cpu_s = memory.cpu_s() - cpu_s, store.cpu_s()
        time.sleep(2)
        watched_s = time.monotonic() - began
        readers.stop()
    if readers.wrong() or readers.unanswered:
        raise WrongAnswers(f"without a store: answers {readers.wrong()}, {readers.unanswered} requests unanswered")
    _check(service, readers, already)
    return Drained(
        backlog=waiting,
        workers=workers,
        away_s=back - gone,
        reconnect_s=connected - back,
        drain_s=drained - back,
        lags=[one.lag_s for one in readers.lags if one.answered >= connected],
        rss_before=before,
        rss_at_return=at_return,
        rss_most=memory.most(),
        live=readers.events,
        watched_s=watched_s,
        worker_cpu_s=worker_cpu_s,
        store_cpu_s=store_cpu_s,
        series=memory.series,
    )


def rows_left_behind(found: Drained) -> list[Row | Bound]:
    beside = f"{found.live / found.watched_s:,.0f} live events a second beside"
    return [_drained(found), Bound(_LONGEST, beside, found.most_lag_s, 1), *_memory(found)]


def rows_outage(found: Drained) -> list[Row | Bound]:
    return [
        Bound("requests answered 5xx or not at all", f"{found.away_s:,.0f} s without a store", 0, 0),
        _drained(found),
        Bound(_LONGEST, "beside what its own worker missed", found.most_lag_s, 1),
        *_memory(found),
    ]


_LONGEST = "longest wait of a live event meanwhile, seconds"


def _drained(found: Drained) -> Bound:
    figure = f"seconds until {found.backlog:,} events are counted"
    return Bound(figure, "from the moment the store is back", found.drain_s, 30)


def _memory(found: Drained) -> list[Row | Bound]:
    workers = f"{found.workers} workers together"
    return [
        Bound("MB resident before the outage", workers, found.rss_before, None),
        Bound("the same when the store came back", workers, found.rss_at_return, None),
        Bound("the most at any time", workers, found.rss_most, None),
    ]


def footnote(found: Drained) -> str:
    every = max(1, len(found.series) // 6)
    worker_s, store_s, busy = found.worker_cpu_s, found.store_cpu_s, os.getloadavg()[0]
    series = ", ".join(f"{mb:.0f} at {at:.0f} s" for at, mb in found.series[::every])
    return f"""\
Every worker had reached the store {found.reconnect_s:.1f} s after it was back. Until all was counted the workers took
{worker_s:.1f} s of processor time and the store {store_s:.1f}, on {cores()} cores whose load average was {busy:.0f}.
Watched from answer to count: {len(found.lags)} live events.
Resident MB of the workers: {series}.
Checked: no 5xx, no request unanswered, and the report counts each event once: those left behind and those
acknowledged meanwhile, {found.live:,}."""


def _ends(service: Service) -> dict[str, int]:
    """How many events each journal holds, by producer."""
    found = {path.name: Reader(path).tip() for path in (service.data / "journal").iterdir() if path.is_dir()}
    return {name: tip[0] for name, tip in found.items() if tip}


def _cursors(store: StoreServer, ends: dict[str, int]) -> list[int]:
    """How many events of each the store has counted."""
    day = Days(read_config(PROJECT / "config").document.site.time_zone).locate(time.time())[0]
    with store.client() as client:
        values = client.hmget(partition(day), [f"@{name}" for name in ends])
    return [int(value or 0) for value in values]


def _await_drained(service: Service, store: StoreServer, ends: dict[str, int], memory: Memory) -> tuple[float, float]:
    """When every worker had reached the store again, and when all that waited then was counted."""
    connected, deadline = 0.0, time.monotonic() + _DRAINED_WITHIN_S
    while time.monotonic() < deadline:
        if not connected and service.series()["adserver_store_up"] == 1:
            connected = time.monotonic()
        if connected and all(map(int.__ge__, _cursors(store, ends), ends.values())):
            return connected, time.monotonic()
        memory.look()
        time.sleep(0.1)
    raise WrongAnswers(f"the backlog is not counted within {_DRAINED_WITHIN_S:.0f} s")


def _check(service: Service, readers: Readers, already: int) -> None:
    """The report has each event once: those of the dead, and those acknowledged."""
    service.settle()
    rows = msgspec.json.decode(ask(service.port, "GET", "/api/report").body)["rows"]
    counted = sum(row[name] for row in rows for name in ("served", "impressions", "viewables", "clicks"))
    if counted != already + readers.events:
        raise WrongAnswers(
            f"counted {counted:,} events; expected {already:,} waiting + {readers.events:,} acknowledged"
        )
