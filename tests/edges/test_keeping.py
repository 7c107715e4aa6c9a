"""Receipts on disk: written a second later, found again, sampled, and deleted by age and by room."""

import asyncio
from pathlib import Path

import pytest

from adserver.decide import Page
from adserver.keeping import Keeper, find, tidy
from adserver.planner import Planner
from tests.make import NOON, SLOT

ISSUER, OTHER = b"\x01\x02\x03\x04\x05", b"\x05\x04\x03\x02\x01"
PAGE = Page((SLOT,))
DAY = 86_400.0


def note(keeper: Keeper, planner: Planner, serial: int, issuer: bytes = ISSUER) -> None:
    keeper.note(NOON, 7, PAGE, {SLOT: serial}, planner, issuer, serial, [b"7654321"])


def write(keeper: Keeper) -> None:
    """Everything that was noted."""
    stopping = asyncio.Event()
    stopping.set()
    asyncio.run(keeper.run(stopping))


def test_what_is_noted_is_found(tmp_path: Path) -> None:
    """
    By issuer and serial, also while the file is open, after several of them, and where one was cut off.
    """
    planner = Planner({})
    for issuer in (OTHER, ISSUER):
        keeper = Keeper(tmp_path / "r", 30, 10**9, 100)
        for serial in range(10, 15):
            note(keeper, planner, serial, issuer)
        write(keeper)
    found = find(tmp_path / "r", ISSUER, 12)
    assert found
    assert (found.serial, found.draws, found.version, found.keys) == (12, {SLOT: 12}, 7, (b"7654321",))
    assert find(tmp_path / "r", ISSUER, 7) is None
    assert find(tmp_path / "r", b"third", 12) is None
    assert find(tmp_path / "none", ISSUER, 12) is None
    [cut] = (tmp_path / "r").glob("*-0102030405.receipts")
    cut.write_bytes(cut.read_bytes()[:-9])
    assert find(tmp_path / "r", OTHER, 12)


def test_a_busy_second_keeps_its_first(tmp_path: Path) -> None:
    """
    Beyond so many a second none is noted; with 0 days none at all, and no directory.
    """
    planner, keeper = Planner({}), Keeper(tmp_path / "r", 30, 10**9, 3)
    for serial in range(10):
        note(keeper, planner, serial)
    write(keeper)
    assert [serial for serial in range(10) if find(tmp_path / "r", ISSUER, serial)] == [0, 1, 2]
    off = Keeper(tmp_path / "off", 0, 10**9, 3)
    note(off, planner, 0)
    write(off)
    assert not (tmp_path / "off").exists()


def test_the_oldest_go_first(tmp_path: Path) -> None:
    """
    By age, then by room; what is not ours stays.
    """
    for days_ago in (40, 20, 10, 1):
        (tmp_path / f"{int((NOON - days_ago * DAY) * 1000):013d}-0102030405.receipts").write_bytes(b"x" * 1000)
    (tmp_path / "notes.txt").write_text("mine")
    tidy(tmp_path, 30, 10**9, NOON)
    assert len(list(tmp_path.glob("*.receipts"))) == 3
    tidy(tmp_path, 30, 1500, NOON)
    [left] = tmp_path.glob("*.receipts")
    assert left.name.startswith(f"{int((NOON - DAY) * 1000):013d}")
    assert (tmp_path / "notes.txt").exists()


def test_a_disk_that_takes_nothing_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    It is said once, and serving goes on.
    """
    (tmp_path / "r").write_text("a file where the directory should be")
    keeper = Keeper(tmp_path / "r", 30, 10**9, 3)
    note(keeper, Planner({}), 0)
    write(keeper)
    assert "receipts are not kept" in caplog.text
