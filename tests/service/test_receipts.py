"""Receipts on a running service: any ad that was served can be decided again, whatever was published since."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from adserver.receipts import decision_id
from tests.service.live import Service, eventually, tokens


def configure(config: Path) -> None:
    path = config / "advertiser-kadefiets.toml"
    path.write_text(path.read_text() + BOOKING)


BOOKING = """
[[line_item]]
id = "twenty"
name = "Twenty"
campaign = "kadefiets-electric"
priority = "standard"
slots = [889984]
creatives = ["kadefiets-electric-160x600"]
goal = { impressions = 20 }
pacing = "asap"
"""


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    service = new_service(configure=configure, environ={"ADSERVER_RECEIPTS_PER_SECOND": "10000"})
    service.start()
    return service


def served(html: str) -> list[tuple[str, str]]:
    """Each snippet's token and line item."""
    items = re.findall('data-line-item="([^"]+)"', html)
    return list(zip(tokens(html), items, strict=True))


def kept(service: Service, token: str) -> dict[str, object]:
    """What `receipt --json` says, as soon as it is written."""
    done = eventually(
        lambda: done if (done := service.run("receipt", token, "--json", code=None)).returncode == 0 else None, 10
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def winners(found: dict[str, object]) -> list[str]:
    return [one["line_item"] for one in found["decisions"] if one["filled"]]  # type: ignore[attr-defined]


def test_what_was_served_is_decided_again(service: Service) -> None:
    """
    One slot, several, an article, a page that says what it is: the same winners, by token, id, or the snippet itself.
    """
    pages = [service.http.get("/ads/889984").text for _ in range(4)]
    pages += [service.http.get("/ads/889991?section=business").text, service.http.get("/ads/889990?format=amp").text]
    entries = service.http.get("/ads?id=889990&id=889991&section=travel").json()["ads"]
    pages.append("".join(one["html"] for one in entries.values()))
    article = '[the_ad id="889990"] and [the_ad_group id="side-rail"] and [the_ad id="889992"]'
    pages.append(service.http.post("/render", content=article, headers={"content-type": "text/html"}).text)
    for html in pages:
        found = tokens(html)
        if not re.findall("data-line-item", html):
            assert kept(service, found[0])["same"]
            continue
        first = served(html) if html.count("data-line-item") == len(found) else [(found[0], "")]
        for token, name in first:
            receipt = kept(service, token)
            assert receipt["same"]
            assert not name or name in winners(receipt)
    by_id = service.run("receipt", decision_id(tokens(pages[0])[0])).stdout
    assert "Decided again: the same." in by_id
    assert service.run("receipt", pages[0]).stdout == by_id


def test_a_receipt_outlives_what_is_published_and_restarts(service: Service) -> None:
    """
    It is decided by the catalog of then; a goal's share of then is known; after a kill and a start it is still there.
    """
    html = eventually(
        lambda: html if 'data-line-item="twenty"' in (html := service.http.get("/ads/889984").text) else None, 10
    )
    [(token, _)] = served(html)
    before = kept(service, token)
    path = service.config / "advertiser-kadefiets.toml"
    path.write_text(path.read_text().replace(BOOKING, ""))
    service.run("apply", str(service.config))
    service.kill()
    service.start()
    after = kept(service, token)
    assert after == before
    assert winners(after) == ["twenty"]


def test_what_is_not_kept_is_said(service: Service, new_service: Callable[..., Service]) -> None:
    """
    Nonsense, and a token of somewhere else; with receipts off none is written.
    """
    assert "expected a decision's id of 16 characters" in service.run("receipt", "what", code=1).stderr
    said = service.run("receipt", "A" * 48, code=1).stderr
    assert "no receipt is kept of it" in said
    assert "only seconds ago and is not written yet" in said
    off = new_service(workers=1, environ={"ADSERVER_RECEIPT_DAYS": "0"})
    off.start()
    token = off.token()
    off.stop()
    assert not (off.data / "receipts").exists()
    assert len(token) == 48


def test_a_receipt_takes_little_room(service: Service) -> None:
    """
    Below 60 bytes a decision on disk.
    """

    def size() -> int:
        return sum(path.stat().st_size for path in (service.data / "receipts").iterdir())

    written = "adserver_receipts_total"
    before, room = service.metric(written), size()
    for n in range(300):
        service.http.get(f"/ads/{889977 + n % 18}")
    eventually(lambda: service.metric(written) >= before + 300, 10, "the receipts")
    assert size() - room < 60 * (service.metric(written) - before)
