"""What publishing would do to others, in the console: asked of recorded traffic before anything is published."""

import time

import pytest

from adserver.console.web import TEMPLATES
from adserver.days import Days
from adserver.simulate import shape
from adserver.traffic import STEPS
from tests.console.desks import Desk
from tests.console.forms import form_at, submit
from tests.service.live import SLOTS, eventually

DAILY = "/console/line-items/molenkorst-daily"


def test_a_draft_is_foretold_by_recorded_traffic(desk: Desk) -> None:
    """
    After some hundred pages, and weeks on record, the draft's page says how each goal does: one that is reached, one
    that is missed on each day, and in whole words what was tried for it.
    """
    ann = desk.sign_in(desk.add("foretold@desk.example", "sales"))
    form = form_at(ann, DAILY, DAILY)
    assert submit(ann, form, {"how": "goal", "goal_n": "40", "goal_daily": "1"}).status_code == 303
    for _ in range(300):
        assert desk.service.http.get("/ads", params={"id": list(SLOTS)}).status_code == 200

    def ask() -> str:
        answer = ann.get("/console/draft/forecast", timeout=90)
        assert answer.status_code == 200
        return "" if "no traffic is recorded yet" in answer.text else answer.text

    assert "<li><strong>" in eventually(ask, 40, "a forecast")

    days = Days("Europe/Amsterdam")
    today, _ = days.locate(time.time())
    with desk.service.redis() as store:
        for day in range(today - 35, today):
            steps = [round(2000 / STEPS * shape(day, step)) for step in range(STEPS)]
            for slot in SLOTS:
                store.set(f"as:{{curves}}:{day}:{slot}", b"".join(n.to_bytes(4, "big") for n in steps))
    page = ask()
    assert "reaches its 40 a day on" in page, page
    assert submit(ann, form_at(ann, DAILY, DAILY), {"goal_n": "2999"}).status_code == 303
    page = ask()
    assert "reaches its 2,999 a day on 0 of" in page, page
    assert "short in all" in page
    assert '<br><span class="small quiet">n</span>' not in page


@pytest.mark.parametrize(
    ("remedies", "not_tried", "said"),
    [
        (None, [], []),
        ("not tried", ["priority standard"], ["Not tried for want of time: priority standard"]),
        (["until 3 May"], ["slot 889990"], ["What reaches its goal: until 3 May", "want of time: slot 889990"]),
        ([], [], ["No longer flight, slot or priority is enough"]),
    ],
)
def test_what_helps_is_told_in_words(remedies: object, not_tried: list[str], said: list[str]) -> None:
    """
    Of a goal that needs nothing nothing is said, and of what was not tried that it was not.
    """
    row = {"line_item": "a", "goal": 100, "counted": 50, "reached_at": None, "over": True, "short": 50, "daily": None,
           "remedies": remedies, "not_tried": not_tried, "capped": True}  # fmt: skip
    found = {"to": "2026-12-01T00:00", "hurts": [], "line_items": [row]}
    page = TEMPLATES.get_template("forecast.html").render(found=found, sentence="", names={"a": "Mill"})
    assert "ends 50 short of 100" in page
    assert "frequency cap" in page
    assert page.count("small quiet") == len(said) + 1
    for sentence in said:
        assert sentence in page
