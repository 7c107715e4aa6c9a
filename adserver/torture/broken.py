"""The service broken on purpose, in the ways counting is usually built: a proof that cannot fail proves nothing.

Each variant takes the place of one part of the running service, in its own process and under torture only, and names
the faults that must bring it to light.
"""

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

Install = Callable[[Path, Any], None]
"""Breaks this process; given the directory shared with the torturer, and where to say that syncs are only pretended."""


def _memory(*_: Any) -> None:
    from adserver import background, journal, settings, ship, store, tally
    from adserver.errors import StoreUnavailable
    from adserver.events import Type

    counts: Counter[tuple[int, str]] = Counter()
    append = journal.Journal.append

    def counting(
        self: Any, type_: int, reason: int, day: int, hour: int, issuer: bytes, serial: int, subject: bytes, now: float
    ) -> int:
        counts[day, tally.field_of(type_, reason, hour, subject)] += 1
        return append(self, type_, reason, day, hour, issuer, serial, subject, now)

    def counting_served(self: Any, day: int, hour: int, issuer: bytes, serial: int, subjects: Any, now: float) -> None:
        for place, subject in enumerate(subjects, serial):
            counting(self, Type.SERVED, 0, day, hour, issuer, place, subject, now)

    async def run(_: Any, stopping: Any) -> None:
        url = settings.read_settings(os.environ).store_url
        last = False
        while not last:
            last = stopping.is_set()
            await background.wait_for_any(ship.FLUSH_S, stopping)
            batch = counts.copy()
            counts.clear()
            try:
                async with store.open_store(url) as there:
                    for day in {day for day, _ in batch}:
                        # in one go: what fails is put back, and counted twice if it had arrived after all
                        pairs = [word for (on, field), n in batch.items() if on == day for word in (field, n)]
                        await there.ask("EVAL", _ADD, 1, store.partition(day), *pairs)
            except StoreUnavailable:
                counts.update(batch)

    journal.Journal.append = counting  # type: ignore[method-assign]
    journal.Journal.append_served = counting_served  # type: ignore[method-assign]
    ship.Shipper.run = run  # type: ignore[method-assign,assignment]


_ADD = "for i = 1, #ARGV, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end"
# Then the cursor, for the torturer to see when all is quiet; nobody else looks at it.
_ADD_AND_TELL = """
local n = #ARGV
for i = 1, n - 2, 2 do redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1]) end
if tonumber(redis.call('HGET', KEYS[1], ARGV[n - 1]) or '0') < tonumber(ARGV[n]) then
  redis.call('HSET', KEYS[1], ARGV[n - 1], ARGV[n])
end
"""


def _no_cursor_no_bits(*_: Any) -> None:
    from adserver import store

    believed: dict[tuple[int, bytes], int] = {}

    async def cursors(_: Any, day: int, producers: Any) -> list[int]:
        return [believed.get((day, producer), 0) for producer in producers]

    async def apply(self: Any, producer: bytes, batch: Any, part: str = "") -> Any:
        sums = Counter(batch.fields)
        sums.update(field for entries in batch.tokens.values() for _, field in entries)
        pairs = [word for pair in sums.items() for word in pair]
        key = store.partition(batch.day, part)
        await self.ask("EVAL", _ADD_AND_TELL, 1, key, *pairs, f"@{producer.hex()}", batch.end)
        believed[batch.day, producer] = batch.end
        return store.Applied(batch.end, 0)

    store.Store.cursors = cursors  # type: ignore[method-assign,assignment]
    store.Store.apply = apply  # type: ignore[method-assign]


def _forget_when(confirmed: Callable[[Any], Awaitable[bool]]) -> Install:
    """The journal lets go of records once they are *confirmed*: asked again for them, it has nothing to give."""

    def install(side: Path, _: Any) -> None:
        from adserver import store

        real = store.Store.apply

        async def apply(self: Any, producer: bytes, batch: Any, part: str = "") -> Any:
            mark = side / f"forgotten-{producer.hex()}-{batch.day}"
            forgotten = int(mark.read_text()) if mark.exists() else 0
            if batch.start < forgotten:
                gone = msgspec.structs.replace(batch, end=min(batch.end, forgotten), fields={}, tokens={})
                outcome = await real(self, producer, gone, part)
                if isinstance(outcome, store.Applied) and batch.end > forgotten:
                    return store.Mismatch(forgotten)
                return outcome
            outcome = await real(self, producer, batch, part)
            if isinstance(outcome, store.Applied) and await confirmed(self):
                new = mark.with_name(f"{mark.name}.{os.getpid()}")
                new.write_text(str(outcome.cursor))
                new.replace(mark)
            return outcome

        store.Store.apply = apply  # type: ignore[method-assign]

    return install


async def _replied(_: Any) -> bool:
    return True


async def _waited_for_file(store: Any) -> bool:
    local, _ = await store.ask("WAITAOF", 1, 0, 900)
    return bool(local)


def _several_commands(*_: Any) -> None:
    from adserver import store

    async def apply(self: Any, producer: bytes, batch: Any, part: str = "") -> Any:
        key, cursor = store.partition(batch.day, part), f"@{producer.hex()}"
        stands = int(await self.ask("HGET", key, cursor) or 0)
        if stands != batch.start:
            return store.Mismatch(stands)
        for field, n in batch.fields.items():
            await self.ask("HINCRBY", key, field, n)
        for chunk, entries in batch.tokens.items():
            bits = bytearray(await self.ask("HGET", key, chunk) or bytes(32))
            for place, field in entries:
                if not bits[place >> 3] >> (place & 7) & 1:
                    bits[place >> 3] |= 1 << (place & 7)
                    await self.ask("HINCRBY", key, field, 1)
            await self.ask("HSET", key, chunk, bytes(bits))
        await self.ask("HSET", key, cursor, batch.end)
        return store.Applied(batch.end, 0)

    store.Store.apply = apply  # type: ignore[method-assign]


def _unsynced_adoption(_: Path, pretending: Any) -> None:
    from adserver import ship

    real = vars(ship)["adopt_dead"]

    def adopt_dead(*arguments: Any) -> Any:
        pretending.on = True
        try:
            return real(*arguments)
        finally:
            pretending.on = False

    vars(ship)["adopt_dead"] = adopt_dead


class Variant(Struct, frozen=True):
    """One way to break it. *server* is asked for where the variant needs one that knows its commands."""

    about: str
    faults: tuple[str, ...]
    install: Install
    server: str | None = None
    beacons: bool = True


VARIANTS = {
    "memory": Variant("counts are added up in memory and flushed to the store", ("kill", "cut"), _memory),
    "no-cursor-no-bits": Variant(
        "batches are applied without cursor and without token bits", ("kill", "cut"), _no_cursor_no_bits
    ),
    "forget-at-reply": Variant(
        "the journal is forgotten at the store's reply", ("redis-power",), _forget_when(_replied)
    ),
    "several-commands": Variant("a batch is several write commands", ("redis-power", "cut"), _several_commands),
    "forget-at-waitaof-power": Variant(
        "the journal is forgotten at WAITAOF 1 0, and power fails",
        ("redis-power",),
        _forget_when(_waited_for_file),
        "embedded",
    ),
    "forget-at-waitaof-failover": Variant(
        "the journal is forgotten at WAITAOF 1 0, and a stale replica takes over",
        ("failover",),
        _forget_when(_waited_for_file),
        "embedded",
    ),
    "unsynced-adoption": Variant(
        "an adopter ships a dead worker's records without syncing them first",
        ("kill-then-power",),
        _unsynced_adoption,
        beacons=False,
    ),
}
"""The seven of the design, by name."""
