"""The store against real servers: what is applied once is counted once, and what must not be touched is refused."""

import asyncio
import os
import re
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adserver.errors import StoreRefused, StoreUnavailable
from adserver.events import TOKEN_BIT, Event, Type
from adserver.store import Applied, Mismatch, Sealed, Store, open_store, partition
from adserver.tally import Batch, tally
from tests.edges.servers import Server, running_server
from tests.records import field_of, stored

DAY = 20514
KEY = partition(DAY)
P, Q = b"\x01producer"[:8], b"\x02producer"[:8]
AD = bytes.fromhex("0b5d1122334455") + b"\0"

Run = Callable[[Callable[[Store], Awaitable[Any]]], Any]


def event(
    type_: Type = Type.IMPRESSION, serial: int = 0, hour: int = 14, subject: bytes = AD, reason: int = 0
) -> Event:
    return Event(type_, reason, DAY, hour, b"abcde", serial, subject, 1_772_000_000)


def batch(start: int, *events: Event) -> Batch:
    return tally(DAY, start, start + len(events), stored(events))


def ask(server: Server, *command: Any) -> Any:
    with server.client() as client:
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


def with_url(url: str, body: Callable[[Store], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with open_store(url) as store:
            return await body(store)

    return asyncio.run(main())


def test_a_batch_applied_twice_is_counted_once(with_store: Run) -> None:
    """
    The second time the cursor stands elsewhere, and nothing changes.
    """

    async def body(store: Store) -> None:
        one = batch(0, event(Type.SERVED), event(Type.SERVED), event(Type.CLICK, 7))
        assert await store.apply(P, one) == Applied(3, 0)
        counts = await store.counts(DAY)
        assert await store.apply(P, one) == Mismatch(3)
        assert await store.counts(DAY) == counts == {"1:14:0b5d1122334455": 2, "5:14:0b5d1122334455": 1}
        assert await store.cursors(DAY, [P, Q]) == [3, 0]

    with_store(body)


def test_a_batch_from_elsewhere_is_refused(with_store: Run) -> None:
    """
    A gap and an overlap are both a mismatch that says where the store stands.
    """

    async def body(store: Store) -> None:
        await store.apply(P, batch(0, event(serial=1), event(serial=2)))
        assert await store.apply(P, batch(1, event(serial=3))) == Mismatch(2)
        assert await store.apply(P, batch(5, event(serial=3))) == Mismatch(2)
        assert await store.apply(P, batch(2, event(serial=3))) == Applied(3, 0)

    with_store(body)


def test_after_a_restore_the_lost_part_is_counted_again(with_store: Run, server: Server) -> None:
    """
    A dump brings back an older cursor together with older counts and bits, so the same batches fit again.
    """

    async def body(store: Store) -> None:
        await store.apply(P, batch(0, event(serial=1), event(Type.SERVED)))
        dump = ask(server, "DUMP", KEY)
        second = batch(2, event(serial=1), event(serial=2), event(Type.SERVED))
        await store.apply(P, second)
        whole = await store.counts(DAY)
        ask(server, "RESTORE", KEY, 0, dump, "REPLACE")
        assert await store.apply(P, batch(5, event(serial=9))) == Mismatch(2)
        assert await store.apply(P, second) == Applied(5, 1)
        assert await store.counts(DAY) == whole == {"3:14:0b5d1122334455": 2, "1:14:0b5d1122334455": 2}

    with_store(body)


def test_a_token_counts_once_per_event(with_store: Run) -> None:
    """
    Whichever producer brings it first; repeats are told. A token's view and click are two events.
    """

    async def body(store: Store) -> None:
        assert await store.apply(P, batch(0, event(serial=64), event(serial=64), event(Type.CLICK, 64))) == Applied(
            3, 1
        )
        assert await store.apply(Q, batch(0, event(serial=64), event(serial=65))) == Applied(2, 1)
        assert await store.counts(DAY) == {"3:14:0b5d1122334455": 2, "5:14:0b5d1122334455": 1}

    with_store(body)


@pytest.mark.parametrize("serial", [0, 63, 64, 2**32 - 1])
def test_every_serial_has_its_own_bits(with_store: Run, serial: int) -> None:
    """
    The first and last token of a chunk, and the last there can be.
    """

    async def body(store: Store) -> None:
        all_types = [event(type_, serial) for type_ in TOKEN_BIT]
        n = len(all_types)
        assert await store.apply(P, batch(0, *all_types)) == Applied(n, 0)
        assert await store.apply(P, batch(n, *all_types)) == Applied(2 * n, n)
        neighbours = [event(serial=near) for near in (serial - 1, serial + 1) if 0 <= near < 2**32]
        assert await store.apply(P, batch(2 * n, *neighbours)) == Applied(2 * n + len(neighbours), 0)

    with_store(body)


def test_a_script_the_server_forgot_is_loaded_again(with_store: Run, server: Server) -> None:
    """
    SCRIPT FLUSH between two batches goes unnoticed.
    """

    async def body(store: Store) -> None:
        await store.apply(P, batch(0, event(serial=1)))
        ask(server, "SCRIPT", "FLUSH")
        assert await store.apply(P, batch(1, event(serial=2))) == Applied(2, 0)

    with_store(body)


def test_a_sealed_day_takes_nothing(with_store: Run, server: Server) -> None:
    """
    With the field `sealed` the partition never changes again.
    """

    async def body(store: Store) -> None:
        await store.apply(P, batch(0, event(serial=1)))
        ask(server, "HSET", KEY, "sealed", 1)
        before = ask(server, "DUMP", KEY)
        assert await store.apply(P, batch(1, event(serial=2))) == Sealed()
        assert ask(server, "DUMP", KEY) == before

    with_store(body)


HOSTILE = [b"abc", b"1e309", b"inf", b"nan", b"-5", b" 7 ", b"0x10", b"1.5", b"", b"\xff", b"9" * 400, b"1_000"]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["@" + P.hex(), "3:14:0b5d1122334455"])
def test_what_is_no_number_is_refused_in_words(with_store: Run, server: Server, field: str, value: bytes) -> None:
    """
    A cursor or count that we never wrote is named in a sentence, and the partition stays as it is.
    """
    ask(server, "HSET", KEY, field, value, "F14", "3:14:0b5d1122334455\n")
    before = ask(server, "HGETALL", KEY)

    async def body(store: Store) -> None:
        with pytest.raises(StoreRefused, match=r"not counts"):
            await store.apply(P, batch(0, event(serial=1)))
        if field.startswith("@"):
            with pytest.raises(StoreRefused, match=r"not numbers"):
                await store.cursors(DAY, [P])
        else:
            with pytest.raises(StoreRefused, match=r"as the count"):
                await store.counts(DAY)

    with_store(body)
    assert ask(server, "HGETALL", KEY) == before


def test_token_bits_of_another_length_are_refused(with_store: Run, server: Server) -> None:
    """
    A chunk that is not 32 bytes was not written by us.
    """
    ask(server, "HSET", KEY, b"b:abcde" + bytes(4), b"short")
    before = ask(server, "HGETALL", KEY)

    async def body(store: Store) -> None:
        with pytest.raises(StoreRefused, match="not counts"):
            await store.apply(P, batch(0, event(serial=1)))

    with_store(body)
    assert ask(server, "HGETALL", KEY) == before


def test_a_key_of_another_type_is_refused(with_store: Run, server: Server) -> None:
    """
    Another program's data under our key is left alone.
    """
    ask(server, "SET", KEY, "somebody's")

    async def body(store: Store) -> None:
        for work in (store.apply(P, batch(0, event())), store.cursors(DAY, [P]), store.counts(DAY)):
            with pytest.raises(StoreRefused, match="another program's data"):
                await work

    with_store(body)
    assert ask(server, "GET", KEY) == b"somebody's"


def test_text_that_is_not_ours_does_not_break_a_report(with_store: Run, server: Server) -> None:
    """
    Bytes that are no UTF-8 in a directory or a name are shown as such.
    """
    ask(server, "HSET", KEY, "F3", b"\xff\xfe\n1:3:00\n", "1:3:00", "4")
    ask(server, "HSET", "as:ads", b"\xff", b"\xfe")

    async def body(store: Store) -> None:
        assert await store.counts(DAY) == {"1:3:00": 4}
        assert len(await store.ad_names()) == 1

    with_store(body)


def test_a_batch_is_one_write_command(with_store: Run, server: Server) -> None:
    """
    Reading aside, the server runs a single HSET per batch: no transaction, no second write.
    """

    async def body(store: Store) -> None:
        await store.apply(P, batch(0, event(serial=1)))
        ask(server, "CONFIG", "RESETSTAT")
        await store.apply(P, batch(1, *(event(type_, n, hour=n) for n in range(9) for type_ in Type if type_ != 2)))

    with_store(body)
    with server.client() as client:
        stats = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): told["calls"] for name, told in stats.items()}
    assert {name: calls[name] for name in ("evalsha", "hmget", "hset")} == {"evalsha": 1, "hmget": 1, "hset": 1}
    assert "multi" not in calls
    assert set(calls) <= {
        "hello",
        "evalsha",
        "hmget",
        "hset",
        "config|resetstat",
        "config",
        "client|setinfo",
        "client|setname",
    }


def test_the_append_only_file_holds_a_plain_hset(own_server: Server) -> None:
    """
    No MULTI stands in the file that a power cut could leave open, and no script.
    """

    async def body(store: Store) -> None:
        for n in range(5):
            await store.apply(P, batch(n, event(serial=n)))

    with_url(own_server.url, body)

    log = b"".join(path.read_bytes() for path in (own_server.directory / "appendonlydir").glob("*.aof"))
    assert log.upper().count(b"\r\nHSET\r\n") == 5
    for word in (b"MULTI", b"EXEC", b"EVAL", b"SCRIPT"):
        assert word not in log.upper()


def test_a_torn_append_only_file_holds_whole_batches(own_server: Server) -> None:
    """
    Cut at any byte, the file restarts with a prefix of the batches: cursor, counts and bits agree.
    """

    async def fill(store: Store) -> None:
        for n in range(4):
            await store.apply(P, batch(2 * n, event(serial=n), event(Type.SERVED)))

    async def look(store: Store) -> None:
        (cursor,) = await store.cursors(DAY, [P])
        counts = await store.counts(DAY)
        assert counts == ({"3:14:0b5d1122334455": cursor // 2, "1:14:0b5d1122334455": cursor // 2} if cursor else {})
        assert cursor % 2 == 0
        more = batch(cursor, event(serial=100 + cursor), event(Type.SERVED))
        assert await store.apply(P, more) == Applied(cursor + 2, 0)

    with_url(own_server.url, fill)
    own_server.kill()
    (path,) = (own_server.directory / "appendonlydir").glob("*.incr.aof")
    whole = path.read_bytes()
    for cut in (len(whole) - 1, len(whole) * 3 // 4, len(whole) // 2):
        path.write_bytes(whole[:cut])
        for _ in range(2):  # the second start is the one that a torn transaction would break
            own_server.start()
            with_url(own_server.url, look)
            own_server.kill()


def test_the_largest_batch_is_accepted(with_store: Run) -> None:
    """
    1,500 distinct fields of served events and 500 tokens in as many chunks and fields, over all 25 hours.
    """
    served = [event(Type.SERVED, hour=n % 25, subject=n.to_bytes(8, "little")) for n in range(1500)]
    tokens = [event(Type.CLICK, 64 * n, n % 25, n.to_bytes(8, "little")) for n in range(500)]

    async def body(store: Store) -> None:
        one = batch(0, *served, *tokens)
        assert len(one.fields) == 2000
        assert len(one.tokens) == 500
        assert await store.apply(P, one) == Applied(2000, 0)
        assert await store.apply(P, batch(2000, *served, *tokens)) == Applied(4000, 500)
        counts = await store.counts(DAY)
        assert len(counts) == 2000
        assert sum(counts.values()) == 3500

    with_store(body)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """A day's events as a worker may journal them; what a token says of its ad and hour never changes."""
    made: list[Event] = []
    for _ in range(draw(st.integers(1, 60))):
        serial = draw(st.integers(0, 200))
        made.append(
            event(
                draw(st.sampled_from(list(Type))),
                serial,
                serial % 25,
                (serial % 3).to_bytes(8, "little"),
                draw(st.integers(0, 2)),
            )
        )
    return made


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(streams(), st.lists(st.integers(1, 20), min_size=1), st.booleans())
def test_any_batching_counts_what_counting_by_hand_counts(
    server: Server, stream: list[Event], sizes: list[int], two: bool
) -> None:
    """
    However events are cut into batches, repeated, and spread over two producers, a token counts once, the rest each.
    """
    by_hand: Counter[str] = Counter()
    seen: dict[tuple[int, Type], str] = {}
    for one in stream:
        if one.type in TOKEN_BIT:
            seen.setdefault((one.serial, one.type), field_of(one))
        else:
            by_hand[field_of(one)] += 2 if two else 1
    by_hand.update(seen.values())

    async def body(store: Store) -> None:
        for producer in (P, Q)[: 2 if two else 1]:
            at = turn = 0
            while at < len(stream):
                part = stream[at : at + sizes[turn % len(sizes)]]
                assert isinstance(await store.apply(producer, batch(at, *part)), Applied)
                assert isinstance(await store.apply(producer, batch(at, *part)), Mismatch)
                at, turn = at + len(part), turn + 1
        found = await store.counts(DAY)
        assert {field: count for field, count in found.items() if count} == by_hand

    ask(server, "FLUSHALL")
    with_url(server.url, body)


# The server itself


def test_a_good_server_is_healthy(with_store: Run) -> None:
    """
    `check` names its version, and warns when it keeps no append-only file.
    """

    async def body(store: Store) -> None:
        health = await store.check()
        assert health.version[0].isdigit()
        assert "append-only" in health.warnings[0]

    with_store(body)


def test_a_server_that_may_evict_is_refused(with_store: Run, server: Server) -> None:
    """
    An evicted cursor would count events twice.
    """
    for policy in ("allkeys-lru", "volatile-ttl"):
        ask(server, "CONFIG", "SET", "maxmemory-policy", policy)

        async def body(store: Store) -> None:
            with pytest.raises(StoreRefused, match="'noeviction'"):
                await store.check()

        with_store(body)


def test_a_replica_is_refused(own_server: Server) -> None:
    """
    It cannot be written to; the sentence asks for the primary.
    """
    ask(own_server, "REPLICAOF", "127.0.0.1", "1")

    async def body(store: Store) -> None:
        with pytest.raises(StoreRefused, match="primary"):
            await store.check()
        with pytest.raises(StoreUnavailable, match=r"READONLY|read only"):
            await store.apply(P, batch(0, event()))

    with_url(own_server.url, body)


@contextmanager
def speaking(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """A server of ours that says *answer* of each command's name; with b"" it hangs up."""
    directory = tempfile.mkdtemp(prefix="ads-")
    path = f"{directory}/s.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with listener.accept()[0] as caller:
                while data := caller.recv(65536):
                    names = re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)\r\n", data)
                    said = [answer(name) for name in names]
                    if not all(said):
                        return
                    with suppress(BrokenPipeError):
                        caller.sendall(b"".join(said))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            thread.join(5)
    os.unlink(path)
    os.rmdir(directory)


def test_an_old_server_is_refused() -> None:
    """
    Redis before 6.2 is refused with its version. (A stand-in answers INFO: no such server is at hand.)
    """
    info = b"redis_version:5.0.7\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n"

    async def body(store: Store) -> None:
        with pytest.raises(StoreRefused, match=r"version 5\.0\.7; expected Redis 6\.2"):
            await store.check()

    with speaking(lambda name: b"$%d\r\n%s\r\n" % (len(info), info) if name == b"INFO" else b"+OK\r\n") as url:
        with_url(url, body)


@pytest.mark.parametrize("answer", [b"+what\r\n", b"$-1\r\n", b"*0\r\n", b"-ERR no\r\n", b"\0\0\0\0\r\n", b""])
def test_an_answer_that_makes_no_sense_is_an_outage(answer: bytes) -> None:
    """
    Whatever a server says that is none, the caller hears StoreUnavailable and nothing else.
    """

    async def body(store: Store) -> None:
        with pytest.raises((StoreUnavailable, StoreRefused)):
            await store.apply(P, batch(0, event()))

    with speaking(lambda name: b"+OK\r\n" if name == b"CLIENT" else answer) as url:
        with_url(url, body)


def quickly(url: str, match: str, most_s: float = 1.6) -> None:
    """Every question ends in StoreUnavailable within about a second."""

    async def body(store: Store) -> None:
        for work in (lambda: store.ask("PING"), store.check, lambda: store.apply(P, batch(0, event()))):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match=match):
                await work()
            assert time.monotonic() - began < most_s

    with_url(url, body)


def test_a_server_that_is_not_there_is_an_outage(tmp_path: Path) -> None:
    """
    No socket, and nobody listening on a port.
    """
    quickly(f"unix://{tmp_path}/none.sock", "cannot be reached")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        quickly(f"redis://127.0.0.1:{taken.getsockname()[1]}", "cannot be reached")


def test_a_wrong_password_is_an_outage() -> None:
    """
    None and a wrong one are both told as what they are.
    """
    with running_server("valkey") as server:
        ask(server, "CONFIG", "SET", "requirepass", "right")
        quickly(server.url, "refuses the password or user: Authentication required")
        quickly(f"unix://:wrong@{server.socket}", "refuses the password")

        async def body(store: Store) -> None:
            await store.ask("PING")

        with_url(f"unix://:right@{server.socket}", body)


def test_a_paused_server_is_an_outage_and_comes_back(own_server: Server) -> None:
    """
    A server that hangs (stopped, or busy in a command) is given up within about a second; its late answer is not ours.
    """

    async def body(store: Store) -> None:
        await store.apply(P, batch(0, event(serial=1)))
        own_server.pause()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.apply(P, batch(1, event(serial=2)))
        assert time.monotonic() - began < 1.6
        own_server.resume()
        assert (await store.cursors(DAY, [P]))[0] in (1, 2)
        outcome = await store.apply(P, batch(1, event(serial=2)))
        assert outcome in (Applied(2, 0), Mismatch(2))
        assert await store.counts(DAY) == {"3:14:0b5d1122334455": 2}

    with_url(own_server.url, body)


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("failing", [False, True])
def test_a_cancellation_is_never_lost(swallowed: bool, failing: bool) -> None:
    """
    Also when it arrives in the same turn of the loop as the answer, and when the client library swallows it.
    """

    async def main() -> None:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def command() -> int:
            try:
                return await answer
            except asyncio.CancelledError:
                if failing:
                    raise OSError("the line is cut") from None
                if swallowed:
                    return 1
                raise

        async with open_store("unix:///nowhere") as store:
            task = asyncio.create_task(store._ask(command()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            answer.set_result(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_a_server_out_of_memory_is_an_outage(own_server: Server) -> None:
    """
    OOM is told as the server says it; nothing is counted.
    """

    async def body(store: Store) -> None:
        await store.apply(P, batch(0, event(serial=1)))
        ask(own_server, "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match=r"OOM|memory"):
            await store.apply(P, batch(1, event(serial=2)))
        ask(own_server, "CONFIG", "SET", "maxmemory", "0")
        assert await store.apply(P, batch(1, event(serial=2))) == Applied(2, 0)

    with_url(own_server.url, body)


def test_a_user_without_rights_is_an_outage(own_server: Server) -> None:
    """
    An ACL user that may not write our keys hears what the server says, and nothing of its password.
    """
    ask(own_server, "ACL", "SETUSER", "guest", "on", ">sesame", "~other:*", "+@all")

    async def body(store: Store) -> None:
        with pytest.raises(StoreUnavailable, match=r"NOPERM|permission") as raised:
            await store.apply(P, batch(0, event()))
        assert "sesame" not in str(raised.value)

    with_url(f"unix://guest:sesame@{own_server.socket}", body)


def test_names_and_producers_are_kept(with_store: Run) -> None:
    """
    What is noted of ads and producers comes back; noting nothing asks nothing.
    """

    async def body(store: Store) -> None:
        await store.name_ads({})
        await store.name_ads({AD[:7]: "889990/spring/loaf"})
        await store.register(P, "host-1")
        assert await store.ad_names() == {AD[:7].hex(): "889990/spring/loaf"}
        assert await store.producers() == {P.hex(): "host-1"}

    with_store(body)


def test_every_key_is_ours(with_store: Run, server: Server) -> None:
    """
    All keys begin with `as:`, and none expires.
    """

    async def body(store: Store) -> None:
        await store.apply(P, batch(0, event()))
        await store.name_ads({AD[:7]: "a"})
        await store.register(P, "b")

    with_store(body)
    with server.client() as client:
        keys: list[bytes] = client.keys()  # type: ignore[assignment]
        assert keys
        assert all(key.startswith(b"as:") for key in keys)
        assert all(client.ttl(key) == -1 for key in keys)
