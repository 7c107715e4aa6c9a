"""Consent: what another party's markup needs, from the page and from the reader's browser."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from tests.service.live import Service

TAGGED, PASSES, BOTH = 1001, 1002, 1003
ARTICLE = f'[the_ad id="{TAGGED}"][the_ad id="{PASSES}"]'
TAG = '"zoutmond-hall-ticket-tag"'


def configure(config: Path) -> None:
    """A slot with a tag alone, one that passes back, and one where the tag has a picture beside it."""
    text = ""
    for slot, creatives in (
        (TAGGED, '"zoutmond-hall-ticket-tag"'),
        (BOTH, '"zoutmond-hall-ticket-tag", "hall-picture"'),
    ):
        text += f"""
        [[slot]]
        id = {slot}
        name = "Slot {slot}"
        size = "300x250"
        [[line_item]]
        id = "only-{slot}"
        name = "Only {slot}"
        campaign = "hall"
        priority = "house"
        slots = [{slot}]
        creatives = [{creatives}]
        """
    (config / "consent.toml").write_text(
        text
        + f"""
        [[creative]]
        id = "hall-picture"
        advertiser = "zoutmond-hall"
        kind = "text"
        title = "The last seats"
        click_url = "https://hall.example.com/"
        [[campaign]]
        id = "hall"
        name = "Hall"
        advertiser = "zoutmond-hall"
        [[slot]]
        id = {PASSES}
        name = "Passes back"
        size = "300x250"
        when_empty = "passback"
        passback = "<p>Ask them</p>"
        """
    )


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    service = new_service(configure=configure)
    service.start()
    return service


@pytest.fixture(scope="module")
def http(service: Service) -> httpx.Client:
    return service.http


@pytest.mark.parametrize(
    ("query", "headers", "framed"),
    [
        ("", {}, False),
        ("consent=0", {}, False),
        ("consent=", {}, False),
        ("consent=yes", {}, False),
        ("consent=1", {}, True),
        ("consent=1", {"sec-gpc": "0", "dnt": "0"}, True),
        ("consent=1", {"sec-gpc": "1"}, False),
        ("consent=1", {"dnt": "1"}, False),
        ("consent=1&section=town", {"sec-gpc": "1"}, False),
        ("section=town&consent=1", {}, True),
    ],
)
def test_third_party_markup_needs_consent_on_every_way(
    http: httpx.Client, query: str, headers: dict[str, str], framed: bool
) -> None:
    """
    A tag and a passback show where the page says consent=1 and the browser does not refuse; one slot, several, or a
    whole article, the first time and again.
    """
    for _ in range(2):
        alone = [http.get(f"/ads/{slot}?{query}", headers=headers) for slot in (TAGGED, PASSES)]
        several = http.get(f"/ads?id={TAGGED}&id={PASSES}&{query}", headers=headers).json()["ads"]
        article = http.post(f"/render?{query}", content=ARTICLE, headers={"content-type": "text/html", **headers})
        assert ["<iframe" in one.text for one in alone] == [framed, framed]
        assert ["<iframe" in several[str(slot)]["html"] for slot in (TAGGED, PASSES)] == [framed, framed]
        assert article.text.count("<iframe") == 2 * framed


def test_the_reason_is_said(http: httpx.Client) -> None:
    """
    A slot that stays empty for want of consent says so, and explain says it in a sentence.
    """
    answer = http.get(f"/ads/{TAGGED}")

    assert (answer.status_code, answer.headers["adserver-reason"]) == (204, "consent")
    assert "not consented" in http.get(f"/api/explain/{TAGGED}").json()["sentence"]
    assert http.get(f"/api/explain/{TAGGED}?consent=1").json()["filled"]


def test_explain_and_previews_know_of_no_consent_that_is_not_said(service: Service) -> None:
    """
    The command line takes a page that says nothing, as serving does, or `--consent`; a preview, now or at another
    instant, goes by its own call.
    """
    assert "this reader has not consented" in service.run("explain", str(TAGGED)).stdout
    assert f"Showing *Only {TAGGED}*" in service.run("explain", str(TAGGED), "--consent").stdout
    staff = {"authorization": f"Bearer {(service.data / 'staff-token').read_text().strip()}"}
    for later in (0, 3600):
        at = datetime.fromtimestamp(time.time() + later, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        asked = f"/ads/{TAGGED}?at={at}"
        silent = service.http.get(asked, headers=staff)
        assert (silent.status_code, silent.headers["adserver-reason"]) == (204, "consent")
        assert service.http.get(f"{asked}&consent=1", headers=staff).status_code == 200
        refused = service.http.get(f"{asked}&consent=1", headers={**staff, "sec-gpc": "1"})
        assert (refused.status_code, refused.headers["adserver-reason"]) == (204, "consent")


def test_what_needs_no_consent_shows_instead(http: httpx.Client) -> None:
    """
    Beside a tag the same booking's own picture or words show to readers who have not consented.
    """
    for _ in range(10):
        assert "The last seats" in http.get(f"/ads/{BOTH}").text
    assert any("<iframe" in http.get(f"/ads/{BOTH}?consent=1").text for _ in range(10))
