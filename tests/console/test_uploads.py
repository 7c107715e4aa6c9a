"""An image that came with a form which was not right yet: it is kept, and the form remembers it."""

import io
import re
import time
from datetime import UTC, datetime

import pytest
from msgspec import structs
from PIL import Image

from adserver.console import desk as desks
from adserver.console import drafts
from adserver.console.drafts import Draft
from adserver.model import SlotId
from adserver.store import Store
from tests.console.desks import Browser, Desk

BOOKING = {
    "advertiser": "+",
    "new_advertiser": "Tide Swimming",
    "name": "Tide",
    "slots": "889990",
    "how": "rest",
    "alt": "A swimmer",
    "click_url": "https://tide.example/",
}


def picture(size: tuple[int, int] = (300, 250), form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, f"#{time.time_ns() % 0xFFFFFF:06x}").save(out, form)
    return out.getvalue()


def noisy() -> bytes:
    """A picture that is heavier than advised, in colours for print."""
    out = io.BytesIO()
    Image.effect_noise((600, 500), 90).convert("CMYK").save(out, "JPEG", quality=98)
    return out.getvalue()


@pytest.fixture
def sales(desk: Desk) -> Browser:
    return desk.sign_in(desk.add(f"uploads-{time.time_ns()}", "sales"))


def kept(text: str) -> dict[str, str]:
    """What the form remembers of its image."""
    found = {name: re.search(rf'name="{name}" value="([^"]*)"', text) for name in ("picture", "picture_notes")}
    return {name: match[1] if match else "" for name, match in found.items()}


@pytest.mark.parametrize(
    "missing", ["alt", "click_url", "name", "advertiser", "slots"]
)  # a picture of a size that none of the slots has is said so, and is kept, too
def test_an_image_outlives_whatever_else_is_wrong(desk: Desk, sales: Browser, missing: str) -> None:
    """
    A form with a missing field is shown again with its image; sent once more without the file, it is drafted whole.
    """
    files = {"image": ("tide.png", picture(), "image/png")}
    first = sales.post("/console/book", {**BOOKING, missing: ""}, files=files)
    assert first.status_code == 422
    found = kept(first.text)
    assert re.fullmatch(r"[0-9a-f]{32}\.png", found["picture"])
    assert f'src="/console/files/{found["picture"]}"' in first.text
    assert 'id="w-image" role="alert"></span>' in first.text
    assert sales.get("/console/draft").text.count("Tide Swimming") == 0, "nothing is drafted before it is right"

    second = sales.post("/console/book", {**BOOKING, **found})
    assert second.status_code == 303, second.text
    assert "Tide" in sales.get("/console/draft").text
    me = sales.get("/console/me").text
    name = re.search(r"uploads-[0-9]+", me)
    assert name
    draft = desk.ask(lambda store: desks.read_draft(store, name[0], 1))
    [creative], [line_item] = draft.puts.creatives, draft.puts.line_items
    assert (creative.image, creative.alt, creative.size) == (found["picture"], "A swimmer", (300, 250))
    assert line_item.creatives == (creative.id,)


def test_an_image_for_other_places_is_kept_until_they_are_chosen(sales: Browser) -> None:
    """
    It is said beside the image which sizes the chosen places take; with places it fits, it need not be sent again.
    """
    files = {"image": ("wide.png", picture((728, 90)), "image/png")}
    first = sales.post("/console/book", BOOKING, files=files)
    assert first.status_code == 422
    assert "It has 728 × 90 pixels; the places above take" in first.text
    second = sales.post("/console/book", {**BOOKING, **kept(first.text), "slots": "889979"})
    assert second.status_code == 303, second.text


def test_what_could_be_better_of_an_image_is_said(sales: Browser) -> None:
    """
    Its weight, its colours, beside the field while the form is open and once more when it is saved, in both forms.
    """
    files = {"image": ("noise.jpg", noisy(), "image/jpeg")}
    first = sales.post("/console/book", {**BOOKING, "alt": ""}, files=files)
    for page in (first.text, kept(first.text)["picture_notes"]):
        assert "It weighs" in page
        assert "print" in page
    checked = sales.post("/console/book/check", {**BOOKING, "alt": ""}, files=files).json()
    assert any("It weighs" in one for one in checked["notes"])
    assert checked["wrong"].keys() == {"alt"}
    saved = sales.post("/console/book", {**BOOKING, **kept(first.text)})
    assert "It weighs" in sales.get(saved.headers["location"]).text

    fields = {"advertiser": "molenkorst", "kind": "image", "click_url": "https://mill.example/"}
    again = sales.post("/console/creatives/new", fields, files=files)
    assert again.status_code == 422
    assert "It weighs" in again.text
    done = sales.post("/console/creatives/new", {**fields, **kept(again.text), "alt": "Noise"})
    assert done.status_code == 303, done.text
    assert "It weighs" in sales.get(done.headers["location"]).text


def test_a_native_ad_has_an_image_of_any_size(sales: Browser) -> None:
    """
    What belongs to another kind is not looked at, so that nothing hidden can be wrong; its page says it is drafted.
    """
    fields = {"advertiser": "molenkorst", "kind": "native", "title": "Soup", "alt": "A bowl", "size": "12x",
              "html": "<p>left over</p>", "click_url": "https://mill.example/soup"}  # fmt: skip
    files = {"image": ("bowl.png", picture((320, 180)), "image/png")}
    answer = sales.post("/console/creatives/new", fields, files=files)
    assert answer.status_code == 303, answer.text
    page = sales.get(answer.headers["location"]).text
    assert "waits in your draft" in page
    assert "waits in your draft" not in sales.get("/console/creatives/molenkorst-card").text


def test_every_problem_of_a_creative_is_said_at_once_in_words(sales: Browser) -> None:
    """
    Beside its own input, and without a word of the files'.
    """
    answer = sales.post("/console/creatives/new", {"kind": "image", "click_url": "javascript:alert(1)"})
    assert answer.status_code == 422
    for said in (
        "Choose whose creative it is",
        "Choose an image",
        "Say in words what the image shows",
        "no web address",
    ):
        assert said in answer.text
    assert not re.search(r"field &#39;|expected a list|kind &#39;", answer.text)


def test_a_creative_is_looked_at_while_its_booking_is_not_right_yet(desk: Desk) -> None:
    """
    A draft whose booking names a campaign that is gone shows its creative all the same; the article with it says why
    it cannot be shown.
    """
    person = desk.add(f"looks-{time.time_ns()}", "sales")

    async def draft(store: Store) -> None:
        live = await desks.read_live(store)
        item = next(one for one in live.document.line_items if "molenkorst-card" in one.creatives)
        wrong = structs.replace(item, campaign="gone", slots=(SlotId(889990),))
        await desks.write_draft(store, person, drafts.put(Draft(live.number), live.document, "line_items", wrong), "")

    desk.ask(draft)
    answer = desk.sign_in(person).get("/console/creatives/molenkorst-card/framed?slot=889990")
    assert answer.status_code == 200, answer.text
    assert "On the counter this week" in answer.text
    at = datetime.fromtimestamp(time.time() + 86_400, UTC).strftime("%Y-%m-%dT%H:%M")
    article = desk.sign_in(person).get(f"/console/preview/page?at={at}")
    assert article.status_code == 409, article.text
    assert "names what is not there any more" in article.text
    assert "frame-ancestors 'self'" in article.headers["content-security-policy"], "the preview's frame shows it"
