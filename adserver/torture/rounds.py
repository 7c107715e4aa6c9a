"""One round: a service and its stores in a fresh directory, load and faults together, and then the sums."""

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from msgspec import Struct

from adserver.errors import StoreRefused, StoreUnavailable
from adserver.torture import ledger
from adserver.torture.control import Control
from adserver.torture.deployments import Cluster, Deployment, Pair
from adserver.torture.driver import Driver
from adserver.torture.faults import Faults
from adserver.torture.ledger import Journals, Verdict
from adserver.torture.service import Service

QUIET_S = 60.0


class Round(Struct, frozen=True):
    """What to do in one round."""

    program: str
    clustered: bool
    config: Path
    slots: tuple[int, ...]
    events: int
    faults: tuple[str, ...]
    seed: int
    workers: int = 2
    connections: int = 4
    broken: str | None = None
    pause_s: tuple[float, float] = (0.1, 0.5)
    quiet_s: float = QUIET_S
    beacons: bool = True
    keep: bool = False


class Done(Struct, frozen=True):
    """What came of it; *log* is the service's, for when something is wrong."""

    verdict: Verdict
    faults: dict[str, int]
    seconds: float
    log: str
    kept: Path | None = None


async def play(wanted: Round, progress: Callable[[int], None]) -> Done:
    """Raises CannotTorture when the round could not be played at all."""
    began = time.monotonic()
    rng = random.Random(wanted.seed)
    async with _stage(wanted) as (service, store, control):
        driver = Driver(
            service.port,
            wanted.slots,
            wanted.events,
            wanted.connections,
            random.Random(rng.random()),
            beacons=wanted.beacons,
        )
        faults = Faults(service, store, control, random.Random(rng.random()), wanted.events, lambda: driver.asked)
        await _load(driver, faults, wanted, progress)
        await faults.end()
        await service.kill()  # so that the last journals are a dead worker's too
        await service.start()
        waiting = await _settle(service, store.url, wanted.quiet_s)
        await service.stop()
        journals = Journals(service.producers())
        days = {day for day, _ in journals.counts}
        counts = await ledger.read_counts(store.url, days)
        verdict = ledger.judge(
            driver.notes, journals, counts, faults.lost_to_power, service.uncounted(), waiting, faults.memory.most
        )
        kept = None
        if wanted.keep and not verdict.exact():
            kept = Path(tempfile.mkdtemp(prefix="adserver-inexact-"))
            shutil.copytree(service.home, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("tmp"))
        return Done(verdict, dict(faults.done), time.monotonic() - began, service.log(), kept)


async def _load(driver: Driver, faults: Faults, wanted: Round, progress: Callable[[int], None]) -> None:
    """Ask for all events while things go wrong; when all is answered, the fault under way is the last."""
    stopping = asyncio.Event()
    running = asyncio.create_task(driver.run(time.monotonic() + 60 + wanted.events / 100))
    raging = asyncio.create_task(faults.rage(wanted.faults, wanted.pause_s, stopping))
    try:
        while not running.done() and not raging.done():
            await asyncio.wait([running, raging], timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
            progress(driver.asked)
        stopping.set()
        await raging
        await running
    finally:
        for task in (raging, running):
            task.cancel()
        await asyncio.gather(raging, running, return_exceptions=True)


async def _settle(service: Service, url: str, quiet_s: float) -> int:
    """Wait until the store has counted to the journals' ends; how many records it has not when patience ends.

    Nobody writes any more, so the journals are read once: reading them again and again would hold up the proxies.
    """
    journals = await asyncio.to_thread(Journals, service.producers())
    deadline = time.monotonic() + quiet_s
    while True:
        with suppress(StoreUnavailable, StoreRefused):
            waiting = await ledger.behind(url, journals.ends)
            if not waiting or time.monotonic() > deadline:
                return waiting
        if time.monotonic() > deadline:
            return sum(journals.ends.values())
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _stage(wanted: Round) -> AsyncIterator[tuple[Service, Deployment, Control]]:
    """Everything a round needs, running; afterwards nothing of it is left."""
    home = Path(tempfile.mkdtemp(prefix="adserver-torture-"))
    store: Deployment
    if wanted.clustered:
        store = Cluster(wanted.program, home)
    else:
        store = Pair(wanted.program, home, standby="failover" in wanted.faults)
    service = Service(home, wanted.config, store.url, wanted.workers, wanted.broken)
    control = Control(service.side)
    try:
        await store.start()
        await service.start()
        yield service, store, control
    finally:
        await service.kill()
        for proxy in store.proxies:
            await proxy.stop()
        for server in store.servers:
            server.resume()
            server.kill()
        shutil.rmtree(home, ignore_errors=True)
