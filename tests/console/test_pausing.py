"""Pausing in the console: what stops is said, what cannot be is said beside its field, and every page shows what is."""

import re
import time
from datetime import datetime, timedelta
from html import unescape
from zoneinfo import ZoneInfo

import pytest

from adserver.catalog import is_live
from adserver.console.desk import read_live
from tests.console.desks import Browser, Desk
from tests.console.forms import forms_of, submit
from tests.service.live import eventually

PAUSES = "/console/pauses"


def pause(browser: Browser, **fields: str) -> tuple[int, str]:
    """Send the form of the page with these fields; its status, and the page it leads to."""
    [form] = [one for one in forms_of(browser.get(PAUSES).text) if one.action == PAUSES]
    answer = submit(browser, form, fields)
    page = browser.get(answer.headers["location"]).text if answer.status_code == 303 else answer.text
    return answer.status_code, unescape(page)


def shows(browser: Browser, path: str, sentence: str, *, there: bool = True) -> None:
    """A worker hears of a pause within a second or so."""
    eventually(lambda: (sentence in browser.get(path).text) is there, 5, f"{path}: {sentence!r} {there}")


def lift_all(browser: Browser) -> None:
    for form in forms_of(browser.get(PAUSES).text):
        if form.action.endswith("/lift"):
            assert submit(browser, form).status_code == 303


@pytest.mark.parametrize(
    ("kind", "typed", "meant"),
    [("category", "bycicles", "Did you mean "), ("section", "busines", "Did you mean business?")],
)
def test_what_nothing_is_of_is_asked_about(desk: Desk, kind: str, typed: str, meant: str) -> None:
    """
    A category or section with a slip of the pen is not told as paused: nothing happens, and what may be meant is said.
    Whoever means it sends it once more.
    """
    ann = desk.browser("sales")
    before = desk.ask(read_live)
    status, page = pause(ann, kind=kind, **{kind: typed})
    assert status == 422
    assert "Nothing is paused yet" in page
    assert desk.ask(read_live).number == before.number
    if kind == "section":
        assert meant in page
    [form] = [one for one in forms_of(page) if one.action == PAUSES]
    assert form.fields[kind] == [typed]
    other = submit(ann, form, {kind: f"{typed}x"})
    assert other.status_code == 422, "another one than was asked about"
    answer = submit(ann, form)
    assert answer.status_code == 303
    assert ("warned=" in answer.headers["location"]) is (kind == "category")
    lift_all(ann)


def test_how_many_bookings_stop_is_said(desk: Desk) -> None:
    """
    Their number and names; and where nothing of it is running, that nothing stops.
    """
    ann = desk.browser("sales")
    live = desk.ask(read_live).document
    owner = {one.id: one.advertiser for one in live.campaigns}
    mine = [one for one in live.line_items if owner[one.campaign] == "kadefiets" and is_live(one, time.time())]
    _, page = pause(ann, kind="advertiser", advertiser="kadefiets")
    assert f"{len(mine)} bookings stop" in page
    assert mine[0].name in page
    lift_all(ann)
    _, page = pause(ann, kind="section", section="Business")
    told = re.search(r"(\d+) bookings stop .* now on its pages", page)
    assert told
    terms = [one.targeting.any for one in live.line_items if one.targeting and one.targeting.any]
    others = [one for one in terms if one.section == ("travel",)]
    assert others
    assert int(told[1]) <= len(live.line_items) - len(others)
    lift_all(ann)


def test_an_end_that_is_past_is_said_beside_its_field(desk: Desk) -> None:
    """
    Nothing that was typed is lost, and nothing is paused.
    """
    ann = desk.browser("sales")
    before = desk.ask(read_live).number
    past = datetime.now(ZoneInfo("Europe/Amsterdam")) - timedelta(hours=1)
    fields = {"kind": "advertiser", "advertiser": "kadefiets", "for": "until", "reason": "A long reason",
              "until": past.strftime("%Y-%m-%dT%H:%M")}  # fmt: skip
    status, page = pause(ann, **fields)
    assert status == 422
    assert '<span class="wrong" id="w-until" role="alert">This is past; choose an instant to come</span>' in page
    [form] = [one for one in forms_of(page) if one.action == PAUSES]
    assert {name: form.fields[name] for name in fields} == {name: [value] for name, value in fields.items()}
    assert desk.ask(read_live).number == before


def test_every_page_says_what_is_paused(desk: Desk) -> None:
    """
    The list of bookings, a booking's page, its slot's, the calendar and today's board; with a section, too. After it
    is lifted none does.
    """
    ann, viewer = desk.browser("sales"), desk.browser("viewer")
    live = desk.ask(read_live).document
    item = next(one for one in live.line_items if one.id == "molenkorst-daily")
    pages = ["/console", "/console/line-items?q=molenkorst-daily", "/console/line-items/molenkorst-daily",
             f"/console/slots/{item.slots[0]}", f"/console/calendar?q={item.slots[0]}",
             "/console/line-items?state=paused", "/console/slots"]  # fmt: skip
    assert pause(ann, kind="line_item", line_item="molenkorst-daily")[0] == 303
    until = max(one.ends for one in desk.ask(read_live).document.pauses if one.ends > time.time())
    said = datetime.fromtimestamp(until, ZoneInfo("Europe/Amsterdam")).strftime("paused until %a %-d %b %Y %H:%M")
    for path in pages:
        shows(viewer, path, said)
    board = re.search(rf'id="s{item.slots[0]}".*?</article>', viewer.get("/console").text, re.DOTALL)
    assert board
    assert "Nothing is booked here now" not in board[0]
    lift_all(ann)
    for path in pages:
        shows(viewer, path, said, there=False)
    assert pause(ann, kind="section", section="business")[0] == 303
    for path in ("/console", "/console/line-items", f"/console/slots/{item.slots[0]}", "/console/calendar"):
        shows(viewer, path, "section <strong>business</strong>")
    lift_all(ann)
