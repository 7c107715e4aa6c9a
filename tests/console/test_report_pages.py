"""Reports, advertisers and report links on a running service: the figures that were counted, hostile names as text."""

import csv
import io
import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import openpyxl  # type: ignore[import-untyped]
import pytest

from adserver.console.audit import read
from adserver.console.report_links import list_report_links, make_report_link
from tests.console.desks import TEST, Browser, Desk
from tests.service.live import Service, eventually, tokens

SLOT, IMPRESSIONS, MEASURED, VIEWABLES, CLICKS = 700100, 9, 6, 5, 2
SCRIPT = '"><script>alert(1)</script>'
FORMULA = "=1+1"
CONFIG = f"""
[[slot]]
id = {SLOT}
name = '@SLOT {SCRIPT}'
size = "300x250"
[[advertiser]]
id = "hostile"
name = '{SCRIPT}'
contact = 'secret contact'
[[campaign]]
id = "hostile-campaign"
name = '+1 {SCRIPT}'
advertiser = "hostile"
[[creative]]
id = "hostile-words"
advertiser = "hostile"
kind = "text"
title = '-1 {SCRIPT}'
text = "words"
click_url = "https://hostile.example/"
[[line_item]]
id = "hostile-formula"
name = '{FORMULA}'
campaign = "hostile-campaign"
priority = "standard"
slots = [{SLOT}]
creatives = ["hostile-words"]
starts = 2026-01-01T00:00:00+01:00
ends = 2090-01-01T00:00:00+01:00
goal = {{ impressions = 1_000_000 }}
pacing = "asap"
"""


class Pages(Desk):
    """The console as people of each role see it, each with one browser."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._browsers: dict[str, Browser] = {}

    def by(self, role: str) -> Browser:
        if role not in self._browsers:
            self._browsers[role] = self.browser(role)
        return self._browsers[role]

    def get(self, path: str, role: str = "viewer", **query: Any) -> httpx.Response:
        return self.by(role).get(path, params=query or None)

    def post(self, path: str, data: dict[str, str], role: str = "sales") -> httpx.Response:
        return self.by(role).post(path, data)

    def link(self, advertiser: str = "hostile") -> str:
        return self.ask(lambda store: make_report_link(store, advertiser, "test", 90, TEST, time.time()))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """A service on which one hostile booking was shown so many times, after all of it was counted."""

    def configure(config: Path) -> None:
        (config / "hostile.toml").write_text(CONFIG)

    service = Service(tmp_path_factory.mktemp("s"), "--access-log", configure=configure)
    service.start()

    def ad() -> str:
        """A fresh snippet's token; a goal takes a second at first to be allowed to show."""
        return eventually(lambda: tokens(service.http.get(f"/ads/{SLOT}").text), what="the ad")[0]

    for n in range(IMPRESSIONS):
        found = ad()
        service.http.get(f"/i/{found}")
        if n < MEASURED:
            service.http.post(f"/m/{found}")
        if n < VIEWABLES:
            service.http.post(f"/v/{found}")
        if n < CLICKS:
            service.http.get(f"/c/{found}")
        if n == 0:
            service.http.get(f"/i/{ad()}", headers={"user-agent": "bot/1"})
    eventually(service.settled, what="counting")
    desk = Pages(service)
    yield desk
    desk.http.close()
    service.stop()


ONES = [
    ("slot", str(SLOT)), ("line_item", "hostile-formula"), ("advertiser", "hostile"), ("creative", "hostile-words"),
]  # fmt: skip


def is_text_only(page: str) -> bool:
    """Whether the hostile names stand in *page* as text: nothing of them became an element or left its attribute."""
    return "<script>alert" not in page and SCRIPT not in page and "alert(1)" in unescape(page)


def test_a_goal_that_is_behind_comes_first_today(desk: Pages) -> None:
    """
    Nine of a million, with half of the flight to come or not: the board says so, by the figures of its report.
    """

    def wanting() -> str:
        page = desk.get("/console").text
        assert "<script>alert" not in page
        wants = page.partition('id="attention"')[2].partition("</section>")[0]
        return wants if "hostile-formula" in wants else ""

    wants = eventually(wanting, what="a goal behind its plan")
    assert "of 1,000,000 impressions" in wants
    assert "are due by now" in wants
    assert desk.get("/console", page="²").status_code == 200
    assert desk.get("/console/line-items", page="9" * 1900).status_code == 200


@pytest.mark.parametrize(("by", "id_"), ONES)
def test_every_kind_shows_what_was_counted(desk: Pages, by: str, id_: str) -> None:
    """
    A slot, a booking, an advertiser and a creative show the figures of the report; their names are text.
    """

    def numbers() -> bool:
        page = desk.get("/console/reports", by=by, id=id_)
        assert page.status_code == 200, page.text
        assert is_text_only(page.text)
        cells = re.findall(r"<tfoot>.*?</tfoot>", page.text, re.DOTALL)
        return [int(n) for n in re.findall(r'class="number">(\d+)<', cells[0])] == [IMPRESSIONS, VIEWABLES, CLICKS]

    eventually(numbers, what="the figures")
    page = desk.get("/console/reports", by=by, id=id_).text
    facts = dict(re.findall(r"<dt>(Measured|Viewable)</dt><dd>\s*([0-9.]+)", page))
    assert facts == {"Measured": "66.7", "Viewable": "83.3"}, "six of nine were measured, and five of these viewable"
    assert "too early to tell" in page
    assert 'role="img"' in page
    assert "style=" not in page


@pytest.mark.parametrize("by", [by for by, _ in ONES])
def test_lists_and_files_hold_every_name_as_text(desk: Pages, by: str) -> None:
    """
    The list is searched, and its CSV and XLSX run nothing: no cell begins like a formula, none is one.
    """
    page = desk.get("/console/reports", by=by, q="1")
    assert page.status_code == 200
    assert is_text_only(desk.get("/console/reports", by=by).text)
    assert "Nothing is called that" in desk.get("/console/reports", by=by, q="no such thing").text

    rows = list(csv.DictReader(io.StringIO(desk.get("/console/reports.csv", by=by).content.decode("utf-8-sig"))))
    mine = next(row for row in rows if row["Id"] == dict(ONES)[by])
    assert [int(mine[name]) for name in ("Impressions", "Measured", "Viewable", "Clicks")] == [
        IMPRESSIONS, MEASURED, VIEWABLES, CLICKS,
    ]  # fmt: skip
    assert float(mine["Viewability"]) == pytest.approx(VIEWABLES / MEASURED)
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values())

    answer = desk.get("/console/reports.xlsx", by=by)
    sheet = openpyxl.load_workbook(io.BytesIO(answer.content)).active
    assert {cell.data_type for row in sheet.iter_rows() for cell in row} <= {"s", "n"}
    assert answer.headers["content-disposition"].startswith("attachment;")


def test_the_days_of_one_are_a_file_as_well(desk: Pages) -> None:
    """
    Of one booking there is a line for each day, and for one or two days for each hour; both add up alike.
    """
    sums = []
    today = desk.service.http.get("/api/report").json()["from"]
    for query in ({}, {"from": today, "to": today}):
        answer = desk.get("/console/reports.csv", by="line_item", id="hostile-formula", **query)
        rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
        assert {row["Name"] for row in rows} == {f"'{FORMULA}"}
        sums.append(sum(int(row["Impressions"]) for row in rows))
    assert sums == [IMPRESSIONS, IMPRESSIONS]


def test_dates_that_cannot_be_are_said_beside_them(desk: Pages) -> None:
    """
    A wrong stretch of time is told in words, and the page still shows the usual one.
    """
    for query, words in (
        ({"from": "2026-03-09", "to": "2026-03-01"}, "exchange"),
        ({"from": "yesterday"}, "2026-03-31"),
        ({"from": "2019-01-01"}, "at most"),
    ):
        page = desk.get("/console/reports", **query)
        assert page.status_code == 400
        assert words in page.text
        assert "All slots" in page.text


def test_an_advertiser_is_changed_in_the_draft(desk: Pages) -> None:
    """
    The form puts what was typed into the draft and nothing live; what is wrong stays in the form with its reason.
    """
    page = desk.get("/console/advertisers/hostile", "sales")
    assert is_text_only(page.text)
    wrong = desk.post("/console/advertisers/hostile", {"name": "", "categories": "Not A Word", "frequency": "often"})
    assert wrong.status_code == 422
    for said in ("Say what it is called", "expected a lowercase word", "expected a cap"):
        assert said in wrong.text
    fields = {"name": "Plain", "categories": "bank, tea", "frequency": "3 per day\n1 per 6 hours", "several": "1"}
    assert desk.post("/console/advertisers/hostile", fields).status_code == 303
    drafted = desk.get("/console/advertisers/hostile", "sales").text
    assert 'value="bank, tea"' in drafted
    assert "1 per 6 hours" in drafted
    assert "Plain" not in desk.get("/console/advertisers").text
    assert "secret contact" in desk.get("/console/advertisers/hostile").text


def test_an_advertiser_opens_their_report(desk: Pages) -> None:
    """
    The link made on the advertiser's page opens their own figures without signing in: no other's name, no internal
    note, no way into the console, kept by no cache and found by no search engine.
    """
    made = desk.post("/console/advertisers/hostile/links", {"label": "Ms Baker", "days": "30"})
    found = re.search(r"/report/([A-Za-z0-9_-]{43})", made.text)
    assert found
    token = found[1]
    assert token not in desk.get("/console/advertisers/hostile", "sales").text
    page = desk.http.get(f"/report/{token}")
    assert page.status_code == 200
    assert is_text_only(page.text)
    assert FORMULA in page.text
    for hidden in ("secret contact", "Kadefiets", "kadefiets", "/console/reports", "/console/login", "hostile-formula",
                   "hostile-words", str(SLOT), "Ms Baker", "Sign in"):  # fmt: skip
        assert hidden not in page.text, hidden
    links = {unescape(one) for one in re.findall(r'(?:href|src|action)="([^"]*)"', page.text)}
    assert all(one.startswith(("?", "/console/static/", "/assets/", f"{token}.csv?")) for one in links), links
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "noindex" in page.headers["x-robots-tag"]
    assert "unsafe-inline" not in page.headers["content-security-policy"]

    file = desk.http.get(f"/report/{token}.csv")
    rows = list(csv.DictReader(io.StringIO(file.content.decode("utf-8-sig"))))
    assert [(row["Booking"], int(row["Impressions"]), int(row["Clicks"])) for row in rows] == [
        (f"'{FORMULA}", IMPRESSIONS, CLICKS)
    ]
    assert rows[0]["Campaign"].startswith("'+1")
    assert "Requests" not in rows[0]

    eventually(lambda: "GET /report/" in desk.service.log(), what="the access log")
    assert token not in desk.service.log()
    entries = desk.ask(lambda store: read(store)).entries
    assert ("makes report link", "hostile") in [(one.entry.what, one.entry.subject) for one in entries]
    assert all(token not in repr(one) for one in entries)


def test_unknown_expired_and_revoked_are_the_same_page(desk: Pages) -> None:
    """
    Whatever became of a link, the answer is the same 404 in words; a revoked one ends at once.
    """
    token, gone = desk.link(), desk.link("nobody-of-ours")
    old = desk.ask(lambda store: make_report_link(store, "hostile", "old", 30, TEST, time.time() - 31 * 86_400))
    assert desk.http.get(f"/report/{token}").status_code == 200
    link = next(one for one in desk.ask(lambda store: list_report_links(store, "hostile")) if one.label == "test")
    assert desk.post("/console/advertisers/hostile/links/revoke", {"link": link.id}, "sales").status_code == 303
    answers = [desk.http.get(f"/report/{one}") for one in (token, gone, old, "x" * 43, "x", "%2e%2e")]
    answers += [desk.http.get(f"/report/{token}.csv")]
    assert [one.status_code for one in answers] == [404] * len(answers)
    assert len({one.text for one in answers}) == 1
    assert "not good any more" in answers[0].text
    assert "/console/login" not in answers[0].text


def test_a_viewer_looks_and_makes_no_links(desk: Pages) -> None:
    """
    A viewer sees advertisers and reports; making or revoking a link, or changing an advertiser, is refused.
    """
    assert "Make a report link" not in desk.get("/console/advertisers/hostile").text
    for path in ("", "/links", "/links/revoke"):
        answer = desk.post(f"/console/advertisers/hostile{path}", {"label": "x", "days": "90"}, "viewer")
        assert answer.status_code == 403


def test_loads_of_newsletters_have_a_column_of_their_own(desk: Pages) -> None:
    """
    Fetched pictures of mails are in lists, on a page and in files, beside the figures and in none of them.
    """
    for _ in range(3):
        assert desk.http.get("/e/889990/column/1.img").status_code == 200

    def row() -> dict[str, str] | None:
        text = desk.get("/console/reports.csv", by="slot").content.decode("utf-8-sig")
        found = next(one for one in csv.DictReader(io.StringIO(text)) if one["Id"] == "889990")
        return found if found["Loads"] == "3" else None

    assert eventually(row, what="three loads")["Impressions"] == "0"
    page = desk.get("/console/reports", by="slot").text
    assert '<td data-label="Loads" class="number">3</td>' in page
    assert "<dt>Loads in newsletters</dt><dd>3</dd>" in page
    assert "<dt>Loads in newsletters</dt><dd>3</dd>" in desk.get("/console/reports", by="slot", id="889990").text
