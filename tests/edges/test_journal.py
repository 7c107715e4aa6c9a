"""The journal on real disks: every cut, kill -9 and full disk, and what a successor finds.

A failing fdatasync is real in one test (a shim preloaded into a child) and replaced in the others, because no file
system here fails on demand.
"""

import asyncio
import errno
import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adserver import events, journal
from adserver.errors import JournalUnavailable
from adserver.events import Type, unpack
from adserver.journal import (
    HEADER,
    RECORD,
    Adopted,
    Journal,
    NoJournal,
    Reader,
    adopt_dead,
    check_root,
    create_journal,
    holding,
)
from tests.edges.servers import until

ROOT = Path(__file__).parent.parent.parent
SMALL = HEADER + 8 * RECORD
AD = b"\x01\x02\x03\x04\x05\x06\x07\x00"


def put(to: Journal, serial: int | None = None) -> int:
    """Append an event; its serial is its number unless another is given, so that a reader knows what to expect."""
    serial = to.written + 1 if serial is None else serial
    return to.append(Type.IMPRESSION, 0, 20514, 14, b"abcde", serial, AD, 1_772_000_000.0)


def serials(records: list[tuple[int, bytes]]) -> list[int]:
    return [unpack(record)[0].serial for _, record in records]


def numbers(records: list[tuple[int, bytes]]) -> list[int]:
    return [number for number, _ in records]


def read_all(directory: Path, last: int | None = None) -> list[tuple[int, bytes]]:
    reader, found = Reader(directory), list[tuple[int, bytes]]()
    while more := reader.read(found[-1][0] if found else 0, last, 1000):
        found += more
    return found


def with_journal(root: Path, body: Callable[[Journal], Awaitable[None]], segment_bytes: int = SMALL) -> Path:
    """Run *body* with a journal under *root* that is closed afterwards; returns the journal's directory."""

    async def main() -> Path:
        made = create_journal(root, segment_bytes=segment_bytes)
        try:
            await body(made)
        finally:
            await made.close()
        return made.directory

    return asyncio.run(main())


def write(root: Path, count: int, segment_bytes: int = SMALL) -> Path:
    """A closed journal of *count* records."""

    async def body(made: Journal) -> None:
        for _ in range(count):
            put(made)

    return with_journal(root, body, segment_bytes)


def adopt_only(root: Path) -> Adopted:
    adopted, refused = adopt_dead(root, set())
    assert refused == []
    assert len(adopted) == 1
    return adopted[0]


async def settled(condition: Callable[[], object]) -> None:
    """Let the loop turn until *condition* holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it may depend on anything
            await asyncio.sleep(0.001)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.mkdir(mode=0o700)
    return path


# Storing and reading back


def test_what_was_appended_is_read_back(root: Path) -> None:
    """
    Every field of an event comes back as it was stored.
    """

    async def body(made: Journal) -> None:
        made.append(Type.CLICK, 2, 65535, 24, b"\xff" * 5, 2**32 - 1, b"\xfe" * 8, 1_772_000_000.9)

    records = read_all(with_journal(root, body))

    event, low = unpack(records[0][1])
    assert event == events.Event(Type.CLICK, 2, 65535, 24, b"\xff" * 5, 2**32 - 1, b"\xfe" * 8, 1_772_000_000)
    assert low == 1


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 30])
def test_a_number_is_a_place(root: Path, count: int) -> None:
    """
    Records are numbered 1, 2, 3, … across segment boundaries, whatever the reader begins with.
    """
    directory = write(root, count)

    assert numbers(read_all(directory)) == list(range(1, count + 1))
    for after in range(count + 2):
        for limit in (1, 3, 100):
            expected = list(range(after + 1, count + 1))[:limit]
            assert serials(Reader(directory).read(after, None, limit)) == expected
        assert serials(Reader(directory).read(after, 12, 100)) == list(range(after + 1, min(count, 12) + 1))
    names = sorted(path.name for path in directory.glob("*.seg"))
    assert names == [f"{1 + 8 * n:020}.seg" for n in range(max(1, -(-count // 8)))]


@pytest.mark.parametrize("count", [0, 1, 8, 9, 23])
def test_the_tip_is_the_last_record(root: Path, count: int) -> None:
    """
    `tip`, which halves, and `last` find what reading everything finds.
    """
    directory = write(root, count)

    tip = Reader(directory).tip()

    assert tip == (read_all(directory)[-1] if count else None)
    assert Reader(directory).last() == count


def test_the_tip_of_a_journal_in_use_is_its_last_record(root: Path) -> None:
    """
    Zeros behind the last record and a prepared segment do not mislead the halving.
    """

    async def body(made: Journal) -> None:
        assert Reader(made.directory).tip() is None
        for number in range(1, 20):
            put(made)
            await made.wait_synced()
            assert Reader(made.directory).tip() == Reader(made.directory).read(number - 1, None, 1)[0]

    with_journal(root, body)


def test_closing_gives_back_the_unused_room(root: Path) -> None:
    """
    A closed journal is as long as its records, and no spare segment is left.
    """
    directory = write(root, 13)

    sizes = {path.name: path.stat().st_size for path in directory.glob("*.seg")}
    assert sizes == {f"{1:020}.seg": HEADER + 8 * RECORD, f"{9:020}.seg": HEADER + 5 * RECORD}
    assert sorted(path.name for path in directory.iterdir()) == sorted([*sizes, "lock", "names"])


def test_a_closed_journal_takes_nothing_more(root: Path) -> None:
    """
    An append after the end is refused in words.
    """

    async def main() -> None:
        made = create_journal(root, segment_bytes=SMALL)
        put(made)
        await made.close()
        with pytest.raises(JournalUnavailable, match="closed"):
            put(made)

    asyncio.run(main())


def test_the_next_segment_is_prepared_in_the_background(root: Path) -> None:
    """
    Once a segment is more than half full its successor is made beside the requests, and rotation takes it.
    """

    async def body(made: Journal) -> None:
        for _ in range(6):
            put(made)
        await made.wait_synced()
        await settled(lambda: made._spare)
        spare = next(made.directory.glob("*.spare")).stat().st_ino
        for _ in range(3):
            put(made)
        assert (made.directory / f"{9:020}.seg").stat().st_ino == spare

    assert numbers(read_all(with_journal(root, body))) == list(range(1, 10))


def test_segments_filled_faster_than_they_are_prepared_lose_nothing(root: Path) -> None:
    """
    A burst over several segments, while one is being prepared, takes every event.
    """

    async def body(made: Journal) -> None:
        for burst in (5, 40, 3, 100):
            for _ in range(burst):
                put(made)
            assert made.failure is None
            await asyncio.sleep(0)
        await made.wait_synced()

    assert serials(read_all(with_journal(root, body))) == list(range(1, 149))


def test_what_an_ad_key_stands_for_is_kept_beside(root: Path) -> None:
    """
    Names are read back; one is written once.
    """

    async def body(made: Journal) -> None:
        for _ in range(2):
            made.name(b"\x01" * 7, "889990/spring/loaf")
            made.name(b"\x02" * 7, "889991/spring/loaf")

    directory = with_journal(root, body)

    assert Reader(directory).names() == {b"\x01" * 7: "889990/spring/loaf", b"\x02" * 7: "889991/spring/loaf"}
    assert (directory / "names").read_bytes().count(b"\n") == 2


def test_a_name_cut_off_by_a_crash_is_left_out(root: Path) -> None:
    """
    At every cut of the names file the whole lines before it are there and nothing else, whatever follows.
    """

    async def body(made: Journal) -> None:
        made.name(b"\x01" * 7, "889990/a/é")
        made.name(b"\x02" * 7, "889991/b/c")

    path = with_journal(root, body) / "names"
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert len(Reader(path.parent).names()) == whole[:cut].count(b"\n")
    for garbage in (b"\xff\xfe\n", b"zz name\n", b"no-blank\n", b"\n\n", b"\0" * 64):
        path.write_bytes(whole + garbage)
        assert list(Reader(path.parent).names().values())[:2] == ["889990/a/é", "889991/b/c"]


# Cuts and damage


@pytest.mark.parametrize("garbage", [b"", b"\0" * 40, b"\xff" * 40, b"ASJRNL1\n" * 8])
def test_every_cut_keeps_the_whole_records_before_it(root: Path, garbage: bytes) -> None:
    """
    Cut at every byte of the last three records, with anything behind the cut: what was whole is there, nothing else.
    """
    directory = write(root, 13)
    path = directory / f"{9:020}.seg"
    whole = path.read_bytes()
    for cut in range(HEADER + 2 * RECORD, len(whole) + 1):
        path.write_bytes(whole[:cut] + garbage)
        expected = 8 + (cut - HEADER) // RECORD
        # A cut inside a record's own zeros is no cut: the garbage may happen to complete it.
        padded = (whole[:cut] + garbage)[: len(whole)]
        expected += padded[: (rest := HEADER + (expected - 7) * RECORD)] == whole[:rest] and rest <= len(whole)
        assert serials(read_all(directory)) == list(range(1, expected + 1))
        assert Reader(directory).last() == expected


def test_adoption_cuts_a_torn_tail(root: Path) -> None:
    """
    A successor takes the whole records and cuts the rest off, so that it can never be read as anything.
    """
    directory = write(root, 13)
    path = directory / f"{9:020}.seg"
    whole = path.read_bytes()
    for cut in range(len(whole) - RECORD - 1, len(whole)):
        path.write_bytes(whole[:cut] + b"\xee" * 50)
        one = adopt_only(root)
        expected = 8 + (cut - HEADER) // RECORD
        assert one.last == expected
        assert path.stat().st_size == HEADER + (expected - 8) * RECORD
        assert not list(directory.glob("*.corrupt"))
        one.close()


def test_a_flipped_bit_is_never_taken_for_a_record(root: Path) -> None:
    """
    Whatever bit flips, reading ends before that record.
    """
    directory = write(root, 5)
    path = directory / f"{1:020}.seg"
    whole = path.read_bytes()
    for bit in range(HEADER * 8, len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert serials(read_all(directory)) == list(range(1, (bit // 8 - HEADER) // RECORD + 1))


def test_a_damaged_header_hides_its_segment(root: Path) -> None:
    """
    A header with any wrong byte is no segment of ours, and what comes after it is not read as if it followed.
    """
    directory = write(root, 20)
    path = directory / f"{9:020}.seg"
    whole = path.read_bytes()
    for offset in range(HEADER):
        damaged = bytearray(whole)
        damaged[offset] ^= 0x10
        path.write_bytes(damaged)
        assert serials(read_all(directory)) == list(range(1, 9))


def test_a_hole_is_never_skipped(root: Path) -> None:
    """
    With a segment missing or short in the middle, reading ends there; only the oldest may be gone.
    """
    directory = write(root, 30)
    (directory / f"{1:020}.seg").unlink()
    assert serials(read_all(directory)) == list(range(9, 31))

    path = directory / f"{17:020}.seg"
    whole = path.read_bytes()
    path.write_bytes(whole[: HEADER + 2 * RECORD])
    assert serials(read_all(directory)) == list(range(9, 19))
    assert Reader(directory).read(18, None, 100) == []
    path.unlink()
    assert serials(read_all(directory)) == list(range(9, 25)) or serials(read_all(directory)) == list(range(9, 17))


@pytest.mark.parametrize("place", ["record", "header"])
def test_valid_records_behind_a_damaged_one_are_kept_for_a_person(
    root: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Adoption counts what precedes the damage and destroys nothing: what lies behind it is kept beside.
    """
    directory = write(root, 24)
    path = directory / f"{9:020}.seg"
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[HEADER + 3 * RECORD if place == "record" else 5] ^= 1
    path.write_bytes(damaged)
    last = (directory / f"{17:020}.seg").read_bytes()

    one = adopt_only(root)
    one.close()

    if place == "record":
        assert one.last == 11
        assert (directory / f"{9:020}.corrupt").read_bytes() == damaged
        assert (directory / f"{17:020}.corrupt").read_bytes() == last
        assert "behind a damaged one" in caplog.text
    assert serials(read_all(directory)) == list(range(1, 12 if place == "record" else 9))
    kept = [entry.read_bytes() for entry in directory.iterdir()]
    assert bytes(damaged) in kept
    assert last in kept


def test_a_record_of_another_journal_is_refused(root: Path) -> None:
    """
    Records carry their producer in the checksum and their number in the record: copied ones are not valid.
    """
    one, two = write(root, 3), write(root, 3)
    name = f"{1:020}.seg"
    ours, theirs = (one / name).read_bytes(), (two / name).read_bytes()
    (one / name).write_bytes(ours[: HEADER + RECORD] + theirs[HEADER + RECORD :])
    assert serials(read_all(one)) == [1]
    second = HEADER + RECORD
    (one / name).write_bytes(ours[:second] + ours[HEADER:second] + ours[second:])
    assert serials(read_all(one)) == [1]


def test_a_superseding_segment_replaces_what_it_names(root: Path) -> None:
    """
    A segment that begins at b replaces everything numbered b and above in earlier ones.
    """
    directory = write(root, 6)
    other = shutil.copytree(directory, root / "copy")
    shutil.rmtree(directory)
    directory.mkdir(mode=0o700)

    async def body(made: Journal) -> None:
        """Six records, of which the last three were stored again elsewhere."""
        for _ in range(6):
            put(made)

    shutil.copytree(other, directory, dirs_exist_ok=True)
    whole = (directory / f"{1:020}.seg").read_bytes()
    header = bytearray(whole[: HEADER - 4])
    header[16:24] = (4).to_bytes(8, "little")
    crc = journal._CRC.pack(zlib.crc32(bytes(header)))
    producer = bytes.fromhex(directory.name)
    again = b""
    for number in (4, 5):
        record = events.pack(1, 0, 1, 1, b"again", 100 + number, AD, 1, number)
        again += record + journal._CRC.pack(zlib.crc32(record, zlib.crc32(producer)))
    (directory / f"{4:020}.seg").write_bytes(bytes(header) + crc + again)

    assert serials(read_all(directory)) == [1, 2, 3, 104, 105]
    assert Reader(directory).last() == 5
    tip = Reader(directory).tip()
    assert tip
    assert tip[0] == 5


# Kill -9


CHILD = """
import asyncio, os, sys
from pathlib import Path
from adserver import journal
from adserver.journal import HEADER, RECORD, create_journal

async def main():
    journal.SYNC_WITHIN_S = 3600
    made = create_journal(Path(sys.argv[1]), segment_bytes=HEADER + int(sys.argv[2]) * RECORD)
    made.name(bytes(7), "889990/spring/loaf")
    while True:
        number = made.append(3, 0, 20514, 14, b"abcde", made.written + 1, bytes(8), 1.0)
        os.write(1, b"%d\\n" % number)
        if number % 50 == 0:
            await asyncio.sleep(0)
asyncio.run(main())
"""


@pytest.mark.parametrize("room", [40, 100_000])
def test_what_was_stored_survives_kill_9(root: Path, room: int) -> None:
    """
    A process killed at any instant, which never synced anything, leaves every record it had reported.
    """
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", CHILD, root, str(room)], cwd=ROOT, stdout=subprocess.PIPE)
        assert child.stdout
        heard = child.stdout.readline()
        for _ in range(random.randrange(2000)):
            heard = child.stdout.readline() or heard
        child.kill()
        rest = child.stdout.read().split(b"\n")
        child.wait()
        child.stdout.close()
        reported = int(rest[-2] if len(rest) > 1 else heard)

        one = adopt_only(root)
        assert reported <= one.last <= reported + 1
        assert serials(read_all(one.reader.directory)) == list(range(1, one.last + 1))
        assert one.names == {bytes(7): "889990/spring/loaf"}
        assert not list(one.reader.directory.glob("*.spare"))
        one.close()
        shutil.rmtree(one.reader.directory)


# Syncing


def test_waiting_ends_when_everything_stored_is_synced(root: Path) -> None:
    """
    `wait_synced` covers all records stored before the call, and is done at once when there is nothing to wait for.
    """

    async def body(made: Journal) -> None:
        assert made.wait_synced().done()
        put(made)
        put(made)
        waiting = made.wait_synced()
        assert not waiting.done()
        await waiting
        assert made.synced == 2
        assert made.wait_synced().done()

    with_journal(root, body)


def test_a_record_nobody_waits_for_is_synced_soon(root: Path) -> None:
    """
    Within SYNC_WITHIN_S and a moment a stored record is on disk, and `on_synced` and `on_sync` say so.
    """

    async def body(made: Journal) -> None:
        heard = list[float]()
        made.on_sync = heard.append
        rang = asyncio.Event()
        made.on_synced = rang.set
        put(made)
        await asyncio.wait_for(rang.wait(), 5)
        assert made.synced == 1
        assert len(heard) == 1

    with_journal(root, body)


class Disk:
    """os.fdatasync with a hand on it: each sync waits for the gate, and fails as often as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.failures = 0
        self.calls: list[int] = []
        self.running = 0
        self.most = 0
        self.failed: dict[int, int] = {}  # inodes, kept from being used again by a descriptor of ours
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, fd: int) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.calls.append(fd)
        try:
            assert self.gate.wait(10)
            assert os.fstat(fd).st_ino not in self.failed, "a descriptor whose sync failed was synced again"
            if self.failures:
                self.failures -= 1
                self.failed[os.fstat(fd).st_ino] = os.dup(fd)
                raise OSError(errno.EIO, "Input/output error")
            self._real(fd)
        finally:
            self.running -= 1


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A replaced fdatasync: the kernel does not fail or hang on demand."""
    disk = Disk(monkeypatch)
    yield disk
    for fd in disk.failed.values():
        os.close(fd)


def test_one_sync_is_in_flight_and_takes_all_that_is_stored(root: Path, disk: Disk) -> None:
    """
    While a sync runs others wait; the next one serves all of them together.
    """

    async def body(made: Journal) -> None:
        disk.gate.clear()
        put(made)
        waiting = [made.wait_synced()]
        await settled(lambda: disk.calls)
        for _ in range(5):
            put(made)
            waiting.append(made.wait_synced())
        disk.gate.set()
        await waiting[0]
        assert not waiting[1].done()
        await asyncio.gather(*waiting)
        assert made.synced == 6
        assert len(disk.calls) == 2
        assert disk.most == 1

    with_journal(root, body)


def test_who_waits_is_told_in_time_that_the_disk_was_not(root: Path, disk: Disk) -> None:
    """
    A wait ends with False when its own time is up, whatever others wait for, and leaves nothing behind.
    """

    async def body(made: Journal) -> None:
        disk.gate.clear()
        put(made)
        patient = made.wait_synced(30)
        hasty = [made.wait_synced(0.01) for _ in range(1000)]
        longer = made.wait_synced(0.02)
        assert await asyncio.gather(*hasty) == [False] * 1000
        assert not patient.done()
        assert await longer is False
        assert len(made._waiting) == 1
        disk.gate.set()
        assert await asyncio.wait_for(patient, 5)
        assert not made._waiting

    with_journal(root, body)


def test_a_caller_that_gave_up_disturbs_nobody(root: Path, disk: Disk) -> None:
    """
    A future that its caller cancelled is skipped, and the others resolve.
    """

    async def body(made: Journal) -> None:
        disk.gate.clear()
        put(made)
        made.wait_synced().cancel()
        patient = made.wait_synced(30)
        made.wait_synced().cancel()
        disk.gate.set()
        assert await asyncio.wait_for(patient, 5)

    with_journal(root, body)


def test_closing_tells_those_who_still_wait(root: Path, disk: Disk) -> None:
    """
    Whoever waits for a disk that hangs while the journal closes is told no, and does not hang with it.
    """

    async def main() -> None:
        made = create_journal(root, segment_bytes=SMALL)
        disk.gate.clear()
        put(made)
        waiting = made.wait_synced(30)
        closing = asyncio.create_task(made.close())
        assert await asyncio.wait_for(waiting, 10) is False
        disk.gate.set()
        await closing

    asyncio.run(main())


def test_records_of_a_failed_sync_are_stored_again(root: Path, disk: Disk) -> None:
    """
    After a failed sync its descriptor is left alone, the waiting resolve, and a reader sees each number once.
    """

    async def body(made: Journal) -> None:
        for _ in range(3):
            put(made)
        await made.wait_synced()
        put(made)
        put(made)
        disk.failures = 1
        await asyncio.wait_for(made.wait_synced(), 5)
        assert made.synced == made.written == 5
        assert made.failure is None
        assert (made.directory / f"{4:020}.seg").exists()
        assert serials(read_all(made.directory, made.synced)) == [1, 2, 3, 4, 5]
        for _ in range(30):
            put(made)
        await made.wait_synced()

    assert serials(read_all(with_journal(root, body))) == list(range(1, 36))


def test_the_very_first_sync_may_fail(root: Path, disk: Disk) -> None:
    """
    When nothing of a segment was synced yet, the new one takes its very name.
    """

    async def body(made: Journal) -> None:
        before = (made.directory / f"{1:020}.seg").stat().st_ino
        disk.failures = 1
        put(made)
        await asyncio.wait_for(made.wait_synced(), 5)
        assert (made.directory / f"{1:020}.seg").stat().st_ino != before
        put(made)

    assert serials(read_all(with_journal(root, body))) == [1, 2]


@pytest.mark.parametrize("synced", [0, 3, 8, 11])
@pytest.mark.parametrize("unsynced", [1, 8, 30])
def test_a_failed_sync_over_several_segments_loses_nothing(root: Path, disk: Disk, synced: int, unsynced: int) -> None:
    """
    Unsynced records in many segments, more than one holds, are all stored again, also those that come meanwhile.
    """

    async def body(made: Journal) -> None:
        for _ in range(synced):
            put(made)
        await made.wait_synced()
        disk.gate.clear()
        put(made)
        first = made.wait_synced()
        await settled(lambda: disk.running)
        for _ in range(unsynced):
            put(made)
        disk.failures = 1
        disk.gate.set()
        waiting = made.wait_synced()
        while not waiting.done():
            put(made)
            assert serials(read_all(made.directory, made.synced)) == list(range(1, made.synced + 1))
            await asyncio.sleep(0.001)
        await first
        assert made.failure is None
        assert serials(read_all(made.directory)) == list(range(1, made.written + 1))

    directory = with_journal(root, body)
    one = adopt_only(root)
    assert serials(read_all(directory)) == list(range(1, one.last + 1))
    assert one.last >= synced + unsynced + 1
    one.close()


def test_a_reader_behind_a_failed_sync_finds_every_record(root: Path, disk: Disk) -> None:
    """
    A shipper that is far behind, and read the directory before, sees the segment that superseded others.
    """

    async def body(made: Journal) -> None:
        reader = Reader(made.directory)
        for _ in range(14):
            put(made)
        await made.wait_synced()
        got = reader.read(0, made.synced, 4)
        disk.failures = 1
        for _ in range(9):
            put(made)
        await asyncio.wait_for(made.wait_synced(), 5)
        while more := reader.read(got[-1][0], made.synced, 4):
            got += more
        assert serials(got) == list(range(1, 24))

    with_journal(root, body)


def test_a_disk_that_goes_on_failing_is_tried_again(root: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Sync after sync fails: each time in a fresh segment, after a pause, and meanwhile the journal says so.
    """
    monkeypatch.setattr(journal, "_RETRY_S", 0.05)

    async def body(made: Journal) -> None:
        put(made)
        disk.failures = 4
        waiting = made.wait_synced()
        await settled(lambda: made.failure)
        assert not waiting.done()
        await asyncio.wait_for(waiting, 5)
        assert made.failure is None
        assert disk.failures == 0
        assert made.synced == 1

    assert serials(read_all(with_journal(root, body))) == [1]


def test_a_close_while_the_disk_hangs_ends_cleanly(root: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Records stored while a sync hangs are in the file when the journal is closed; nothing is left open.
    """
    open_before = len(os.listdir("/proc/self/fd"))

    async def impatient(made: Journal) -> None:
        """drain, without its two seconds"""

    monkeypatch.setattr(Journal, "drain", impatient)

    async def main() -> Path:
        made = create_journal(root, segment_bytes=SMALL)
        disk.gate.clear()
        put(made)
        made.wait_synced()
        await settled(lambda: disk.running)
        for _ in range(20):
            put(made)
        closing = asyncio.create_task(made.close())
        await asyncio.sleep(0)
        disk.failures = 1
        disk.gate.set()
        await closing
        return made.directory

    directory = asyncio.run(main())

    assert serials(read_all(directory)) == list(range(1, 22))
    kept = len(disk.failed)
    until(lambda: len(os.listdir("/proc/self/fd")) <= open_before + kept)
    assert not list(directory.glob("*.spare"))


def test_a_hanging_disk_does_not_hang_the_loop(root: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When the segment is full and the disk has not answered for a while, events are refused at once, in words.
    """
    monkeypatch.setattr(journal, "_RETRY_S", 0.05)
    monkeypatch.setattr(journal, "_HUNG_S", 0.05)

    async def body(made: Journal) -> None:
        disk.gate.clear()
        put(made)
        waiting = made.wait_synced()
        began = time.monotonic()
        await settled(lambda: time.monotonic() > began + 0.06)
        for _ in range(7):
            put(made)
        with pytest.raises(JournalUnavailable, match="has not answered"):
            put(made)
        assert made.failure
        disk.gate.set()
        await waiting
        await settled(lambda: made.failure is None)
        assert put(made) == 9

    assert serials(read_all(with_journal(root, body))) == list(range(1, 10))


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
int fdatasync(int fd) {
    const char *sign = getenv("FAIL_SYNC");
    if (sign && unlink(sign) == 0) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""

FAILING_CHILD = """
import asyncio, os, sys
from pathlib import Path
from adserver import journal
from adserver.errors import JournalUnavailable
from adserver.journal import HEADER, RECORD, create_journal

async def main():
    journal._RETRY_S = 0.01
    made = create_journal(Path(sys.argv[1]), segment_bytes=HEADER + 8 * RECORD)
    for n in range(200):
        if n % 7 == 3:
            open(os.environ["FAIL_SYNC"], "w").close()
        for _ in range(n % 12):
            while True:
                try:
                    made.append(3, 0, 20514, 14, b"abcde", made.written + 1, bytes(8), 1.0)
                    break
                except JournalUnavailable:
                    await asyncio.sleep(0.001)
        await made.wait_synced()
        os.write(1, b"%d\\n" % made.synced)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="gcc is not installed")
def test_a_sync_that_the_kernel_fails_is_ridden_out(root: Path, tmp_path: Path) -> None:
    """
    A real process whose fdatasync returns EIO now and then acknowledges everything once, and all of it is found.
    """
    (tmp_path / "shim.c").write_text(SHIM)
    shim = tmp_path / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, tmp_path / "shim.c", "-ldl"], check=True)
    surroundings = {**os.environ, "LD_PRELOAD": str(shim), "FAIL_SYNC": str(tmp_path / "sign")}

    child = subprocess.run(
        [sys.executable, "-c", FAILING_CHILD, root], cwd=ROOT, env=surroundings, capture_output=True, check=False
    )

    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert b"storing its unsynced records again" in child.stderr
    one = adopt_only(root)
    assert one.last == int(child.stdout.split()[-1]) == sum(n % 12 for n in range(200))
    assert serials(read_all(one.reader.directory)) == list(range(1, one.last + 1))
    one.close()


# A full disk


@contextmanager
def tiny_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def can_mount() -> bool:
    if os.geteuid() or not shutil.which("mount"):
        return False
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return probe.returncode == 0


needs_root = pytest.mark.skipif(not can_mount(), reason="mounting a small disk needs root")


@needs_root
def test_a_full_disk_refuses_in_words_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When no segment can be prepared the rest of this one is used, then events are refused; with room again it goes on.
    """
    monkeypatch.setattr(journal, "_RETRY_S", 0.05)
    room = 512
    with tiny_disk(tmp_path / "disk", "128k") as small:

        async def body(made: Journal) -> None:
            made.name(bytes(7), f"889990/line/{'x' * 400}")
            ballast = small / "ballast"
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(b"x" * 4096)
            for _ in range(room):
                put(made)
            await made.wait_synced()
            with pytest.raises(JournalUnavailable, match="No space"):
                put(made)
            assert "No space" in (made.failure or "")
            assert made.synced == room
            with suppress(JournalUnavailable):
                for n in range(1, 1000):
                    made.name(n.to_bytes(7, "big"), f"889990/line/{'x' * 400}")
            assert "names" in (made.failure or "")
            ballast.unlink()
            await settled(lambda: made.failure is None)  # also when nobody appends: readiness must come back
            assert put(made) == room + 1
            made.name(b"\xff" * 7, "889990/a/b")
            await made.wait_synced()

        directory = with_journal(small / "journal", body, HEADER + room * RECORD)
        assert serials(read_all(directory)) == list(range(1, room + 2))
        names = Reader(directory).names()
        assert names[b"\xff" * 7] == "889990/a/b"
        assert {len(name) for name in names.values()} == {len("889990/a/b"), len("889990/line/") + 400}


@needs_root
def test_no_journal_on_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """
    A journal that cannot be made is refused in words; no descriptor and no half-made directory stays.
    """
    with tiny_disk(tmp_path / "disk", "64k") as small:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(JournalUnavailable, match="No space"):
                create_journal(small / "journal")
        assert list((small / "journal").iterdir()) == []
        assert len(os.listdir("/proc/self/fd")) == before


# Whose journal it is


def test_a_live_journal_is_never_adopted(root: Path) -> None:
    """
    The lock of a journal in use keeps everybody out, in this process and in another.
    """

    async def body(made: Journal) -> None:
        put(made)
        assert adopt_dead(root, set()) == ([], [])
        script = "import sys; from pathlib import Path; from adserver.journal import adopt_dead"
        script += "; print(adopt_dead(Path(sys.argv[1]), set()))"
        command = [sys.executable, "-c", script, str(root)]
        said = (await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, check=True)).stdout
        assert said == b"([], [])\n"

    with_journal(root, body)
    adopt_only(root).close()


def test_a_journal_without_a_segment_is_an_empty_one(root: Path) -> None:
    """
    A worker killed between making its directory and its first segment leaves nothing to count, and stops nobody.
    """
    directory = root / "0011223344556677"
    directory.mkdir(mode=0o700, parents=True)
    root.chmod(0o700)
    assert read_all(directory) == []
    assert Reader(directory).tip() is None
    [adopted], refused = adopt_dead(root, set())
    assert (adopted.last, refused) == (0, [])
    adopted.close()


def test_an_adopter_stores_anew_what_a_failed_sync_may_have_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A second try at adoption does not believe a sync that has nothing to do: the records are written again before it.
    """
    directory = _dead_journal(root)
    segment = next(directory.glob("*.seg"))
    steps: list[str] = []
    real_write, real_sync, failing = os.pwrite, os.fsync, [True]

    def write(fd: int, data: bytes, offset: int) -> int:
        steps.append(f"write {offset}")
        return real_write(fd, data, offset)

    def sync(fd: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}") == str(segment):
            steps.append("sync")
            if failing.pop() if failing else False:
                raise OSError(errno.EIO, "Input/output error")
        real_sync(fd)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "fsync", sync)
    assert adopt_dead(root, set()) == ([], [f"{directory} cannot be adopted: [Errno 5] Input/output error"])
    [adopted], _ = adopt_dead(root, set())
    adopted.close()
    assert steps == ["write 0", "sync", "write 0", "sync", "sync"]
    assert serials(read_all(directory)) == [1, 2, 3]


def _dead_journal(root: Path) -> Path:
    """A journal whose writer was killed with three records in it, unsynced and with room behind them."""

    async def body(to: Journal) -> None:
        for _ in range(3):
            put(to)
        shutil.copytree(to.directory, copied)
        await to.drain()

    copied = root.parent / "copied"
    live = with_journal(root, body)
    shutil.rmtree(live)
    copied.chmod(0o700)
    return Path(copied.rename(live))


def test_of_two_adopters_one_wins(root: Path) -> None:
    """
    A dead journal is adopted by whoever gets its lock, and by the other only when that one lets go.
    """
    write(root, 3)

    one = adopt_only(root)
    assert adopt_dead(root, set()) == ([], [])
    one.close()
    two = adopt_only(root)
    assert two.last == 3
    two.close()


def test_known_journals_are_not_adopted_again(root: Path) -> None:
    """
    What this process ships already is passed over.
    """
    directory = write(root, 1)

    assert adopt_dead(root, {bytes.fromhex(directory.name)}) == ([], [])


def test_producers_are_new_at_each_boot(root: Path) -> None:
    """
    No two journals share an id, or the five bytes they issue tokens under.
    """
    directories = [write(root, 0) for _ in range(20)]

    assert len({path.name[:10] for path in directories}) == 20


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_root_that_others_can_write_to_is_refused(root: Path, mode: int) -> None:
    """
    Whoever can plant files there could forge counts: no journal is made.
    """
    root.chmod(mode)

    with pytest.raises(JournalUnavailable, match="chmod 700"):
        create_journal(root)


def test_a_root_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    """
    The root must be a directory itself.
    """
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")

    for name in ("link", "file", "nowhere"):
        with pytest.raises(JournalUnavailable):
            create_journal(tmp_path / name)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")
def test_a_root_of_another_user_is_refused(root: Path) -> None:
    """
    The message names the user it belongs to.
    """
    os.chown(root, 12345, -1)

    with pytest.raises(JournalUnavailable, match="12345"):
        check_root(root)


def test_planted_directories_are_refused_and_the_others_adopted(root: Path, tmp_path: Path) -> None:
    """
    A journal that is a link, writable by others, or holds a link or a directory as a segment is refused in words.

    It does not keep the next one from being adopted.
    """
    good, linked, loose, planted, odd = (write(root, 2) for _ in range(5))
    shutil.move(linked, tmp_path / "away")
    linked.symlink_to(tmp_path / "away")
    loose.chmod(0o777)
    segment = planted / f"{1:020}.seg"
    shutil.move(segment, tmp_path / "target")
    segment.symlink_to(tmp_path / "target")
    before = (tmp_path / "target").read_bytes()
    (odd / f"{1:020}.seg").unlink()
    (odd / f"{1:020}.seg").mkdir()
    (root / ("0" * 16)).touch()
    (root / "not-a-producer").mkdir()
    (root / "ÀÀÀÀÀÀÀÀÀÀÀÀÀÀÀÀ").mkdir()

    adopted, refused = adopt_dead(root, set())

    assert [one.reader.directory for one in adopted] == [good]
    assert len(refused) == 5
    assert all("cannot be adopted" in sentence for sentence in refused)
    assert (tmp_path / "target").read_bytes() == before
    for one in adopted:
        one.close()
    segment.unlink()
    shutil.move(tmp_path / "target", segment)
    mended, _ = adopt_dead(root, {bytes.fromhex(good.name)})
    assert [one.reader.directory for one in mended] == [planted]  # a refused one was not left locked
    mended[0].close()


def test_files_that_are_no_segments_are_passed_over(root: Path) -> None:
    """
    Only 20 ASCII digits and `.seg` make a segment.
    """
    directory = write(root, 3)
    for name in ("5.seg", "²²²²²²²²²²²²²²²²²²²².seg", "x.seg", f"{2:020}.seg.bak", "99999999999999999999999.seg"):
        (directory / name).write_bytes(b"\xff" * 200)

    assert serials(read_all(directory)) == [1, 2, 3]
    adopt_only(root).close()


def test_a_planted_segment_without_our_header_counts_nothing(root: Path) -> None:
    """
    A file with the right name and forged content ends the reading there.
    """
    directory = write(root, 12)
    (directory / f"{13:020}.seg").write_bytes(os.urandom(HEADER + 40 * RECORD))

    assert serials(read_all(directory)) == list(range(1, 13))
    one = adopt_only(root)
    assert one.last == 12
    one.close()


def test_a_file_system_without_locks_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where flock does not work no journal is made, and the attempt ends. (No such file system is at hand: flock is
    replaced.)
    """

    def flock(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)

    with pytest.raises(JournalUnavailable, match="No locks available"):
        create_journal(root)


def test_the_lock_of_a_data_directory_is_held_once(tmp_path: Path) -> None:
    """
    The second to ask is told so; when the first is done it may have it.
    """
    with holding(tmp_path / "lock") as first, holding(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with holding(tmp_path / "lock") as third:
        assert third


def test_no_journal_takes_nothing_and_says_why() -> None:
    """
    It stands in where none can be made: ads are served, every event is refused with the reason.
    """

    async def main() -> None:
        none = NoJournal("the disk is read-only")
        with pytest.raises(JournalUnavailable, match="read-only"):
            none.append(Type.SERVED, 0, 1, 1, b"abcde", 0, AD, 1.0)
        with pytest.raises(JournalUnavailable, match="read-only"):
            none.name(b"1234567", "a/b/c")
        assert none.wait_synced().done()
        assert str(none.failure) in repr(none)
        assert len(none.issuer) == 5

    asyncio.run(main())


def test_a_journal_says_what_it_is_doing(root: Path) -> None:
    """
    Its repr names the producer and how far it is.
    """

    async def body(made: Journal) -> None:
        put(made)
        await made.wait_synced()
        assert re.fullmatch(r"<Journal [0-9a-f]{16} record 1 written, 1 synced>", repr(made))

    with_journal(root, body)
    one = adopt_only(root)
    assert "with 1 records" in repr(one)
    one.close()


# The journal against a list


class AgainstAList(RuleBasedStateMachine):
    """Append, sync, fail, cut and reopen in any order: the journal holds what a list holds."""

    @initialize(room=st.integers(1, 9))
    def begin(self, room: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(prefix="ads-"))
        self.room = room
        self.real = os.fdatasync
        self.expected: list[int] = []
        self.dead: dict[Path, list[int]] = {}
        self.open()

    def open(self) -> None:
        async def make() -> Journal:
            return create_journal(self.root, segment_bytes=HEADER + self.room * RECORD)

        self.journal = self.loop.run_until_complete(make())
        self.expected = []

    def failing(self, fd: int) -> None:
        os.fdatasync = self.real
        raise OSError(errno.EIO, "Input/output error")

    @rule(values=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
    def append(self, values: list[int]) -> None:
        async def body() -> None:
            for value in values:
                self.expected.append(value)
                assert put(self.journal, value) == len(self.expected)

        self.loop.run_until_complete(body())

    @rule(fail=st.booleans())
    def sync(self, fail: bool) -> None:
        async def body() -> None:
            if fail:
                os.fdatasync = self.failing  # type: ignore[assignment]
            await asyncio.wait_for(self.journal.wait_synced(), 5)
            assert self.journal.synced == len(self.expected)

        try:
            self.loop.run_until_complete(body())
        finally:
            os.fdatasync = self.real

    @rule(turns=st.integers(1, 5))
    def turn(self, turns: int) -> None:
        async def body() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(body())

    @precondition(lambda self: hasattr(self, "journal"))
    @rule(torn=st.integers(0, RECORD - 1))
    def reopen(self, torn: int) -> None:
        """Close, as a crash would have left it in the middle of the next record, and begin a new one."""
        self.loop.run_until_complete(self.journal.close())
        directory = self.journal.directory
        newest = max(directory.glob("*.seg"))
        with newest.open("ab") as file:
            file.write(b"\xa5" * torn)
        self.dead[directory] = self.expected
        self.open()
        adopted, refused = adopt_dead(self.root, set())
        assert not refused
        for one in adopted:
            assert one.last == len(self.dead[one.reader.directory])
            one.close()

    @invariant()
    def the_journal_holds_what_the_list_holds(self) -> None:
        if hasattr(self, "journal"):
            assert serials(read_all(self.journal.directory)) == self.expected
            for directory, expected in self.dead.items():
                assert serials(read_all(directory)) == expected

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.loop.run_until_complete(self.journal.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.root)


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
