"""What a successor finds in a journal that was cut, damaged or planted, and who may adopt it."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from adserver import events, segments
from adserver.adoption import adopt_dead, delete_journal, delete_leftovers, delete_segment
from adserver.journal import Journal
from adserver.reader import Reader
from adserver.salvage import set_aside
from adserver.segments import HEADER, RECORD, header_of
from tests.edges.journals import (
    AD,
    ROOT,
    adopt_only,
    put,
    read_all,
    serials,
    with_journal,
    write,
)

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

    assert not (directory / f"{17:020}.seg").exists(), "it would be set aside again by each adopter"

    if place == "record":
        assert one.last == 11
        assert (directory / f"{9:020}.corrupt").read_bytes() == damaged
        assert (directory / f"{17:020}.corrupt").read_bytes() == last
        assert "behind a damaged one" in caplog.text
    assert serials(read_all(directory)) == list(range(1, 12 if place == "record" else 9))
    kept = [entry.read_bytes() for entry in directory.iterdir()]
    assert bytes(damaged) in kept
    assert last in kept


@pytest.mark.parametrize("behind", [8_193, 16_385, 16_386, 20_000])
def test_valid_records_far_behind_the_damage_are_found(root: Path, behind: int) -> None:
    """
    However many records are gone: as long as one valid one lies behind them, the segment is kept for a person.
    """
    directory = write(root, 20_000, HEADER + 20_000 * RECORD)
    path = directory / f"{1:020}.seg"
    data = path.read_bytes()
    gone, end = HEADER + 2 * RECORD, HEADER + (behind - 1) * RECORD
    damaged = data[:gone] + bytes(end - gone) + data[end : end + RECORD]
    path.write_bytes(damaged)

    one = adopt_only(root)
    one.close()

    assert (one.last, one.corrupt) == (2, 1)
    assert path.with_suffix(".corrupt").read_bytes() == damaged


def test_adoption_cuts_what_another_segment_supersedes_and_keeps_none_of_it_for_a_person(root: Path) -> None:
    """
    Records that were stored again elsewhere are neither damaged nor missing: they are cut off, silently.
    """
    directory = write(root, 6)
    data = (directory / f"{1:020}.seg").read_bytes()
    again = header_of(4, bytes.fromhex(directory.name)) + data[HEADER + 3 * RECORD :]
    (directory / f"{4:020}.seg").write_bytes(again)

    one = adopt_only(root)
    one.close()

    assert (one.last, one.corrupt, set_aside(directory)) == (6, 0, [])
    assert (directory / f"{1:020}.seg").stat().st_size == HEADER + 3 * RECORD
    assert serials(read_all(directory)) == [1, 2, 3, 4, 5, 6]


def test_segments_of_long_ago_are_set_aside_from_the_oldest_on(root: Path) -> None:
    """
    A segment counts as old as its newest record; the first that is young enough ends it, and an empty one is not old.
    """
    directory = write(root, 20)
    at = Reader(directory).newest(1)
    assert at == Reader(directory).newest(17) == 1_772_000_000.0
    (directory / f"{21:020}.seg").write_bytes(header_of(21, bytes.fromhex(directory.name)))
    assert Reader(directory).newest(21) == 0.0

    for too_old, aside in ((at, 0), (at + 1, 3)):
        (one,), _ = adopt_dead(root, set(), too_old)
        one.close()
        assert one.quarantined == len(set_aside(directory)) == aside


def test_the_two_newest_segments_are_stored_anew_and_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A full one may not have been synced yet when its writer died; those before it were.
    """
    directory = write(root, 32)
    real, stored = os.pwrite, set[int]()

    def pwrite(fd: int, data: bytes, at: int) -> int:
        stored.add(os.fstat(fd).st_ino)
        return real(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    adopt_only(root).close()
    assert stored == {(directory / f"{first:020}.seg").stat().st_ino for first in (17, 25)}


def test_a_known_journal_hides_none_behind_it(root: Path) -> None:
    """
    The others are adopted, wherever they stand in the directory.
    """
    directories = sorted(write(root, 1) for _ in range(3))
    adopted, refused = adopt_dead(root, {bytes.fromhex(directories[0].name), bytes.fromhex(directories[1].name)})
    assert [one.producer.hex() for one in adopted] == [directories[2].name]
    assert refused == []
    for one in adopted:
        one.close()


def test_a_hole_met_while_shipping_cuts_there_once(root: Path) -> None:
    """
    Where the next record is damaged the rest is set aside; where it is valid, or there is none, nothing happens.
    """
    directory = write(root, 24)
    path = directory / f"{1:020}.seg"
    data = bytearray(path.read_bytes())
    data[HEADER + 3 * RECORD] ^= 1
    path.write_bytes(data)
    one = adopt_only(root)

    assert [one.cut_at_hole(position) for position in (2, 24)] == [False, False]
    assert (one.last, one.corrupt) == (24, 0)
    assert one.cut_at_hole(3)
    assert (one.last, one.corrupt) == (3, 3)
    assert not one.cut_at_hole(3)
    one.close()


def test_a_deleted_journal_is_gone_whole(root: Path) -> None:
    """
    Nobody sees half of it, and what an interrupted deletion left is swept up with no other journal touched.
    """
    gone, left, kept = write(root, 3), write(root, 3), write(root, 3)
    delete_journal(gone)
    left.rename(left.with_name(f"{left.name}.gone"))
    delete_leftovers(root)
    assert [path.name for path in root.iterdir()] == [kept.name]
    delete_segment(kept, 1)
    delete_segment(kept, 1)
    assert not list(kept.glob("*.seg"))


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
    crc = segments.CRC.pack(zlib.crc32(bytes(header)))
    producer = bytes.fromhex(directory.name)
    again = b""
    for number in (4, 5):
        record = events.pack(1, 0, 1, 1, b"again", 100 + number, AD, 1, number)
        again += record + segments.CRC.pack(zlib.crc32(record, zlib.crc32(producer)))
    (directory / f"{4:020}.seg").write_bytes(bytes(header) + crc + again)

    assert serials(read_all(directory)) == [1, 2, 3, 104, 105]
    assert Reader(directory).last() == 5
    tip = Reader(directory).tip()
    assert tip
    assert tip[0] == 5


# Whose journal it is


def test_a_live_journal_is_never_adopted(root: Path) -> None:
    """
    The lock of a journal in use keeps everybody out, in this process and in another.
    """

    async def body(made: Journal) -> None:
        put(made)
        assert adopt_dead(root, set()) == ([], [])
        script = "import sys; from pathlib import Path; from adserver.adoption import adopt_dead"
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
