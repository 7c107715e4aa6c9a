"""What lies in segments that were set aside, and putting it back, without any store."""

import os
from pathlib import Path

from adserver.reader import Reader
from adserver.salvage import Salvage, apply_salvage, journals_set_aside, read_salvage, salvaged_in, set_aside
from adserver.segments import HEADER, RECORD
from tests.edges.journals import adopt_only, numbers, read_all, serials, write

N = 40


def damage(directory: Path, *records: int) -> None:
    """Flip a bit of each of *records* (eight lie in a segment), and set aside all that lies behind the first."""
    for number in records:
        path = directory / f"{(number - 1) // 8 * 8 + 1:020}.seg"
        data = bytearray(path.read_bytes())
        data[HEADER + (number - 1) % 8 * RECORD] ^= 1
        path.write_bytes(data)


def cut(root: Path) -> None:
    """Have the journal adopted, shipped up to each hole, and cut there."""
    adopted = adopt_only(root)
    last = len(read_all(adopted.reader.directory))
    adopted.cut_at_hole(last)
    adopted.close()


def test_what_is_read_names_the_runs_and_the_holes(root: Path) -> None:
    """
    Every valid record in what was set aside, in runs, and between them exactly the numbers that are missing.
    """
    directory = write(root, N)
    damage(directory, 12, 22, 23)
    cut(root)
    assert serials(read_all(directory)) == list(range(1, 12))
    assert len(set_aside(directory)) == 4
    assert journals_set_aside(root) == {directory.name: set_aside(directory)}

    found = read_salvage(directory)

    assert [(run.first, run.last) for run in found.runs] == [(9, 11), (13, 21), (24, N)]
    assert found.holes == [(12, 12), (22, 23)]
    assert (found.records, found.missing) == (3 + 9 + N - 23, 3)


def test_what_is_put_back_is_read_under_its_own_numbers(root: Path) -> None:
    """
    The reader passes over the holes and over nothing else; the files read are kept as dealt with.
    """
    directory = write(root, N)
    damage(directory, 12, 22, 23)
    cut(root)
    before = [path.read_bytes() for path in set_aside(directory)]

    apply_salvage(directory, read_salvage(directory))

    expected = [n for n in range(1, N + 1) if n not in (12, 22, 23)]
    found = read_all(directory)
    assert numbers(found) == serials(found) == expected
    assert Reader(directory).last() == N
    assert Reader(directory).follows(11) == 13
    assert Reader(directory).follows(21) == 24
    assert set_aside(directory) == []
    assert journals_set_aside(root) == {}
    assert [(directory / name).read_bytes() for name in sorted(salvaged_in(directory))] == before
    assert {path.stat().st_mode & 0o777 for path in directory.glob("*.seg")} == {0o600}
    assert not list(directory.glob("*.new"))


def test_putting_it_back_twice_changes_nothing(root: Path) -> None:
    """
    As after a crash in the middle: the same again leads to the same journal.
    """
    directory = write(root, N)
    damage(directory, 12)
    cut(root)
    found = read_salvage(directory)
    apply_salvage(directory, found)
    once = read_all(directory)

    apply_salvage(directory, found)

    assert read_all(directory) == once


def test_nothing_valid_is_nothing_to_put_back(root: Path) -> None:
    """
    A file of zeros, of noise, or of no length holds no record, and makes no run and no hole.
    """
    directory = write(root, 3)
    (directory / f"{9:020}.corrupt").write_bytes(bytes(HEADER + 4 * RECORD))
    (directory / f"{17:020}.corrupt").write_bytes(os.urandom(HEADER + 4 * RECORD))
    (directory / f"{25:020}.quarantined").touch()

    assert read_salvage(directory) == Salvage(set_aside(directory), [], [])


def test_what_is_set_aside_meanwhile_waits_for_the_next_time(root: Path) -> None:
    """
    A worker that sets segments aside between reading and putting back loses nothing by it.
    """
    directory = write(root, N)
    damage(directory, 12, 22, 23)
    cut(root)
    *_, last = set_aside(directory)
    away = last.rename(last.with_suffix(".away"))
    found = read_salvage(directory)
    away.rename(last)

    apply_salvage(directory, found)
    assert set_aside(directory) == [last]
    apply_salvage(directory, read_salvage(directory))

    assert set_aside(directory) == []
    expected = [n for n in range(1, N + 1) if n not in (12, 22, 23)]
    assert numbers(read_all(directory)) == expected
