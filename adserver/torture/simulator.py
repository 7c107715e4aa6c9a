"""The counting protocol in made-up worlds: every crash, lost reply and rollback in any order, from one seed each.

What runs is the service's own code where it decides: `Shipper`'s reading of cursors, checking and shipping,
`Source`, `Block` and `tally`; `Closer`'s sealing, archiving and putting back, and the archive's `Book`. Around it
everything is a model: journals (records and how many of them are synced), the network (lost requests, lost replies,
requests that arrive long after their sender gave up), the store (what of it is on disk, and at the replica), workers
that die and adopters. There is no loop, thread or clock, and one file: the volume's list of closed days. The service's
coroutines are driven by hand, one await at a time, in an order the seed decides.

Left out, for the process torture to try: segments and their damage, failing syncs, and `Shipper`'s two outer loops
(written here again as `Worker.ship`, because they sleep). Days close at any moment instead of by the clock, with all
their traffic still going on; which journals that waits for, and which it gives up, is chance.
"""

import logging
import random
import shutil
import tempfile
from asyncio import AbstractEventLoop, _set_running_loop
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple, cast

from adserver import events
from adserver.archive import Book
from adserver.closing import Closer
from adserver.days import Days
from adserver.disk import read_closed
from adserver.errors import StoreRefused, StoreUnavailable
from adserver.events import TOKEN_BIT, Block, Type
from adserver.journal import Journal
from adserver.reader import Reader
from adserver.retention import Due, Held, Rules, closes_at, may_go
from adserver.ship import Shipper, Source
from adserver.store import LATE, Applied, Behind, Outcome, Snapshot, Store
from adserver.tally import Batch, field_of
from adserver.torture.model import Partition, StoreModel

MUTANTS = {
    "no-compare-and-set": "the store applies a batch whatever its cursor says",
    "no-bits": "the store does not remember tokens",
    "forget-at-reply": "the journal is forgotten at the store's reply",
    "acknowledge-before-sync": "beacons are answered before their record is synced",
    "stable-id": "a worker's next boot goes on under the same producer id",
    "torn-batch": "a batch is several write commands, and a power cut leaves half of one",
    "no-reread": "cursors are not read again after a reconnect",
    "late-without-tokens": "what comes late is not compared with the closed day's tokens",
    "delete-uncounted": "journals of a closed day are deleted without asking how far the archive holds them",
    "unsynced-adoption": "an adopter ships a dead worker's records without syncing them first",
}

_STEPS = 260
_QUIET_ROUNDS = 60
_DAYS = (20_000, 20_001)
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
_CALENDAR = Days("UTC")
_RULES = Rules()
_NOW = _CALENDAR.start(_DAYS[-1] + 10)
"""An instant at which both days may be closed, and the store still keeps them."""
_ADS = (b"\1" * 7 + b"\0", b"\2" * 7 + b"\0")


class Violation(AssertionError):
    """An invariant does not hold in some world."""


class Fact(NamedTuple):
    """What a record counts for, worked out apart from `tally`. *token* is None for what counts once per record."""

    day: int
    field: str
    token: tuple[bytes, int, int] | None


class Disk:
    """One producer's journal: its records, and how many of them no power cut can take. Stands in for a Reader."""

    def __init__(self, producer: bytes) -> None:
        self.directory = Path("/simulated") / producer.hex()
        self.producer = producer
        self.names: dict[bytes, str] = {}
        self.facts: list[Fact] = []
        self.synced = 0
        self.promised = 0
        self.deleted = 0
        self.forgotten: dict[int, int] = {}
        self.locked = True
        self.on_synced: Callable[[], None] = lambda: None
        self._data = bytearray()

    def append(self, type_: Type, day: int, issuer: bytes, serial: int, ad: bytes) -> int:
        number = len(self.facts) + 1
        self._data += events.pack(type_, 0, day, 7, issuer, serial, ad, 0, number) + b"\0\0\0\0"
        token = (issuer, serial, int(type_)) if type_ in TOKEN_BIT else None
        self.facts.append(Fact(day, field_of(type_, 0, 7, ad), token))
        return number

    def cut(self, to: int) -> None:
        del self.facts[to:]
        del self._data[to * events.STORED :]

    def read_block(self, after: int, last: int | None, limit: int) -> Block:
        """As `Reader.read_block`: what was deleted is passed over."""
        after = max(after, self.deleted)
        last = len(self.facts) if last is None else min(last, len(self.facts))
        last = min(last, after + limit)
        return Block(after + 1, bytes(self._data[after * events.STORED : max(after, last) * events.STORED]))

    def recent(self, after: int, limit: int) -> Block | None:
        """As `Journal.recent`."""
        return self.read_block(after, self.synced, limit) if self.synced > after >= self.deleted else None


class Call:
    """Something the service awaits: a request to the store, or with no *server* a moment's rest."""

    def __init__(self, connection: "Connection | None", work: Callable[[StoreModel], Any] | None) -> None:
        self.connection = connection
        self.work = work

    def __await__(self) -> Generator["Call", Any, Any]:
        return (yield self)


class _AtOnce:
    """Stands in for the event loop where the service asks it for a thread: the work is done at once."""

    async def run_in_executor(self, _: None, work: Callable[[], object]) -> object:
        return work()


_AT_ONCE = cast("AbstractEventLoop", _AtOnce())


class Connection:
    """Stands in for a Store: each command of it goes into the network, and may not come back."""

    def __init__(self, world: "World", server: StoreModel) -> None:
        self.world = world
        self.server = server
        self.broken = False

    async def cursors(self, day: int, producers: list[bytes], part: str = "") -> list[int]:
        return cast("list[int]", await Call(self, lambda server: server.cursors(day, producers, part)))

    async def apply(self, producer: bytes, batch: Batch, part: str = "") -> Outcome:
        world = self.world
        disk = world.disks[producer]
        if world.mutant == "forget-at-reply" and batch.start < disk.forgotten.get(batch.day, 0):
            batch = Batch(batch.day, batch.start, batch.end, 0, {}, {})  # what it asks for is gone
        outcome = cast("Outcome", await Call(self, lambda server: world.apply(server, producer, batch, part)))
        if isinstance(outcome, Applied):
            disk.forgotten[batch.day] = max(disk.forgotten.get(batch.day, 0), outcome.cursor)
        return outcome

    # Closing days, each as its parts arrive at the server

    async def seal(self, day: int, ends: Mapping[str, int], _: str) -> Behind | None:
        return cast("Behind | None", await Call(self, lambda server: server.seal(day, dict(ends))))

    async def snapshot(self, day: int, part: str = "") -> Snapshot:
        return cast("Snapshot", await Call(self, lambda server: server.snapshot(day, part)))

    async def state(self, day: int) -> tuple[bool, str | None]:
        found = await Call(self, lambda server: (server.partition(day).sealed, server.partition(day).closed))
        return cast("tuple[bool, str | None]", found)

    async def counts(self, day: int) -> dict[str, int]:
        return cast("dict[str, int]", await Call(self, lambda server: dict(server.partition(day).counts)))

    async def page(self, day: int) -> bytes | None:
        return cast("bytes | None", await Call(self, lambda server: server.partition(day).page))

    async def ad_names(self) -> dict[str, str]:
        return {}

    async def restore(self, day: int, counts: Mapping[str, int], _: str) -> None:
        await self._change(day, sealed=True)
        await self._change(day, counts=dict(counts))

    async def tidy(self, day: int, digest: str, page: bytes) -> None:
        await self._change(day, page=page)
        await self._change(day, cursors={})
        await self._change(day, bits=set())
        await self._change(day, closed=digest)

    async def _change(self, day: int, **values: Any) -> None:
        def change(one: Partition) -> None:
            for name, value in values.items():
                setattr(one, name, copy(value))  # a request that arrives twice brings its own each time

        await Call(self, lambda server: server.change(day, "", change))

    async def is_late_open(self, day: int) -> bool:
        return cast("bool", await Call(self, lambda server: server.partition(day, LATE).open))

    async def open_late(self, day: int, fields: Mapping[str | bytes, str | bytes], mark: str) -> bool:
        """As `Store.open_late`, in two pieces and an opening."""
        if self.world.mutant == "late-without-tokens":
            fields = {name: value for name, value in fields.items() if isinstance(name, str)}
        pairs = list(fields.items())
        half = len(pairs) // 2
        for step, some in (("first", pairs[:half]), ("more", pairs[half:])):
            reply = await self._fill(day, mark, step, dict(some))
            if reply != "filled":
                return reply == "open"
        return await self._fill(day, mark, "open", {}) in ("filled", "open")

    async def _fill(self, day: int, mark: str, step: str, some: Mapping[str | bytes, str | bytes]) -> str:
        return cast("str", await Call(self, lambda server: server.fill(day, mark, step, some)))


class Shelf:
    """The archive's place: a page is there whole or not at all, whatever dies."""

    def __init__(self) -> None:
        self._pages: dict[str, bytes] = {}

    def names(self) -> list[str]:
        return list(self._pages)

    def get(self, name: str) -> bytes | None:
        return self._pages.get(name)

    def put(self, name: str, data: bytes) -> None:
        self._pages.setdefault(name, data)

    def drop(self, name: str) -> None:
        self._pages.pop(name, None)


class Closing:
    """One worker's turn at closing days, driven by hand like its shipper; *day* is closed if it is not yet."""

    def __init__(self, world: "World", worker: "Worker", day: int | None, due: Due | None = None) -> None:
        self.worker = worker
        self.ended = False
        self._world = world
        self._day = day
        self._due = due
        self._running: Coroutine[Call, Any, None] = self._close()
        self.call = Call(None, None)
        self.resume()

    async def _close(self) -> None:
        world, closer = self._world, self.worker.closer
        store = cast("Store", Connection(world, world.primary))
        if self._day is not None and self._due is not None and world.book.read(self._day) is None:
            wait_s = 2 * _RULES.seal_wait_s if self._due.missing else 0.0  # then those behind are given up, too
            await closer.close_day(store, self._day, self._due, closes_at(_CALENDAR, self._day, _RULES) + wait_s)
        await closer._look_after(store, _NOW)
        for day in world.book.days():
            await closer.archive_late(store, day)

    def resume(self, result: object = None, error: Exception | None = None) -> None:
        _set_running_loop(_AT_ONCE)
        try:
            self.call = self._running.throw(error) if error else self._running.send(result)
        except (StopIteration, StoreUnavailable, StoreRefused):
            self.ended = True
        finally:
            _set_running_loop(None)

    def close(self) -> None:
        self._running.close()


class Worker:
    """One boot of a worker: its journal, who waits for it, and its shipper, driven by hand."""

    def __init__(self, world: "World", disk: Disk) -> None:
        self.world = world
        self.disk = disk
        self.serial = 0
        self.syncing: dict[tuple[bytes, int, int], int] = {}
        self.waiting: list[tuple[int, Event]] = []
        self.shipper = Shipper(cast("Journal", disk), world.volume, "", world.book, _RULES)
        self.closer = Closer(self.shipper, world.volume, "", world.book, lambda: _CALENDAR, _RULES)
        self.shipper.own = Source(cast("Reader", disk), lambda: disk.synced, disk.names, disk.recent)
        self.shipper.sources = [self.shipper.own]
        self.adopted: list[Disk] = []
        self.reread_due = False
        self._running: Coroutine[Call, Any, None] = self.ship()
        self.call: Call
        self.resume()

    @staticmethod
    def source(disk: Disk, last: Callable[[], int]) -> Source:
        return Source(cast("Reader", disk), last, disk.names)

    async def ship(self) -> None:
        """`Shipper.run` and its loop, with rests where they sleep."""
        shipper = self.shipper
        while True:
            try:
                connection = Connection(self.world, self.world.primary)
                store = cast("Store", connection)
                if self.world.mutant != "no-reread":
                    await shipper._reread(store)
                while True:
                    if self.reread_due and self.world.mutant != "no-reread":
                        self.reread_due = False
                        shipper._release()
                        await shipper._reread(store)
                    for source in list(shipper.sources):
                        while await shipper._ship_some(store, source):
                            pass
                    await Call(connection, None)
            except (StoreUnavailable, StoreRefused):
                if self.world.mutant != "no-reread":
                    for source in shipper.sources:
                        source.forget()
                    shipper._late.clear()
            await Call(None, None)

    def resume(self, result: object = None, error: Exception | None = None) -> None:
        _set_running_loop(_AT_ONCE)
        try:
            self.call = self._running.throw(error) if error else self._running.send(result)
        finally:
            _set_running_loop(None)

    def close(self) -> None:
        self._running.close()


class Event(NamedTuple):
    """A token event a reader sends: day and ad are in the token, *view* is the reader's own name for it."""

    view: int
    day: int
    issuer: bytes
    serial: int
    type: Type
    ad: bytes

    @property
    def field(self) -> tuple[int, str]:
        return self.day, field_of(self.type, 0, 7, self.ad)

    @property
    def key(self) -> tuple[bytes, int, int]:
        return self.issuer, self.serial, int(self.type)


class World:
    """One seed's: two workers, their journals, a store, readers, and everything that happens to them."""

    def __init__(self, seed: int, mutant: str | None = None) -> None:
        self.rng = random.Random(seed)
        self.mutant = mutant
        self.disks: dict[bytes, Disk] = {}
        self.primary = self._server()
        self.late: list[tuple[StoreModel, Callable[[StoreModel], Any]]] = []
        self.workers: list[Worker] = []
        self.closings: list[Closing] = []
        self.volume = Path(tempfile.mkdtemp(prefix="adserver-simulated-", dir=_MEMORY))
        self.book = Book(Shelf(), "simulated")
        self.seen: set[tuple[bytes, int, int]] = set()
        self.acknowledged: set[Event] = set()
        self.views = 0
        self.to_send: list[Event] = []
        self.sent: list[Event] = []
        self.batches: list[tuple[bytes, Batch, str]] = []
        self.steps = 0
        for _ in range(2):
            self.boot()
        self.actions = self._choose_actions()

    def _server(self) -> StoreModel:
        server = StoreModel()
        server.compares = self.mutant != "no-compare-and-set"
        server.remembers_tokens = self.mutant != "no-bits"
        return server

    def _choose_actions(self) -> tuple[list[Callable[[], None]], list[float]]:
        """What can happen, and how often here: some worlds know no failovers, others little else."""
        rng = self.rng
        usual: list[tuple[Callable[[], None], float]] = [
            (self.view, 6),
            (self.send, 10),
            (self.sync, 6),
            (self.deliver, 26),
            (self.adopt, 1.5),
        ]
        faults = [
            self.lose_request,
            self.lose_reply,
            self.delay_request,
            self.deliver_late,
            self.kill_worker,
            self.cut_power,
            self.kill_store,
            self.cut_power_of_store,
            self.fail_over,
            self.wipe_store,
            self.replay,
            self.reread,
            self.store_syncs,
            self.replica_follows,
        ]
        weighted = usual + [(fault, rng.choice((0, 0.2, 0.5, 1.5))) for fault in faults]
        if rng.random() < 0.25:  # here days close
            weighted += [(self.close_day, 2), (self.delete, 1), (self.deliver, 20), (self.replay, 2)]
        return [action for action, _ in weighted], [weight for _, weight in weighted]

    # Running

    def run(self) -> None:
        """Raises Violation."""
        logging.disable(logging.CRITICAL)
        try:
            actions, weights = self.actions
            for action in self.rng.choices(actions, weights, k=_STEPS):
                self.steps += 1
                action()
            self._heal()
            self._check_end()
        finally:
            for one in [*self._asking()]:
                one.close()
            shutil.rmtree(self.volume)
            logging.disable(logging.NOTSET)

    def boot(self, again: Disk | None = None) -> None:
        """A worker starts, with a journal and an id of its own (the stable id is one of the mutants)."""
        disk = again
        if disk is None or self.mutant != "stable-id":
            disk = Disk(self.rng.randbytes(8))
            self.disks[disk.producer] = disk
        disk.locked = True
        self.workers.append(Worker(self, disk))

    def _heal(self) -> None:
        """Nothing fails any more: what is unanswered is sent again, and all is shipped."""
        self.late.clear()
        for one in self._asking():  # an old primary is shut down at last
            if one.call.connection and one.call.connection.server is not self.primary:
                one.call.connection.broken = True
        for round_ in range(_QUIET_ROUNDS):
            while self.to_send:
                self.send()
            for worker in list(self.workers):
                self._sync(worker)
            self.adopt(sure=True)
            for worker in self.workers:
                worker.reread_due |= round_ % 4 == 0
                for _ in range(12):
                    self._deliver(worker)
            self.closings = [one for one in self.closings if not one.ended]
            if not self.closings and round_ % 3 == 0:
                sealed = (day for day in _DAYS if self.primary.partition(day).sealed and not self.book.read(day))
                day = next(sealed, None)
                if day or self.book.days():
                    self.closings.append(Closing(self, self.rng.choice(self.workers), day, Due({}, [])))
            for closing in list(self.closings):
                for _ in range(40):
                    self._deliver(closing)
            if round_ > 8 and not self.to_send and self._is_quiet():
                return
        raise Violation("I4: the store never counts to the journals' ends")

    def _is_quiet(self) -> bool:
        if self.mutant == "no-reread":
            return True
        return all(
            self._cursor(producer, day) >= end
            for producer, disk in self.disks.items()
            for day, end in _ends(disk).items()
        ) and all(self.primary.partition(day).closed == digest for day, digest in self.book.digests().items())

    def _cursor(self, producer: bytes, day: int) -> int:
        """How far *producer* is counted: in the day, or once that is closed in its page and what came late."""
        page, late = self.book.read(day), self.primary.partition(day, LATE)
        if page is None:
            return self.primary.partition(day).cursors.get(producer, 0)
        return max(page.producers.get(producer.hex(), 0), late.cursors.get(producer, 0) if late.open else 0)

    # Readers

    def view(self) -> None:
        """A snippet: acknowledged as soon as its record is stored. Its beacons follow some time."""
        if not self.workers:
            return
        rng, worker = self.rng, self.rng.choice(self.workers)
        day, ad, issuer = _DAYS[rng.random() < self.steps / _STEPS], rng.choice(_ADS), worker.disk.producer[:5]
        serial, worker.serial = worker.serial, worker.serial + 1
        self.views += 1
        worker.disk.append(Type.SERVED, day, issuer, serial, ad)
        for type_ in TOKEN_BIT:
            if rng.random() < 0.6:
                self.to_send.append(Event(self.views, day, issuer, serial, type_, ad))

    def send(self) -> None:
        if self.to_send and self.workers:
            self._send(self.to_send.pop(self.rng.randrange(len(self.to_send))))

    def replay(self) -> None:
        if self.sent and self.workers:
            self._send(self.rng.choice(self.sent))

    def _send(self, event: Event) -> None:
        worker = self.rng.choice(self.workers)
        self.sent.append(event)
        if event.key in self.seen:
            self.acknowledged.add(event)
            return
        if event.key in worker.syncing:
            number = worker.syncing[event.key]
        else:
            number = worker.disk.append(event.type, event.day, event.issuer, event.serial, event.ad)
            worker.syncing[event.key] = number
        worker.waiting.append((number, event))
        if self.mutant == "acknowledge-before-sync":
            self._acknowledge(worker, number)

    def sync(self) -> None:
        if self.workers:
            self._sync(self.rng.choice(self.workers))

    def _sync(self, worker: Worker) -> None:
        worker.disk.synced = len(worker.disk.facts)
        self._acknowledge(worker, worker.disk.synced)

    def _acknowledge(self, worker: Worker, number: int) -> None:
        done = [event for waits_for, event in worker.waiting if waits_for <= number]
        worker.waiting = [one for one in worker.waiting if one[0] > number]
        for event in done:
            worker.syncing.pop(event.key, None)
            self.seen.add(event.key)
        self.acknowledged.update(done)
        worker.disk.promised = max(worker.disk.promised, number if done else 0)

    # Workers

    def _end(self, worker: Worker) -> None:
        """kill -9: who waited for it hears nothing and sends again, or goes away."""
        self.workers.remove(worker)
        ended: list[Worker | Closing] = [worker, *(one for one in self.closings if one.worker is worker)]
        for one in ended:
            one.close()
            if one.call.work is not None and one.call.connection and self.rng.random() < 0.5:
                self.late.append((one.call.connection.server, one.call.work))
        self.closings = [closing for closing in self.closings if closing.worker is not worker]
        worker.disk.locked = False
        for disk in worker.adopted:
            disk.locked = False
        self.to_send += [event for _, event in worker.waiting if self.rng.random() < 0.8]

    def kill_worker(self) -> None:
        if self.workers:
            worker = self.rng.choice(self.workers)
            self._end(worker)
            self.boot(worker.disk)

    def cut_power(self) -> None:
        """All workers end, and every journal loses a part of what was not synced; nobody remembers repeats."""
        ended = list(self.workers)
        for worker in ended:
            self._end(worker)
        for disk in self.disks.values():
            disk.cut(self.rng.randint(disk.synced, len(disk.facts)))
            disk.synced = len(disk.facts)
            if disk.promised > len(disk.facts):
                raise Violation(f"I3: record {disk.promised} was acknowledged and is gone")
        self.seen.clear()
        self._check_store()
        for worker in ended:
            self.boot(worker.disk)

    def adopt(self, *, sure: bool = False) -> None:
        """One worker takes over the journals whose writer is gone; now and then two do (a copied volume)."""
        if not self.workers:
            return
        worker = self.rng.choice(self.workers)
        for disk in self.disks.values():
            copied = not sure and disk is not worker.disk and disk in self._dead() and self.rng.random() < 0.1
            if (disk.locked and not copied) or disk in worker.adopted:
                continue
            if self.mutant != "unsynced-adoption":
                disk.synced = len(disk.facts)
            disk.locked = True
            worker.adopted.append(disk)
            last = len(disk.facts)
            worker.shipper.sources.append(Worker.source(disk, lambda last=last: last))  # type: ignore[misc]

    def _dead(self) -> list[Disk]:
        alive = [worker.disk for worker in self.workers]
        return [disk for disk in self.disks.values() if disk not in alive]

    # Days that close

    def close_day(self) -> None:
        """Some worker closes a day, waiting for every journal, or for all but some that are given up."""
        if not self.workers or len(self.closings) > 1:
            return
        rng, day = self.rng, self.rng.choice(_DAYS)
        ends = {disk.producer.hex(): end for disk in self.disks.values() if (end := _ends(disk).get(day))}
        missing = [name for name in ends if rng.random() < 0.3] if rng.random() < 0.7 else []
        due = Due({name: end for name, end in ends.items() if name not in missing}, missing)
        self.closings.append(Closing(self, rng.choice(self.workers), day, due))

    def delete(self) -> None:
        """Every journal loses its segments of three records that the days' pages hold; the last one stays.

        Not those that only a page of what came late holds: they stay for two days more, and a world does not last so
        long.
        """
        if not self.workers:
            return
        listed = read_closed(self.volume)
        for disk in self.disks.values():
            held = _segments(disk)
            pages = {day: self.book.read(day) for day in listed}
            archived = {day: page.producers.get(disk.producer.hex(), 0) for day, page in pages.items() if page}
            if self.mutant == "delete-uncounted":
                archived = dict.fromkeys(listed, 1 << 62)
            for segment in held[:-1]:
                if segment.last > disk.synced or not may_go(segment, archived, _NOW, _RULES):
                    break
                disk.deleted = max(disk.deleted, segment.last)

    def reread(self) -> None:
        for worker in self.workers:
            worker.reread_due = True

    # The network

    def _asking(self) -> list[Worker | Closing]:
        """Whoever waits for the store: every worker's shipper, and those who close days."""
        self.closings = [one for one in self.closings if not one.ended]
        return [*self.workers, *self.closings]

    def _call(self) -> tuple[Worker | Closing, Call] | None:
        asking = [one for one in self._asking() if one.call.work is not None]
        if not asking:
            return None
        worker = self.rng.choice(asking)
        return worker, worker.call

    def deliver(self) -> None:
        if asking := self._asking():
            self._deliver(self.rng.choice(asking))

    def _deliver(self, worker: Worker | Closing) -> None:
        call = worker.call
        if isinstance(worker, Closing) and worker.ended:
            return
        if call.connection is not None and call.connection.broken:
            worker.resume(error=StoreUnavailable("the connection ended"))
        elif call.connection is None or call.work is None:
            worker.resume()
        else:
            worker.resume(call.work(call.connection.server))

    def lose_request(self) -> None:
        if found := self._call():
            found[0].resume(error=StoreUnavailable("no answer"))

    def lose_reply(self) -> None:
        if found := self._call():
            worker, call = found
            if call.connection and call.work and not call.connection.broken:
                call.work(call.connection.server)
            worker.resume(error=StoreUnavailable("no answer"))

    def delay_request(self) -> None:
        """Its sender gives up, and it arrives all the same, some time."""
        if found := self._call():
            worker, call = found
            if call.connection and call.work:
                self.late.append((call.connection.server, call.work))
            worker.resume(error=StoreUnavailable("no answer"))

    def deliver_late(self) -> None:
        if self.late:
            server, work = self.late.pop(self.rng.randrange(len(self.late)))
            work(server)

    # The store

    def apply(self, server: StoreModel, producer: bytes, batch: Batch, part: str) -> Outcome:
        """A batch arrives at *server*."""
        outcome = server.apply(producer, batch, part)
        self.batches.append((producer, batch, part))
        if server is self.primary:
            self._check_store(batch.day)
        return outcome

    def store_syncs(self) -> None:
        self.primary.synced = len(self.primary.log)

    def replica_follows(self) -> None:
        log = len(self.primary.log)
        self.primary.replicated = self.rng.randint(min(self.primary.replicated, log), log)

    def _break_connections(self, share: float = 1.0) -> None:
        for one in self._asking():
            if one.call.connection and self.rng.random() < share:
                one.call.connection.broken = True

    def kill_store(self) -> None:
        self.late = [(server, work) for server, work in self.late if server is not self.primary]
        self._break_connections()

    def cut_power_of_store(self) -> None:
        """It comes back with a part of what its file had not synced."""
        self.kill_store()
        log = self.primary.log
        self.primary.undo(self.rng.randint(self.primary.synced, len(log)), torn=self.mutant == "torn-batch")
        self.primary.synced = len(log)
        self._check_store()

    def fail_over(self) -> None:
        """The replica takes over as far as it got; who is still connected to the old one may stay there a while."""
        old = self.primary
        self.primary = old.copy()
        self.primary.undo(old.replicated)
        self.primary.replicated = self.rng.randint(0, len(self.primary.log))
        self._break_connections(self.rng.choice((0.5, 1.0)))
        self._check_store()

    def wipe_store(self) -> None:
        self.primary.wipe()

    # The invariants

    def _check_store(self, *days: int) -> None:
        """I1, I2, I5, I10: the store is at every moment exactly what its cursors say it has counted."""
        for day, part in list(self.primary.days):
            there, page = self.primary.partition(day, part), self.book.read(day)
            if (days and day not in days) or (part == LATE and not there.open) or (part != LATE and page):
                continue  # a late partition half made, or a closed day, which is compared at the end
            before = page.producers if page and part == LATE else {}
            expected = self._facts(day, before, {name.hex(): cursor for name, cursor in there.cursors.items()})
            for field in there.counts.keys() | expected.keys():
                if there.counts.get(field, 0) != expected[field]:
                    raise Violation(f"I1: {field} is {there.counts.get(field, 0)}, journals say {expected[field]}")

    def _facts(self, day: int, after: Mapping[str, int], upto: Mapping[str, int]) -> Counter[str]:
        """What the journals hold of *day* up to these cursors, each token once; without what lies before *after*."""
        found: Counter[str] = Counter()
        tokens = {
            fact.token
            for name, cursor in after.items()
            for fact in self.disks[bytes.fromhex(name)].facts[:cursor]
            if fact.day == day
        }
        for name, cursor in upto.items():
            disk = self.disks[bytes.fromhex(name)]
            if cursor > disk.synced:
                raise Violation(f"I2: the store counted {cursor} records, and {disk.synced} are synced")
            for fact in disk.facts[after.get(name, 0) : cursor]:
                if fact.day == day and (fact.token is None or fact.token not in tokens):
                    found[fact.field] += 1
                    tokens.add(fact.token)
        return found

    def _check_end(self) -> None:
        """I4, I7, I13: pages and what came late are the journals. I9, I8: applied again or late, nothing changes."""
        self._check_store()
        for day in self.book.days():
            page = self.book.read(day)
            assert page
            if self.primary.partition(day).counts != page.counts:
                raise Violation(f"I8: the store has other figures of the closed day {day} than its page")
            if Counter(page.counts) != self._facts(day, {}, page.producers):
                raise Violation(f"I13: the page of day {day} is not what the journals hold up to its cursors")
        everything = [fact for disk in self.disks.values() for fact in disk.facts]
        held = {fact.token for fact in everything if fact.token}
        if missing := {event.key for event in self.acknowledged} - held:
            raise Violation(f"I3: {len(missing)} acknowledged events are in no journal")
        expected: Counter[tuple[int, str]] = Counter((fact.day, fact.field) for fact in everything if not fact.token)
        once = {fact.token: (fact.day, fact.field) for fact in everything if fact.token}
        expected.update(once.values())
        counted = self._counts()
        if counted != +expected:
            raise Violation(f"I4, I13: the store counts {counted.total()}, the journals hold {expected.total()}")
        for field, n in Counter(event.field for event in self.acknowledged).items():
            if counted[field] < n:
                raise Violation(f"I4: {n} of {field} were acknowledged, and {counted[field]} are counted")
        for producer, batch, part in self.batches:
            self.primary.apply(producer, batch, part)
        if counted != self._counts():
            raise Violation("I9: a batch applied again changed the counts")
        for there in self.primary.days.values():
            there.sealed = True
        for producer, batch, part in self.batches:
            self.primary.apply(producer, Batch(batch.day, batch.end, batch.end + 1, 1, {"1:7:x": 1}, {}), part)
        if counted != self._counts():
            raise Violation("I8: a sealed day changed")

    def _counts(self) -> Counter[tuple[int, str]]:
        """By day and field, what came late added."""
        found: Counter[tuple[int, str]] = Counter()
        for (day, part), one in self.primary.days.items():
            if part != LATE or one.open:
                found.update({(day, field): n for field, n in one.counts.items()})
        return +found


def _segments(disk: Disk) -> list[Held]:
    """The journal cut into segments of three records, those deleted left out."""
    found = []
    for first in range(disk.deleted + 1, len(disk.facts) + 1, 3):
        last = min(first + 2, len(disk.facts))
        ends = {disk.facts[number - 1].day: number for number in range(first, last + 1)}
        found.append(Held(first, last, ends, 0.0, whole=True))
    return found


def _ends(disk: Disk) -> dict[int, int]:
    """By day the number of its last record in this journal."""
    return {fact.day: number for number, fact in enumerate(disk.facts, 1)}


def worlds(first: int, count: int, mutant: str | None = None) -> Iterator[tuple[int, str | None]]:
    """Run the world of each seed; the seed, and what was violated in it, if anything."""
    for seed in range(first, first + count):
        world = World(seed, mutant)
        try:
            world.run()
        except Violation as found:
            yield seed, f"{found} (step {world.steps})"
        else:
            yield seed, None
