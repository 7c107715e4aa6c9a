"""Receipts on disk: written a second later, found again, sampled evenly, small, and deleted by age and by room."""

import asyncio
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path
from random import Random

import msgspec
import pytest

from adserver import metrics
from adserver.cli import main
from adserver.decide import Page
from adserver.keeping import Keeper, find, tidy
from adserver.planner import Planner
from adserver.receipts import decide_again
from adserver.settings import RECEIPT_BYTES, Settings
from adserver.token import Mint, parse_keys
from tests.busy_site import DAY, BusySite
from tests.make import NOON, SLOT, catalog, line_item

ISSUER, OTHER = b"\x01\x02\x03\x04\x05", b"\x05\x04\x03\x02\x01"
PAGE = Page((SLOT,))
MADE = catalog(line_item())
MB = 1_000_000


def note(keeper: Keeper, planner: Planner, serial: int, issuer: bytes = ISSUER) -> None:
    """As serving does: a keeper is told of what it asks for alone."""
    if serial + 1 > keeper.due:
        keeper.note(NOON, MADE, PAGE, {SLOT: serial}, planner, issuer, serial, [b"7654321"])


def write(keeper: Keeper) -> None:
    """Everything that was noted."""
    stopping = asyncio.Event()
    stopping.set()
    asyncio.run(keeper.run(stopping))


def kept(root: Path, serials: range) -> list[int]:
    return [serial for serial in serials if find(root, ISSUER, serial)]


def put(root: Path, days_ago: float, size: int, issuer: bytes = ISSUER, serial: int | None = None) -> Path:
    named = f"{int((NOON - days_ago * DAY) * 1000):013d}-{issuer.hex()}"
    path = root / f"{named if serial is None else f'{named}-{serial}'}.receipts"
    path.write_bytes(b"x" * size)
    return path


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
    assert (found.serial, found.draws, found.version, found.keys) == (12, {SLOT: 12}, MADE.version, (b"7654321",))
    assert find(tmp_path / "r", ISSUER, 7) is None
    assert find(tmp_path / "r", b"third", 12) is None
    assert find(tmp_path / "none", ISSUER, 12) is None
    [cut] = (tmp_path / "r").glob("*-0102030405-*.receipts")
    cut.write_bytes(cut.read_bytes()[:-9])
    assert find(tmp_path / "r", OTHER, 12)


def test_what_is_written_is_found_at_once(tmp_path: Path) -> None:
    """
    Before the file is closed; and an issuer who takes over in its middle has a file of his own.
    """
    keeper, planner = Keeper(tmp_path, 30, 10**9, 100), Planner({})
    note(keeper, planner, 1000)
    keeper.write(keeper.collect())
    assert find(tmp_path, ISSUER, 1000)
    note(keeper, planner, 0, OTHER)
    note(keeper, planner, 1, OTHER)
    keeper.write(keeper.collect())
    assert find(tmp_path, OTHER, 0)
    assert find(tmp_path, OTHER, 1)
    assert len(list(tmp_path.glob("*.receipts"))) == 2
    keeper.close()


@pytest.mark.parametrize("rates", [(1000,) * 60, (30, 3000) * 30, (2000, 150, 60) * 20])
def test_a_busy_second_keeps_an_even_sample(tmp_path: Path, rates: tuple[int, ...]) -> None:
    """
    Never more than the rate, and each decision of a second as likely as any other: the first as the last, pages of five
    ads as those of one, in steady traffic and in bursts.
    """
    most = 50
    keeper, planner, dice = Keeper(tmp_path, 30, 10**9, most, Random(3)), Planner({}), Random(4)
    noted, expected = Counter[str](), Counter[str]()
    serial = total = 0
    for rate in rates:
        came = []
        for n in range(rate):
            keys = [b"7654321"] * dice.choice([1, 1, 5])
            if serial + len(keys) > keeper.due:
                keeper.note(NOON, MADE, PAGE, {SLOT: serial}, planner, ISSUER, serial, keys)
            came.append((serial, f"tenth {n * 10 // rate}", f"{len(keys)} ads"))
            serial += len(keys)
        notes = {one.serial for one in keeper.collect()}
        assert len(notes) <= most
        assert len(notes) > 0.9 * min(rate, most)
        total += len(notes)
        for first, *kinds in came:
            noted.update(kinds * (first in notes))
            expected.update({kind: len(notes) / rate for kind in kinds})
    assert sum(noted.values()) == 2 * total
    for kind, n in expected.items():
        assert abs(noted[kind] - n) < 4 * n**0.5, (kind, noted, expected)


def test_nothing_is_asked_for_but_the_sample(tmp_path: Path) -> None:
    """
    Of a thousand times the rate serving hands over one in thirty at most: the others cost it the look at one number.
    """
    keeper, planner, asked = Keeper(tmp_path, 30, 10**9, 20, Random(3)), Planner({}), 0
    n = 20_000
    for serial in range(n):
        asked += serial + 1 > keeper.due
        note(keeper, planner, serial)
    assert asked < n / 30


def test_switched_off_it_keeps_nothing(tmp_path: Path) -> None:
    """
    With 0 days, or 0 a second, none is asked for, and there is no directory.
    """
    for days, rate in ((0, 3), (30, 0)):
        off = Keeper(tmp_path / "off", days, 10**9, rate)
        for serial in range(5):
            note(off, Planner({}), serial)
        off.note(NOON, MADE, PAGE, {SLOT: 0}, Planner({}), ISSUER, 9, [b"7654321"])
        write(off)
        assert not (tmp_path / "off").exists()


@pytest.mark.parametrize(("rate", "seconds"), [(100, 20), (20, 60), (5, 240)])
def test_a_decision_takes_60_bytes_on_disk(tmp_path: Path, rate: int, seconds: int) -> None:
    """
    On a site of 200 goals that are planned each second and 1,000 line items, where all pages and readers are different;
    on a quiet one, too. And each is decided again to the same end.
    """
    site, planned = BusySite(3), list[tuple[int, list[bytes]]]()
    keeper = Keeper(tmp_path, 30, 10**9, 10**6)
    for second in range(seconds):
        for at, page, draws, serial, keys in site.pages(second, rate):
            keeper.note(at, site.catalog, page, draws, site.planner, ISSUER, serial, keys)
            planned.append((serial, keys))
        keeper.write(keeper.collect())
    keeper.close()
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size <= RECEIPT_BYTES * len(planned)
    assert RECEIPT_BYTES == 60
    for serial, keys in planned[:: len(planned) // 10]:
        found = find(tmp_path, ISSUER, serial)
        assert found
        assert found.keys == tuple(keys)
        assert decide_again(site.catalog, found)[3]
    written = b"".join(zlib.decompress(path.read_bytes()) for path in tmp_path.iterdir())
    for word in (b"secret", b"reader=", b"lang=", b"tag 1999"):
        assert word not in written


def test_what_is_kept_by_default_fits() -> None:
    """
    The room is what so many days take of so many a second, unless it is said.
    """
    plain = Settings(workers=3)
    assert plain.receipt_bytes == 30 * 86_400 * plain.receipts_per_second * 3 * RECEIPT_BYTES
    assert Settings().receipt_bytes >= 30 * 86_400 * plain.receipts_per_second * RECEIPT_BYTES
    assert Settings(receipt_mb=5).receipt_bytes == 5_000_000


def test_a_file_has_16_mb_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Or the thousandth of it, here: another one is begun in the middle of a second.
    """
    monkeypatch.setattr("adserver.keeping._FILE_BYTES", 15_000)
    keeper, planner, dice = Keeper(tmp_path, 30, 10**9, 10**6), Planner({}), Random(1)
    n = 20_000
    for serial in range(n):
        key = dice.randbytes(7)
        keeper.note(NOON + dice.random(), MADE, PAGE, {SLOT: dice.randrange(2**40)}, planner, ISSUER, serial, [key])
    keeper.write(keeper.collect())
    keeper.close()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) > 3
    assert max(sizes) < 15_000 + 130_000
    assert kept(tmp_path, range(0, n, 2_000)) == list(range(0, n, 2_000))


def test_a_large_or_damaged_file_is_read_in_pieces(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    A gigabyte of zeros in a megabyte, records without end, rubbish: each is told, and the others are read all the same.
    """
    keeper = Keeper(tmp_path, 30, 10**9, 100)
    note(keeper, Planner({}), 5)
    write(keeper)
    [good] = tmp_path.iterdir()
    whole = good.read_bytes()
    record = zlib.decompress(whole)[:20]
    pace = msgspec.msgpack.encode([1, {"x" * 20_000: 0.5}])
    packer = zlib.compressobj(1)
    endless = b"".join(packer.compress((len(pace).to_bytes(4, "little") + pace) * 50) for _ in range(300))
    packer, zeros = zlib.compressobj(1), b""
    zeros = packer.compress(record) + b"".join(packer.compress(bytes(MB)) for _ in range(1000)) + packer.flush()
    for n, data in enumerate((endless, zeros, b"rubbish", b"", whole[:-30] + b"\xff" * 40)):
        path = tmp_path / f"{int(NOON * 1000) + n:013d}-0908070605.receipts"  # as older versions named them
        path.write_bytes(data)
    tracemalloc.start()
    try:
        assert find(tmp_path, b"\x09\x08\x07\x06\x05", 5) is None
        assert tracemalloc.get_traced_memory()[1] < 20 * MB
    finally:
        tracemalloc.stop()
    assert len(caplog.records) == 4
    assert all("is not read to its end" in one.getMessage() for one in caplog.records)
    assert find(tmp_path, ISSUER, 5)


def test_the_oldest_go_first(tmp_path: Path) -> None:
    """
    By age, then by room, or by half of what would be free without them; what went for want of room is told, and what is
    not ours stays.
    """
    old, *others = (put(tmp_path, days_ago, 1000, serial=40 - days_ago) for days_ago in (40, 20, 10, 1))
    (tmp_path / "notes.txt").write_text("mine")
    assert tidy(tmp_path, 30, 10**9, NOON) == []
    assert not old.exists()
    assert tidy(tmp_path, 30, 2500, NOON) == others[:1]
    assert tidy(tmp_path, 30, 10**9, NOON, 1500) == others[1:2]
    assert sorted(tmp_path.iterdir()) == sorted([others[2], tmp_path / "notes.txt"])


def test_room_that_does_not_last_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    In a metric, and in the log when it begins.
    """
    before = metrics.RECEIPTS_DROPPED._value.get()
    for n in range(3):
        put(tmp_path, 1 + n, 1000)
    keeper = Keeper(tmp_path, 10**6, 1500, 10)
    for serial in range(2):
        note(keeper, Planner({}), serial)
        write(keeper)
    assert metrics.RECEIPTS_DROPPED._value.get() - before == 2
    assert [one.getMessage() for one in caplog.records if "filled the room" in one.getMessage()]
    assert len(caplog.records) == 1


def test_a_disk_that_takes_nothing_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    It is said once, and serving goes on.
    """
    (tmp_path / "r").write_text("a file where the directory should be")
    keeper = Keeper(tmp_path / "r", 30, 10**9, 3)
    note(keeper, Planner({}), 0)
    write(keeper)
    assert "receipts are not kept" in caplog.text


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """
    A file of another name among the receipts is neither read nor deleted, and ends nobody.
    """
    foreign = tmp_path / "notes.receipts"
    foreign.write_text("mine")
    put(tmp_path, 90, 100)
    young, another = put(tmp_path, 60 / DAY, 100), put(tmp_path, 90 / DAY, 100, OTHER, 7)
    done = put(tmp_path, 120 / DAY, 100, OTHER, 5)
    assert tidy(tmp_path, 30, 50, NOON) == [done]
    assert sorted(tmp_path.iterdir()) == sorted([foreign, young, another]), (
        "their hour is not over: they are written to"
    )


def test_a_page_that_was_too_long_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The command names the version and how many ads were served together, and exits with 1.
    """
    root, keys = tmp_path / "receipts", [b"7654321"] * 3_000
    keeper = Keeper(root, 30, 10**9, 100)
    keeper.note(NOON, MADE, Page((SLOT,) * 3_000), {SLOT: 1}, Planner({}), ISSUER, 7, keys)
    write(keeper)
    mint = Mint(parse_keys(f"1 {'ab' * 32}"), ISSUER)
    mint.next_serial = 3_006
    token = mint.token(b"7654321", 20_000, 20_000 * DAY, 7).decode()
    assert main(["receipt", token, "--data-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"3,000 ads were served together, by version {MADE.version} of the catalog" in said
    assert len(list(root.iterdir())) == 1
