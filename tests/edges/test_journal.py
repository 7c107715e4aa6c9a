"""The journal on real disks: what is appended is read back, kill -9 or not."""

import asyncio
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adserver import events, journal
from adserver.disk import take_lock
from adserver.errors import JournalUnavailable
from adserver.events import Type, unpack
from adserver.journal import Journal, NoJournal, create_journal
from adserver.reader import Reader
from adserver.segments import HEADER, RECORD
from tests.edges.journals import (
    AD,
    ROOT,
    SMALL,
    adopt_only,
    numbers,
    put,
    read_all,
    serials,
    settled,
    with_journal,
    write,
)

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


def test_what_was_just_synced_is_read_from_memory(root: Path) -> None:
    """
    Of the segment in use that is all that was synced, and no more at a time than asked for; nothing once it is closed.
    """

    async def body(made: Journal) -> None:
        for _ in range(5):
            put(made)
        assert made.recent(0, 10) is None
        await made.wait_synced()
        put(made)
        block = made.recent(1, 3)
        assert block is not None
        assert (block.first, block.last) == (2, 4)
        assert block == Reader(made.directory).read_block(1, 4, 10)
        whole = made.recent(1, 10)
        assert whole is not None
        assert whole.last == 5
        closed.append(made)

    closed: list[Journal] = []
    with_journal(root, body)
    assert closed[0].recent(0, 10) is None


@pytest.mark.parametrize("before", range(9))
@pytest.mark.parametrize("ads", [1, 3, 8, 20])
def test_a_page_is_stored_as_its_ads_would_be(root: Path, before: int, ads: int) -> None:
    """
    What a page serves is stored like events one by one, wherever a segment ends.
    """

    async def together(made: Journal) -> None:
        for _ in range(before):
            put(made)
        made.append_served(400, 9, b"issue", 70, [b"ad%06d" % ad for ad in range(ads)], 1_772_000_000.9)

    async def singly(made: Journal) -> None:
        for _ in range(before):
            put(made)
        for ad in range(ads):
            made.append(Type.SERVED, 0, 400, 9, b"issue", 70 + ad, b"ad%06d" % ad, 1_772_000_000.9)

    assert read_all(with_journal(root, together))[before:] == read_all(with_journal(root, singly))[before:]


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


# Kill -9


CHILD = """
import asyncio, os, sys
from pathlib import Path
from adserver import journal
from adserver.journal import create_journal
from adserver.segments import HEADER, RECORD

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


# Saying what it is


def test_producers_are_new_at_each_boot(root: Path) -> None:
    """
    No two journals share an id, or the five bytes they issue tokens under.
    """
    directories = [write(root, 0) for _ in range(20)]

    assert len({path.name[:10] for path in directories}) == 20


def test_a_directory_that_somebody_locked_first_is_left_to_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An adopter that takes a new directory for a dead one's keeps it, and the worker boots with another.
    """
    lost: list[Path] = []

    def second_only(directory: Path) -> int | None:
        if not lost:
            lost.append(directory)
            return None
        return take_lock(directory)

    monkeypatch.setattr(journal, "take_lock", second_only)

    directory = write(root, 3)

    assert lost[0] != directory
    assert list(lost[0].iterdir()) == []
    assert serials(read_all(directory)) == [1, 2, 3]


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
        with pytest.raises(JournalUnavailable, match="read-only"):
            none.append_served(1, 1, b"abcde", 0, [AD], 1.0)
        assert none.wait_synced().result() is True  # there is nothing that could still be lost
        told = list[bool]()
        none.when_synced(told.append)
        assert told == [True]
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
