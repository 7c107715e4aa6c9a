"""The calendar's and the slots' pages on a running service."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from adserver.console import audit
from adserver.console.desk import read_draft, read_live
from adserver.model import SlotId
from tests.console.desks import Browser, Desk


@pytest.fixture(scope="module")
def sales(desk: Desk) -> Browser:
    return desk.browser("sales")


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_a_slot_says_what_it_shows_and_why(sales: Browser) -> None:
    """
    The page names what shows now and from when on something else does, and explains the next view in a sentence.
    """
    told = text_of(sales.get("/console/slots/889990").text)
    assert "Now, until Tue 1 Jan 2030 00:00" in told
    assert "From Tue 1 Jan 2030 00:00" in told
    assert re.search(r"Showing .+ because ", told)
    assert "for pages with section travel" in told


def test_another_page_or_instant_is_explained(sales: Browser) -> None:
    """
    Asked for a page of a section, or for an instant to come, the explanation is of that; nonsense is told in words.
    """
    travel = text_of(sales.get("/console/slots/889990?section=travel").text)
    assert "this one has none of these" not in travel
    later = text_of(sales.get("/console/slots/889990?at=2030-06-01T09:00").text)
    assert "Sat 1 Jun 2030 09:00" in later or "more than 400 days away" in later
    for at in ("soon", "2027-03-28T02:30", "9999-12-31T23:59", "0001-01-01T00:00"):
        answer = sales.get(f"/console/slots/889990?at={at}")
        assert answer.status_code == 200
        assert "instant" in text_of(answer.text)


def test_a_slot_that_is_not_there_is_said_so(sales: Browser) -> None:
    """
    A number nobody has given out, or no number at all, is a page that says so.
    """
    for name in ("1", "x", "８８９９９０", "9" * 30):
        assert sales.get(f"/console/slots/{name}").status_code == 404


def test_a_changed_slot_waits_in_the_draft(desk: Desk) -> None:
    """
    Saving puts the change into the draft and publishes nothing; what is wrong is shown beside what was typed.
    """
    sales = desk.browser("sales")
    form = {"name": "Under the lead", "sizes": "300 x 250", "label": "Ad", "when_empty": "keep", "refresh_s": "60"}
    answer = sales.post("/console/slots/889990", form)
    assert (answer.status_code, answer.headers["location"].partition("?")[0]) == (303, "/console/draft")
    draft = desk.ask(lambda store: read_draft(store, "sales@desk.example", 1))
    [slot] = draft.puts.slots
    assert (slot.id, slot.name, slot.lazy, slot.refresh_s) == (889990, "Under the lead", False, 60)
    live = desk.ask(read_live)
    assert all(one.name != "Under the lead" for one in live.document.slots)
    assert "changed in your draft" in sales.get("/console/slots/889990").text

    wrong = sales.post("/console/slots/889990", {**form, "sizes": "320x50"})
    assert wrong.status_code == 422
    assert "fits slot 889990" in text_of(wrong.text)
    assert 'value="320x50"' in wrong.text
    sales.post("/console/draft/drop")


def test_what_happens_to_a_draft_is_in_the_audit_log(desk: Desk) -> None:
    """
    Who changed what from what to what, and who took it back; saving the same once more, or what is refused, is nothing.
    """
    ann = desk.sign_in(desk.add("ann-drafts@desk.example", "sales"))
    form = {"name": "Under the lead", "sizes": "300 x 250", "label": "Ad", "when_empty": "keep"}
    was = next(one for one in desk.ask(read_live).document.slots if one.id == 889990)

    def log() -> list[tuple[str, str, str]]:
        page = desk.ask(lambda store: audit.read(store, who="ann-drafts@desk.example"))
        return [(one.entry.what, one.entry.subject, one.entry.detail) for one in reversed(page.entries)]

    before = len(log())
    for _ in range(2):
        ann.post("/console/slots/889990", form)
    ann.post("/console/slots/889990", {**form, "sizes": "320x50"})
    ((what, subject, detail),) = log()[before:]
    assert (what, subject) == ("drafts", "889990 Under the lead")
    assert detail.startswith("changed slot 889990 Under the lead (")
    assert f"Name: {was.name} → Under the lead" in detail
    assert f"Label: {was.label} → Ad" in detail

    ann.post("/console/draft/drop", {"place": "slots/889990"})
    ann.post("/console/draft/drop")
    ((what, subject, detail),) = log()[before + 1 :]
    assert (what, subject) == ("takes back", f"889990 {was.name}")
    assert f"Name: Under the lead → {was.name}" in detail


def test_the_preview_shows_what_takes_a_readers_consent(desk: Desk) -> None:
    """
    Third-party tags and what has a frequency cap stand in it, whatever the staff's own browser refuses.
    """
    ann = desk.browser("sales")
    ann.headers["sec-gpc"] = "1"
    at, shown = f"{datetime.now(UTC) + timedelta(hours=3):%Y-%m-%dT%H:%M}", ""
    for _ in range(6):
        shown += ann.get("/console/preview/page", params={"at": at, "section": "town"}).text
        desk.http.get("/ads?id=889992&id=889977")  # what is booked there takes turns
    assert "zoutmond-hall-ticket-tag" in shown
    assert 'data-line-item="vlonderstroom-launch"' in shown


def test_a_new_slot_gets_the_next_number(desk: Desk) -> None:
    """
    The form suggests the number after the last one; saved, the slot is in the draft and its page says so.
    """
    sales = desk.browser("sales")
    page = sales.get("/console/slots/new").text
    assert 'value="889995"' in page
    form = {"id": "889995", "name": "New place", "sizes": "300x250", "label": "Advertisement", "when_empty": "collapse"}
    assert sales.post("/console/slots/new", form).status_code == 303
    assert "in your draft only" in sales.get("/console/slots/889995").text
    assert "not published" in sales.get("/console/slots?q=889995").text
    assert sales.post("/console/slots/new", form).status_code == 422
    draft = desk.ask(lambda store: read_draft(store, "sales@desk.example", 1))
    assert [one.id for one in draft.puts.slots] == [SlotId(889995)]
    assert "New place" in sales.get("/console/calendar?q=889995").text
    sales.post("/console/draft/drop")


def test_the_calendar_leads_from_free_space_to_a_booking(desk: Desk, sales: Browser) -> None:
    """
    Each free day is a link to the form with slot and start filled in; whoever may not book gets the words alone.
    """
    page = sales.get("/console/calendar?from=2027-03-22&weeks=1&q=889992").text
    links = re.findall(r'href="(/console/book\?[^"]+)"', page)
    assert [unescape(one) for one in links[:2]] == [
        "/console/book?slots=889992&starts=2027-03-22T00%3A00",
        "/console/book?slots=889992&starts=2027-03-23T00%3A00",
    ]
    form = sales.get(unescape(links[1])).text
    assert 'value="2027-03-23T00:00"' in form
    assert re.search(r'name="slots" value="889992" checked', form)
    assert "/console/book?" not in desk.browser("viewer").get("/console/calendar?from=2027-03-22&q=889992").text


def test_a_bar_says_who_when_and_how_much(sales: Browser) -> None:
    """
    The name of each bar's link holds its share or goal, its name, the advertiser and both dates.
    """
    page = sales.get("/console/calendar?from=2027-03-22&q=889990").text
    bars = [text_of(one) for one in re.findall(r'<a class="booked [^>]+>(.*?)</a>', page)]
    assert (
        "50 % Friday savings, first box , Lindemeer Bank, from Thu 1 Jan 2026 00:00 until Tue 1 Jan 2030 00:00" in bars
    )


@pytest.mark.parametrize(
    "query",
    [
        "from=x",
        "from=0001-01-01",
        "from=9999-12-31",
        "weeks=99",
        "page=-1",
        "page=99999999999",
        "page=%EF%BC%91",
        "q=%00",
    ],
)
def test_strange_questions_get_a_page(sales: Browser, query: str) -> None:
    """
    What is no day, no page and no number of weeks is answered with the usual ones.
    """
    assert sales.get(f"/console/calendar?{query}").status_code == 200
    assert sales.get(f"/console/slots?{query}").status_code == 200
