"""`adserver journal`: what lies on the disk, whether it adds up, and what a hole hides, by the command line."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adserver import ship
from adserver.archive import open_book
from adserver.cli import main
from adserver.events import PREFETCH, Type
from adserver.segments import HEADER, RECORD
from adserver.store import NOBODY, PRODUCERS, partition
from tests.edges.servers import Server
from tests.edges.test_closing import CLOSES, DAY, DAYS, IMPRESSION, SERVED, Working, close, run, write
from tests.edges.test_ship import ask, counts, eventually


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "FLUSH_S", 0.005)
    monkeypatch.setattr(ship, "ADOPT_S", 0.02)
    monkeypatch.setattr(ship, "REREAD_S", 0.05)
    monkeypatch.setattr("adserver.cli._REPORT_PATIENCE_S", 0.1)


def count(root: Path, server: Server) -> None:
    run(root, server, Working.counted)


def reconcile(root: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    flags = ["--data-dir", str(root.parent), "--redis-url", server.url]
    code = main(["journal", "reconcile", "--json", *flags])
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert main(["journal", "reconcile", *flags]) == code
    assert ("Equal." in capsys.readouterr().out) == (code == 0) == printed["equal"]
    return code, printed


def test_what_is_counted_reconciles_open_and_closed(
    root: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Repeats of tokens over several journals and all: the journals added up anew are what the store and archive say.
    """
    write(root, DAY, DAY + 1, n=30, issuer=b"first")
    write(root, DAY, n=40, issuer=b"first")
    write(root, DAY, DAY, n=5, type_=Type.SERVED)
    count(root, server)
    code, found = reconcile(root, server, capsys)
    assert (code, found["differences"]) == (0, [])
    close(root, server)
    code, found = reconcile(root, server, capsys)
    assert (code, found["differences"]) == (0, [])
    assert {(line["day"], line["journal"], line["archive"]) for line in found["lines"]} == {
        (DAY, 30, 30),
        (DAY + 1, 60, None),
        (DAY, 40, 40),
        (DAY, 10, 10),
    }


def test_prefetches_reconcile(root: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """
    What was fetched ahead is filed by record, and its readers' own events count once: both ways of adding up say so.
    """
    write(root, DAY, n=20, issuer=b"first", reason=PREFETCH)
    write(root, DAY, n=30, issuer=b"first")
    write(root, DAY, n=30, issuer=b"first")
    count(root, server)
    for _ in range(2):
        assert counts(server, DAY) == {IMPRESSION: 30, f"{IMPRESSION}:prefetch": 20}
        code, found = reconcile(root, server, capsys)
        assert (code, found["differences"]) == (0, [])
        close(root, server)


@pytest.mark.parametrize("closed", [False, True])
def test_a_planted_difference_is_found(
    root: Path, server: Server, closed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    One count too many, open or closed, is named with both figures.
    """
    write(root, DAY, n=30)
    count(root, server)
    if closed:
        close(root, server)
    ask(server, "HINCRBY", partition(DAY), IMPRESSION, 1)
    code, found = reconcile(root, server, capsys)
    assert code == 1
    assert found["differences"][0]["field"] == IMPRESSION
    assert {found["differences"][0]["n"], found["differences"][0]["m"]} == {30, 31}


def test_a_planted_cursor_is_found(root: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write(root, DAY, n=30)
    count(root, server)
    ask(server, "HSET", partition(DAY), f"@{directory.name}", 29)
    code, found = reconcile(root, server, capsys)
    assert code == 1
    assert [line["trouble"] for line in found["lines"]] == ["not all is counted yet"]


def test_a_journal_that_is_elsewhere_is_said(
    root: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What cannot be proved here is no difference: exit code 3.
    """
    write(root, DAY, n=30)
    gone = write(root, DAY, n=3, issuer=b"other")
    count(root, server)
    shutil.rmtree(gone)
    code, found = reconcile(root, server, capsys)
    assert (code, found["differences"]) == (3, [])
    assert [line["trouble"] for line in found["lines"] if line["producer"] == gone.name] == ["its journal is not here"]


@pytest.mark.parametrize("why", ["is not here", "was salvaged", "has segments set aside", "is shortened"])
def test_a_closed_day_that_cannot_be_recounted_is_not_called_equal(
    root: Path, server: Server, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Its cursors agree, its figures were not added up: each of its lines says so and why, other days stay equal.
    """
    write(root, DAY, n=30)
    touched = write(root, DAY, n=20, issuer=b"other")
    write(root, DAY + 1, n=10, issuer=b"later")
    count(root, server)
    close(root, server)
    code, found = reconcile(root, server, capsys)
    assert (code, {line["not_recounted"] for line in found["lines"]}) == (0, {""})
    if why == "is not here":
        shutil.rmtree(touched)
    elif why == "is shortened":
        (touched / f"{1:020}.seg").unlink()
    else:
        (touched / f"{21:020}.{'salvaged' if why == 'was salvaged' else 'corrupt'}").touch()

    code, found = reconcile(root, server, capsys)

    assert (code, found["differences"]) == (0, [])
    said = {line["day"]: line["not_recounted"] for line in found["lines"]}
    assert said[DAY].startswith(f"journal {touched.name} {why}")
    assert said[DAY + 1] == ""
    flags = ["--data-dir", str(root.parent), "--redis-url", server.url]
    assert main(["journal", "reconcile", *flags]) == 0
    printed = capsys.readouterr().out.splitlines()
    on = {day: [line for line in printed if line.startswith(DAYS.date(day).isoformat())] for day in (DAY, DAY + 1)}
    assert on[DAY]
    assert on[DAY + 1]
    assert all("not recounted" in line and not line.endswith("equal") for line in on[DAY])
    assert all(line.endswith("  equal") for line in on[DAY + 1])
    assert printed[-1] == "Of 1 day the cursors were compared and the figures not recounted."


@pytest.mark.parametrize(
    ("direct", "more", "equal"), [(0, 0, True), (0, 1, False), (2, 0, True), (2, 2, True), (2, 3, False)]
)
def test_the_store_exceeds_the_journals_by_no_more_than_was_counted_directly(
    root: Path, server: Server, direct: int, more: int, equal: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    On a full disk events are counted in the store alone, and the nobody's cursor says how many: so many more may stand
    there, or fewer, where some came again later and are in a journal, too.
    """
    write(root, DAY, n=30)
    count(root, server)
    if direct:
        ask(server, "HSET", partition(DAY), f"@{NOBODY.hex()}", direct)
    ask(server, "HINCRBY", partition(DAY), IMPRESSION, more)
    code, found = reconcile(root, server, capsys)
    assert (code, found["equal"]) == ((0, True) if equal else (1, False))
    assert {line["not_recounted"] for line in found["lines"]} == {""}


def test_what_was_counted_directly_excuses_no_figure_that_is_too_low(
    root: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Events counted directly add to the store; where it has less than the journals something is lost.
    """
    write(root, DAY, n=30)
    count(root, server)
    ask(server, "HSET", partition(DAY), f"@{NOBODY.hex()}", 2)
    ask(server, "HINCRBY", partition(DAY), IMPRESSION, -1)
    code, found = reconcile(root, server, capsys)
    assert code == 1
    assert (found["differences"][0]["n"], found["differences"][0]["m"]) == (30, 29)


def test_no_store_is_an_answer(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(root, DAY)
    flags = ["--data-dir", str(tmp_path), "--redis-url", f"unix://{tmp_path}/none.sock"]
    assert main(["journal", "reconcile", *flags]) == 3
    assert main(["journal", "status", *flags]) == 0
    assert " - " in capsys.readouterr().out


def test_status_lists_each_journal(root: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Live or adopted while a worker is alive, and dead afterwards; how far it is counted, and what waits for a person.
    """
    directory = write(root, DAY, DAY + 1, n=9)
    flags = ["--data-dir", str(root.parent), "--redis-url", server.url]

    async def body(one: Working) -> None:
        await one.counted()
        assert await asyncio.to_thread(main, ["journal", "status", "--json", *flags]) == 0
        found = {line["producer"]: line for line in json.loads(capsys.readouterr().out)}
        assert found[directory.name]["state"] == "live", "not told yet"
        await one.closer.declare(one.store, CLOSES)
        assert await asyncio.to_thread(main, ["journal", "status", "--json", *flags]) == 0
        found = {line["producer"]: line for line in json.loads(capsys.readouterr().out)}
        assert found[directory.name]["state"] == "adopted"
        assert found[one.journal.directory.name]["state"] == "live"
        assert found[one.journal.directory.name]["days"] == []

    run(root, server, body)
    (directory / f"{1:020}.corrupt").write_bytes(b"")
    assert main(["journal", "status", *flags]) == 0
    line = next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(directory.name))
    assert line[1:4] == ["dead", "18", "18"]
    assert line[5:] == ["1", DAYS.date(DAY).isoformat(), "to", DAYS.date(DAY + 1).isoformat()]


@pytest.mark.parametrize("counted_before", [False, True], ids=["damaged before", "damaged after it was counted"])
def test_salvage_counts_what_lies_behind_a_hole_once(
    root: Path, server: Server, counted_before: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    One record of 20 is lost at most; the others are counted once, however often and whenever the salvage is run.
    """
    directory = write(root, DAY, n=20, type_=Type.SERVED)
    if counted_before:
        count(root, server)
    path = directory / f"{9:020}.seg"
    damaged = bytearray(path.read_bytes())
    damaged[HEADER + 3 * RECORD] ^= 1
    path.write_bytes(damaged)

    async def hole(one: Working) -> None:
        await eventually(lambda: len(list(directory.glob("*.corrupt"))) == 2)

    run(root, server, hole)
    assert counts(server, DAY) == {SERVED: 20 if counted_before else 11}

    assert main(["journal", "salvage", str(directory)]) == 0
    assert "missing: record 12\n" in capsys.readouterr().out
    assert counts(server, DAY) == {SERVED: 20 if counted_before else 11}
    assert main(["journal", "salvage", str(directory / f"{9:020}.corrupt"), "--apply"]) == 0
    assert main(["journal", "salvage", str(directory), "--apply"]) == 1
    capsys.readouterr()
    count(root, server)
    assert counts(server, DAY) == {SERVED: 20 if counted_before else 19}
    ask(server, "FLUSHALL")
    count(root, server)
    assert counts(server, DAY) == {SERVED: 19}


def test_a_running_service_takes_up_a_salvage(root: Path, server: Server) -> None:
    """
    The worker that holds the dead journal sees at its next round what is back in it.
    """
    directory = write(root, DAY, n=20)
    path = directory / f"{9:020}.seg"
    damaged = bytearray(path.read_bytes())
    damaged[HEADER + 3 * RECORD] ^= 1
    path.write_bytes(damaged)

    async def body(one: Working) -> None:
        await eventually(lambda: len(list(directory.glob("*.corrupt"))) == 2)
        await one.counted()
        await one.round(CLOSES - 1)
        assert await asyncio.to_thread(main, ["journal", "salvage", str(directory), "--apply"]) == 0
        await one.round(CLOSES - 1)
        await one.counted()
        await one.round(CLOSES + 1)
        page = one.book.read(DAY)
        assert page
        assert (page.counts, page.producers) == ({IMPRESSION: 19}, {directory.name: 20})

    run(root, server, body)


def test_a_salvage_of_a_closed_day_is_late(root: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The day's totals stay; the report has a line for what came afterwards.
    """
    directory = write(root, DAY, n=20)
    path = directory / f"{9:020}.seg"
    damaged = bytearray(path.read_bytes())
    damaged[HEADER + 3 * RECORD] ^= 1
    path.write_bytes(damaged)

    async def closing(one: Working) -> None:
        await eventually(lambda: len(list(directory.glob("*.corrupt"))) == 2)
        await one.counted()
        await one.round(CLOSES + 1)

    run(root, server, closing)
    assert main(["journal", "salvage", str(directory), "--apply"]) == 0
    count(root, server)
    capsys.readouterr()
    flags = ["--data-dir", str(root.parent), "--redis-url", server.url, "--from", DAYS.date(DAY).isoformat()]
    for wiped in (False, True):
        if wiped:

            async def archive(one: Working) -> None:
                await one.counted()
                await one.closer.archive_late(one.store, DAY)

            run(root, server, archive)
            ask(server, "FLUSHALL")
        assert main(["report", *flags, "--to", DAYS.date(DAY).isoformat(), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert sum(row["impressions"] for row in report["rows"]) == 11
        assert report["waiting"] == (1 if wiped else 0), "a wiped store has not sealed the day again yet"
        assert [(row["day"], row["impressions"]) for row in report["late"]] == [(DAYS.date(DAY).isoformat(), 8)]
        assert main(["report", *flags, "--to", DAYS.date(DAY).isoformat()]) == 0
        assert f"late, after {DAYS.date(DAY)} was closed, not in the figures: 8 impressions" in capsys.readouterr().out
    assert open_book(None, root.parent).days() == {DAY}
    assert PRODUCERS == "as:producers"


def test_salvage_says_where_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "salvage", str(tmp_path)]) == 1
    assert "nothing is to be salvaged" in capsys.readouterr().out
