"""Reports: the same figures on the command line and by the API, right after the last beacon."""

import csv
import io
import json
import tomllib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from adserver.cli import main
from tests.service.live import SLOTS, Service, free_port, tokens

FIGURES = ["requests", "served", "impressions", "measured", "viewables", "clicks", "loads"]
DIMENSIONS = ["slot", "line_item", "creative", "day", "hour"]
EMPTY = 700003
LOADS = 7


def add_empty_slot(config: Path) -> None:
    (config / "tests.toml").write_text(f'[[slot]]\nid = {EMPTY}\nname = "Unsold"\nsize = "300x250"\n')


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    """A service after some page views: every figure differs from the others."""
    service = new_service(configure=add_empty_slot)
    service.start()
    for n in range(6):
        query = "&".join(f"id={slot}" for slot in (*SLOTS, EMPTY))
        ads = service.http.get(f"/ads?{query}").json()["ads"]
        for place, ad in enumerate(ads.values()):
            for token in tokens(ad["html"]):
                if n < 5:
                    service.http.get(f"/i/{token}")
                if n < 4:
                    service.http.post(f"/m/{token}")
                if n < 3:
                    service.http.post(f"/v/{token}")
                if n < 2 and place < 9:
                    service.http.get(f"/c/{token}")
                if n == 5:
                    service.http.get(f"/i/{token}", headers={"user-agent": "Googlebot/2.1"})
    for _ in range(LOADS):
        service.http.get("/e/889990/report/1.img")
    return service


def rows(service: Service, by: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.http.get("/api/report", params={"by": by}).json()["rows"]
    return found


def test_report_is_right_after_the_last_beacon(service: Service) -> None:
    """
    An event is in the very next report, without a wait: what was answered is counted.
    """

    def impressions() -> int:
        return int(next(row["impressions"] for row in service.report() if row["slot"] == 889979))

    before = impressions()
    for n in range(1, 4):
        service.http.get(f"/i/{service.token(889979)}")
        assert impressions() == before + n


@pytest.mark.parametrize("by", DIMENSIONS)
def test_table_csv_json_and_api_agree(service: Service, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Whatever way a report is asked for, its figures are the same.
    """

    def command(*form: str) -> str:
        assert main(["report", "--data-dir", str(service.data), "--by", by, *form]) == 0
        return capsys.readouterr().out

    api = service.http.get("/api/report", params={"by": by}).json()
    printed = json.loads(command("--json"))
    comma = list(csv.DictReader(io.StringIO(command("--csv"))))
    table = command().splitlines()

    assert printed["rows"] == api["rows"]
    assert (printed["from"], printed["to"], printed["time_zone"]) == (api["from"], api["to"], "Europe/Amsterdam")
    assert [row[by] for row in comma] == ["-" if row[by] is None else str(row[by]) for row in api["rows"]]
    for theirs, ours in zip(comma, api["rows"], strict=True):
        assert [int(theirs[figure]) for figure in FIGURES] == [ours[figure] for figure in FIGURES]
        assert int(theirs["invalid:bot"]) == ours["invalid"].get("bot", 0)
    gross = [f"gross:{figure}" for figure in FIGURES[2:6]]
    assert table[2].split() == [by, *FIGURES, "suspect", *gross, "invalid:bot"]
    for theirs, ours in zip(comma, api["rows"], strict=True):
        assert [int(theirs[name]) for name in gross] == [ours["gross"][figure] for figure in FIGURES[2:6]]
        assert int(theirs["suspect"]) == sum(ours["suspect"].values())
    bodies = [line.replace(",", "").rsplit(maxsplit=13) for line in table[4:-1]]
    assert [[int(cell) for cell in line[1:8]] for line in bodies] == [
        [row[figure] for figure in FIGURES] for row in api["rows"]
    ]
    total = table[-1].replace(",", "").split()
    assert [int(cell) for cell in total[1:8]] == [sum(row[figure] for row in api["rows"]) for figure in FIGURES]


def test_every_dimension_has_the_same_sums(service: Service) -> None:
    """
    Every figure adds up alike by slot, line item, creative, day and hour.
    """
    sums = {by: [sum(row[figure] for row in rows(service, by)) for figure in FIGURES] for by in DIMENSIONS}

    assert len({tuple(one) for one in sums.values()}) == 1
    requests, served, impressions, measured, viewables, clicks, loads = sums["slot"]
    assert requests - served == 6
    assert requests > served >= impressions > measured > viewables > clicks > 0
    assert loads == LOADS


def test_rows_are_named_as_the_configuration_names_them(service: Service) -> None:
    """
    Slots by id, line items and creatives by theirs, days and hours in the newsroom's own zone; a silent slot has a row.
    """
    tables = [tomllib.loads(path.read_text()) for path in service.config.glob("*.toml")]
    line_items = {row["id"] for table in tables for row in table.get("line_item", ())}
    creatives = {row["id"] for table in tables for row in table.get("creative", ())}
    now = datetime.now(ZoneInfo("Europe/Amsterdam"))

    assert [row["slot"] for row in rows(service, "slot")] == [EMPTY, *SLOTS]
    assert {row["line_item"] for row in rows(service, "line_item")} <= line_items | {None}
    assert {row["creative"] for row in rows(service, "creative")} <= creatives | {None}
    assert now.date().isoformat() in [row["day"] for row in rows(service, "day")]
    for row in rows(service, "hour"):
        at = datetime.fromisoformat(row["hour"])
        assert at.utcoffset() == at.astimezone(ZoneInfo("Europe/Amsterdam")).utcoffset()
        assert at.minute == 0


def test_json_has_the_contracts_shape(service: Service) -> None:
    """
    A row has its dimension, the seven figures, and what was invalid by reason; then what these are made of.
    """
    for row in rows(service, "slot"):
        assert list(row) == ["slot", *FIGURES, "invalid", "invalid_by_type", "suspect", "gross"]
        assert all(isinstance(row[figure], int) for figure in FIGURES)
        assert set(row["invalid"]) <= {"bot"}
    assert sum(row["invalid"].get("bot", 0) for row in rows(service, "slot")) == 18


def test_default_is_today_by_slot(service: Service) -> None:
    """
    Without parameters a report is of today, by slot.
    """
    today = datetime.now(ZoneInfo("Europe/Amsterdam")).date().isoformat()

    answer = service.http.get("/api/report").json()

    assert answer["from"] in (today, answer["to"])
    assert [row["slot"] for row in answer["rows"]] == [EMPTY, *SLOTS]


def test_days_without_traffic_are_reported_as_such(service: Service) -> None:
    """
    A range in the past has its silent slots and no days.
    """
    past = {"from": "2020-02-01", "to": "2020-02-29"}

    assert all(row["requests"] == 0 for row in service.http.get("/api/report", params=past).json()["rows"])
    assert service.http.get("/api/report", params={**past, "by": "day"}).json()["rows"] == []


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("0001-01-01", "9999-12-31", "1971 to 2148"),
        ("2000-01-01", "2026-01-01", "at most 400"),
        ("2026-03-02", "2026-03-01", "exchange"),
        ("2026-02-30", "2026-03-01", "2026-03-31"),
        ("yesterday", "2026-03-01", "2026-03-31"),
        ("2026-03-01T00:00", "2026-03-02", "2026-03-31"),
        ("２０２６-03-01", "2026-03-02", "2026-03-31"),
        ("20260301", "2026-03-02", "2026-03-31"),
        ("-1", "2026-03-02", "2026-03-31"),
        ("2026-03-01\n", "2026-03-02", "2026-03-31"),
    ],
)
def test_range_that_cannot_be_reported_is_refused_in_words(service: Service, first: str, last: str, words: str) -> None:
    """
    A range that is too long, the wrong way round or no date is 400, and says what would do.
    """
    answer = service.http.get("/api/report", params={"from": first, "to": last})

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.json()["detail"]


def test_exit_codes_say_whose_fault_it_is(service: Service, tmp_path: Path) -> None:
    """
    0 done, 1 the input is at fault, 2 usage, 3 something it needs is away.
    """
    assert service.run("report", "--from", "2026-01-01", "--to", "2026-01-02").stderr == ""
    assert "exchange" in service.run("report", "--from", "2026-01-02", "--to", "2026-01-01", code=1).stderr
    assert "400" in service.run("report", "--from", "2001-01-01", code=1).stderr
    assert "invalid choice" in service.run("report", "--by", "colour", code=2).stderr
    assert "usage" in service.run("report", "--json", "--csv", code=2).stderr
    assert "usage" in service.run(code=2).stderr
    assert "store" in service.run("report", "--data-dir", str(tmp_path), code=3).stderr
    nobody = f"redis://127.0.0.1:{free_port()}"
    assert "store" in service.run("report", "--redis-url", nobody, code=3).stderr
    assert "redis://" in service.run("report", "--redis-url", "http://x", code=2).stderr


def test_unknown_dimension_is_refused_in_words(service: Service) -> None:
    """
    The API names the dimensions there are.
    """
    answer = service.http.get("/api/report?by=colour")

    assert answer.status_code == 400
    assert "line_item" in answer.json()["detail"]


@pytest.mark.parametrize("command", ["", "serve", "check", "apply", "export", "report"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    --help of the program and of each command says what it does, in words and not in types.
    """
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])

    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "usage: adserver" in shown
    assert "typing." not in shown
    assert "None" not in shown
