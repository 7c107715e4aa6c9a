"""The simulator's store is held against the script it stands for, on real servers."""

import asyncio
from collections.abc import Awaitable, Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adserver.store import LATE, Store, open_store, partition
from adserver.tally import Batch
from adserver.torture.model import StoreModel
from adserver.torture.simulator import World
from tests.edges.servers import Server

DAY = 20_000
PRODUCERS = (b"producer", b"another.")
FIELDS = tuple(f"{type_}:{hour}:0102030405060{ad}" for type_ in (1, 3, 5) for hour in (7, 8) for ad in range(4))
PLAIN = [field for field in FIELDS if field.startswith("1")]
ONCE = [field for field in FIELDS if not field.startswith("1")]
CHUNKS = tuple(b"b:issue" + n.to_bytes(4, "big") for n in range(3))

entries = st.lists(st.tuples(st.integers(0, 255), st.sampled_from(ONCE)), min_size=1, max_size=6)


@st.composite
def batches(draw: st.DrawFn) -> tuple[bytes, Batch]:
    """Any batch of either producer: mostly from where its cursor may well be."""
    start = draw(st.integers(0, 3))
    tokens = draw(st.dictionaries(st.sampled_from(CHUNKS), entries, max_size=3))
    fields = draw(st.dictionaries(st.sampled_from(PLAIN), st.integers(1, 9), max_size=4))
    for found in tokens.values():
        fields.update({field: 0 for _, field in found})
    end = draw(st.integers(start + 1, start + 2))
    return draw(st.sampled_from(PRODUCERS)), Batch(DAY, start, end, 1, fields, tokens)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(batches(), max_size=12), st.integers(0, 12))
def test_the_model_does_what_the_script_does(
    server: Server, given_batches: list[tuple[bytes, Batch]], sealed_at: int
) -> None:
    """
    The same answers, counts, cursors and bits after the same batches, sealed or not.
    """
    server.clean()
    model = StoreModel()

    async def compare(store: Store) -> None:
        for number, (producer, batch) in enumerate(given_batches):
            if number == sealed_at:
                await store.ask("HSET", partition(DAY), "sealed", 1)
                model.partition(DAY).sealed = True
            assert await store.apply(producer, batch) == model.apply(producer, batch)
        assert await store.cursors(DAY, PRODUCERS) == model.cursors(DAY, PRODUCERS)
        assert await store.counts(DAY) == model.partition(DAY).counts
        held = await store.ask("HMGET", partition(DAY), *CHUNKS)
        bits = {
            (chunk, place)
            for chunk, value in zip(CHUNKS, held, strict=True)
            for place in range(256)
            if value and value[place >> 3] >> (place & 7) & 1
        }
        assert bits == model.partition(DAY).bits

    asyncio.run(_with(server, compare))


def test_what_is_undone_was_never_there(server: Server) -> None:
    """
    A model that forgets its last writes is the model that never saw them.
    """
    batches = [
        (PRODUCERS[0], Batch(DAY, 0, 2, 2, {PLAIN[0]: 2, ONCE[0]: 0}, {CHUNKS[0]: [(3, ONCE[0])]})),
        (PRODUCERS[1], Batch(DAY, 0, 4, 4, {PLAIN[0]: 1, ONCE[1]: 0}, {CHUNKS[0]: [(3, ONCE[1]), (4, ONCE[1])]})),
    ]
    model, shorter = StoreModel(), StoreModel()
    for producer, batch in batches:
        model.apply(producer, batch)
    shorter.apply(*batches[0])
    model.undo(1)
    assert model.days == shorter.days


async def _with(server: Server, body: Callable[[Store], Awaitable[None]]) -> None:
    async with open_store(server.url) as store:
        await body(store)


def test_the_model_seals_and_opens_late_partitions_as_the_scripts_do(server: Server) -> None:
    """
    Sealed only with every cursor at its end, nothing counted in a late partition before it is open, and then from its
    cursors, counts and tokens on.
    """
    server.clean()
    model = StoreModel()
    first, second = PRODUCERS
    batch = Batch(DAY, 0, 3, 2, {PLAIN[0]: 2, ONCE[0]: 0}, {CHUNKS[0]: [(3, ONCE[0])]})
    late = Batch(DAY, 3, 5, 3, {PLAIN[0]: 1, ONCE[0]: 0}, {CHUNKS[0]: [(3, ONCE[0]), (4, ONCE[0])]})
    fields: dict[str | bytes, str | bytes] = {f"@{first.hex()}": "3", CHUNKS[0]: bytes([1 << 3]) + bytes(31)}

    async def compare(store: Store) -> None:
        assert await store.apply(first, batch) == model.apply(first, batch)
        for ends in ({first.hex(): 4}, {first.hex(): 3, second.hex(): 1}, {first.hex(): 3}):
            assert await store.seal(DAY, ends, "seal") == model.seal(DAY, ends)
        assert await store.apply(first, late) == model.apply(first, late)
        assert await store.apply(first, late, LATE) == model.apply(first, late, LATE)
        assert await store.open_late(DAY, fields, "mark")
        assert [model.fill(DAY, "mark", step, some) for step, some in (("first", fields), ("open", {}))] == [
            "filled",
            "filled",
        ]
        assert not await store.open_late(DAY, fields, "other") or model.fill(DAY, "other", "first", fields) == "open"
        assert await store.apply(first, late, LATE) == model.apply(first, late, LATE)
        assert await store.counts(DAY, LATE) == model.partition(DAY, LATE).counts == {PLAIN[0]: 1, ONCE[0]: 1}
        snapshot, modelled = await store.snapshot(DAY, LATE), model.snapshot(DAY, LATE)
        assert snapshot
        assert (snapshot.producers, snapshot.bits) == (modelled.producers, modelled.bits)

    asyncio.run(_with(server, compare))


def test_days_close_in_simulated_worlds() -> None:
    """
    Among a hundred worlds some close a day, count what comes late, and let journals go; none of it is in vain.
    """
    closed = late = deleted = 0
    for seed in range(100):
        world = World(seed)
        world.run()
        closed += len(world.book.days())
        late += sum(part == LATE and bool(one.counts) for (_, part), one in world.primary.days.items())
        deleted += any(disk.deleted for disk in world.disks.values())
    assert (closed > 10, late > 10, deleted > 0) == (True, True, True)
