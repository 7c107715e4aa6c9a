"""What the commands that ask take and say: numbers within bounds, a forecast in words, as JSON and in the console."""

import json

import pytest

from adserver.asking import answer_of, print_forecast
from adserver.cli import main
from adserver.console.web import TEMPLATES
from adserver.forecast import Daily, Forecast
from adserver.hours import Week
from adserver.model import Cap
from adserver.traffic import Outlook
from adserver.whatif import Answer, Hurt, Remedies, World
from tests.make import line_item

FORETOLD = Answer(
    [
        Forecast("fine", 0, 900.0, 900, 10.0, over=True, short=0.0),
        Forecast("capped", 0, 400.0, 1000, None, over=True, short=600.0, capped=True),
        Forecast("late", 0, 400.0, 1000, None, over=True, short=600.0),
        Forecast("just", 0, 999.5, 1000, None, over=True, short=0.0),
        Forecast("going", 0, 500.0, 1000, None, over=False, short=0.0),
        Forecast("daily", 0, 700.0, 100, None, over=False, short=5.0, daily=Daily(8, 7, today=True)),
        Forecast("plain", 0, 700.0, None, None, over=False, short=0.0),
    ],
    [Hurt("plain", 800.0, 700.0)],
    {
        "capped": Remedies(["slot 5 added"], [], 3),
        "late": Remedies([], ["priority standard"], 0),
        "daily": Remedies([], [], 2),
    },
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("forecast --days 0", "'0': expected 1 to 400 days"),
        ("forecast --days 401", "'401': expected 1 to 400 days"),
        ("forecast --days 3000000", "'3000000': expected 1 to 400 days"),
        ("forecast --days 1" + "0" * 20, "expected 1 to 400 days"),
        ("forecast --days 1" + "0" * 9_999, "expected 1 to 400 days"),
        ("forecast --days soon", "'soon': expected 1 to 400 days"),
        ("forecast --remedies-within -1", "'-1': expected 0 to 86,400 seconds"),
        ("simulate --days 401", "expected 1 to 400 days"),
        ("simulate --requests 1", "'1': expected 100 to 100,000,000 requests of each slot and day"),
        ("simulate --workers 0", "'0': expected 1 to 1,000 workers"),
    ],
)
def test_numbers_have_bounds(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    What would run without end, or divide by nothing, is refused with what was expected.
    """
    with pytest.raises(SystemExit) as exit_:
        main(arguments.split())
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


def say(at: float | None) -> str:
    return "" if at is None else f"2026-03-{int(at):02d}T00:00+01:00"


def as_json() -> dict[str, object]:
    world = World(Outlook({}, Week("UTC")), [], {}, 1.0, 31.0)
    found: dict[str, object] = json.loads(json.dumps(answer_of(world, FORETOLD, say)))
    return found


def test_what_is_capped_is_foretold_from_above(capsys: pytest.CaptureFixture[str]) -> None:
    """
    In its row, in a sentence and for programs.
    """
    items = {one.line_item: line_item(one.line_item, frequency=(Cap(3, 86_400),)) for one in FORETOLD.line_items}
    print_forecast(FORETOLD, items, say)
    printed = capsys.readouterr().out
    assert "600 short, at most\n" in printed
    assert "At most, because of a frequency cap: capped. How often each reader comes back is not foretold" in printed
    rows = as_json()["line_items"]
    assert isinstance(rows, list)
    assert [one["line_item"] for one in rows if one["capped"]] == ["capped"]


def test_the_console_says_each_outcome_of_a_forecast() -> None:
    """
    Also of bookings that need nothing, and of those that there was no time for.
    """
    html = TEMPLATES.get_template("forecast.html").render(found=as_json(), names={"fine": "Fine & <dandy>"})
    lines = [" ".join(part.split()) for part in html.split("<li>")]
    assert "<strong>plain</strong> delivers 700 instead of 800." in lines[1]
    said = {line.partition("<strong>")[2].partition("</strong>: ")[0]: line for line in lines[2:]}
    for name, words in {
        "Fine &amp; &lt;dandy&gt;": "reaches its 900 on 2026-03-10</li>",
        "capped": "at most, because of its frequency cap: ends 600 short of 1,000<br>",
        "late": '<br><span class="small quiet">Not tried for want of time: priority standard</span></li>',
        "just": "reaches its 1,000 by its end</li>",
        "going": "500 of 1,000 by 2026-03-31</li>",
        "daily": "reaches its 100 a day on 7 of 8 days, 5 short in all",
    }.items():
        assert words in said[name]
    assert "What reaches its goal: slot 5 added" in said["capped"]
    assert "what has a frequency cap may deliver less, and others more" in html
