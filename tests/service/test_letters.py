"""Newsletters: a link and a picture that agree, for everybody, for a day; loads beside clicks, and no impressions."""

import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from adserver.chosen import MOST_A_DAY
from adserver.places import STAYS_S, Place
from adserver.report import FIGURES
from adserver.tracking import GIF
from tests.service.live import Service, client, eventually
from tests.service.test_outage import RedisServer

HOME = "https://www.example.com/"
SLOT = 889988
BOX = 889990
UNSPONSORED = 889994


class Pair(HTMLParser):
    """A mail's snippet as a mail reader sees it: where its link leads, and its picture."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.link = self.picture = self.alt = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag == "a" and not self.link:
            self.link = found["href"]
        elif tag == "img":
            self.picture, self.alt = found["src"], found["alt"]


def picture(http: httpx.Client, path: str) -> bytes:
    answer = http.get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"].startswith("image/")
    return answer.content


def target(http: httpx.Client, path: str) -> str:
    answer = http.get(path)
    assert answer.status_code == 302
    return str(answer.headers["location"])


def put(service: Service, place: Place, ad: bytes, since: float) -> None:
    """Have the store remember a place, as if somebody had asked for it at that instant."""
    with service.redis() as store:
        store.set(f"as:{{letters}}:{place.key.hex()}", int(since).to_bytes(4) + ad, ex=3600)


def kept(service: Service, place: Place) -> bytes:
    """The ad that the store has for a place; empty when it knows none."""
    with service.redis() as store:
        value = store.get(f"as:{{letters}}:{place.key.hex()}")
    return bytes(value[4:]) if isinstance(value, bytes) else b""


def test_a_snippet_is_a_pair_of_addresses(service: Service) -> None:
    """
    A link around a picture, both absolute and both of the same place; no pixel, no script, no token.
    """
    answer = service.http.get(f"/ads/{BOX}?format=email&issue=pair")
    pair = Pair(answer.text)

    assert pair.tags == ["small", "br", "a", "img"]
    assert pair.link == f"{service.url}/e/{BOX}/pair/1"
    assert pair.picture == f"{pair.link}.img"
    assert pair.alt
    assert target(service.http, pair.link) != HOME
    assert picture(service.http, pair.picture) != GIF


def test_everybody_sees_the_same_ad_whichever_worker_they_ask(service: Service) -> None:
    """
    Of thirty issues each has one picture and one link, in both workers, asked in any order; and they differ among
    each other.
    """
    seen = set()
    with service.each_worker() as workers:
        for n in range(30):
            first, second = workers.values() if n % 2 else reversed(workers.values())
            here = picture(first, f"/e/{BOX}/all-{n}/1.img"), target(second, f"/e/{BOX}/all-{n}/1")
            there = picture(second, f"/e/{BOX}/all-{n}/1.img"), target(first, f"/e/{BOX}/all-{n}/1")
            snippet = Pair(first.get(f"/ads/{BOX}?format=email&issue=all-{n}").text)
            assert here == there
            assert picture(first, snippet.picture) == here[0]
            seen.add(here)
    assert len(seen) > 1


def test_those_who_ask_first_at_the_same_moment_are_told_the_same(service: Service) -> None:
    """
    Twenty readers open a mail that nobody has opened before, all at once, in both workers: one ad; and ten mails so.
    """
    with ThreadPoolExecutor(20) as readers:
        for n in range(10):
            path = f"/e/{BOX}/rush-{n}/1"
            asked = [f"{path}.img" if one % 2 else path for one in range(20)]
            answers = list(readers.map(service.http.get, asked))
            assert len({answer.content for answer in answers[1::2]}) == 1
            assert len({answer.headers["location"] for answer in answers[::2]}) == 1


def test_picture_and_link_are_of_one_advertiser(service: Service) -> None:
    """
    What is seen is what a click leads to: the destination is that of the creative whose picture it is.
    """
    for n in range(10):
        snippet = service.http.get(f"/ads/{BOX}?format=email&issue=one-{n}").text
        entry = service.http.get(f"/ads?id={BOX}&format=email&issue=one-{n}").json()["ads"][str(BOX)]
        assert entry["html"] == snippet
        text = "".join(path.read_text() for path in service.config.glob("*.toml"))
        block = next(one for one in text.split("[[") if f'id = "{entry["creative"]}"' in one)
        image = (service.config / re.search(r'image = "(.*?)"', block)[1]).read_bytes()  # type: ignore[index]
        assert picture(service.http, f"/e/{BOX}/one-{n}/1.img") == image
        assert target(service.http, f"/e/{BOX}/one-{n}/1") == re.search(r'click_url = "(.*?)"', block)[1]  # type: ignore[index]


SPONSOR = f"""
[[line_item]]
id = "sponsor"
name = "Sponsor"
campaign = "house"
priority = "sponsorship"
share = 100
slots = [{UNSPONSORED}]
creatives = ["sponsor"]
[[creative]]
id = "sponsor"
advertiser = "courier"
kind = "image"
size = "300x250"
image = "assets/courier-ask-300x250.png"
alt = "Ask"
click_url = "https://sponsor.example/"
"""


def winner(http: httpx.Client) -> str:
    """Whose ad a page gets in the slot now."""
    return str(http.get(f"/ads?id={UNSPONSORED}").json()["ads"][str(UNSPONSORED)]["line_item"])


def test_an_ad_stays_when_the_catalog_changes(service: Service) -> None:
    """
    A sponsor who takes the whole slot has all new issues and none of those that are out, in either worker.
    """
    asked = [f"/e/{UNSPONSORED}/stays-{n}/1" for n in range(12)]
    before = [(target(service.http, path), picture(service.http, f"{path}.img")) for path in asked]
    booking = service.config / "sponsor.toml"
    booking.write_text(SPONSOR)
    service.run("apply", str(service.config))
    try:
        with service.each_worker() as workers:
            for n, http in enumerate(workers.values()):
                eventually(lambda http=http: winner(http) == "sponsor", 10, "the sponsor")  # type: ignore[misc]
                assert [(target(http, path), picture(http, f"{path}.img")) for path in asked] == before
                assert target(http, f"/e/{UNSPONSORED}/sponsored-{n}/1") == "https://sponsor.example/"
    finally:
        booking.unlink()
        service.run("apply", str(service.config))
    sponsored = f"/e/{UNSPONSORED}/sponsored-0/1"
    eventually(lambda: picture(service.http, f"{sponsored}.img") == GIF, 10, "the end of it")
    assert target(service.http, sponsored) == "https://sponsor.example/"


def test_loads_and_clicks_are_counted_and_impressions_are_not(service: Service) -> None:
    """
    Each fetch of the picture is a load, each follow of the link by a reader a click; a look at the headers is
    neither, and a robot's click stands apart. Reports say so on the command line, by the API, by slot and line item.
    """
    path = f"/e/{BOX}/counts/1"
    before = eventually(service.settled, 10, "counts")
    for _ in range(5):
        picture(service.http, f"{path}.img")
    assert service.http.head(f"{path}.img").status_code == 200
    for _ in range(3):
        assert "adserver-ignored" not in service.http.get(path).headers
    assert service.http.head(path).headers["adserver-ignored"] == "method"
    robot = {"user-agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}
    assert service.http.get(path, headers=robot).headers["adserver-ignored"] == "bot"

    def gained() -> dict[str, int]:
        now = service.settled() or before
        return {name: now[name] - before[name] for name in now}

    expected = {**dict.fromkeys(FIGURES, 0), "clicks": 3, "loads": 5}
    eventually(lambda: gained() == expected, 10, f"{expected}")
    assert sum(row["loads"] for row in service.report("line_item")) == service.counts()["loads"]
    row = next(row for row in service.report() if row["slot"] == BOX)
    assert row["loads"] >= 5
    assert row["invalid"]["bot"] == 1
    table = service.run("report").stdout.splitlines()
    assert table[2].split()[:8] == ["slot", *FIGURES]


def test_a_template_that_asks_for_a_snippet_is_served(service: Service) -> None:
    """
    The call is a request and what it got was served; that the mail is then opened is neither.
    """
    before = eventually(service.settled, 10, "counts")
    snippet = service.http.get(f"/ads/{BOX}?format=email&issue=served").text
    picture(service.http, Pair(snippet).picture)

    expected = {**dict.fromkeys(FIGURES, 0), "requests": 1, "served": 1, "loads": 1}
    eventually(
        lambda: {name: n - before[name] for name, n in (service.settled() or before).items()} == expected, 10, "it"
    )


def test_a_day_later_there_is_nothing_and_the_link_leads_home(service: Service) -> None:
    """
    Until 24 hours after the first who asked the ad stays; from then on the picture is a transparent pixel, and the
    link leads to the site's home page and is no click.
    """
    ad = kept_of_a_place(service)
    young, old = Place(BOX, "young", 1), Place(BOX, "old", 1)
    put(service, young, ad, time.time() - STAYS_S + 120)
    put(service, old, ad, time.time() - STAYS_S - 1)
    before = eventually(service.settled, 10, "counts")

    assert picture(service.http, f"/e/{young.path}.img") != GIF
    assert target(service.http, f"/e/{young.path}") != HOME
    assert picture(service.http, f"/e/{old.path}.img") == GIF
    assert target(service.http, f"/e/{old.path}") == HOME
    again = service.http.get(f"/ads/{BOX}?format=email&issue=old")
    assert (again.status_code, again.headers["adserver-reason"]) == (204, "not-live")
    eventually(lambda: (service.settled() or before)["clicks"] == before["clicks"] + 1, 10, "one click")
    assert service.counts()["loads"] == before["loads"] + 1


def kept_of_a_place(service: Service) -> bytes:
    """The key of an ad that has a picture."""
    picture(service.http, f"/e/{BOX}/some/1.img")
    found = kept(service, Place(BOX, "some", 1))
    assert len(found) == 7
    return found


def test_an_ad_that_is_taken_off_is_shown_no_more(service: Service) -> None:
    """
    A place whose ad is not in the live version any more has a transparent pixel; nothing else takes its place.
    """
    gone = Place(BOX, "gone", 1)
    put(service, gone, b"\1" * 7, time.time())

    assert picture(service.http, f"/e/{gone.path}.img") == GIF
    assert target(service.http, f"/e/{gone.path}") == HOME
    assert service.http.get(f"/ads/{BOX}?format=email&issue=gone").status_code == 204


def test_a_paused_booking_is_not_shown_and_its_link_still_leads_to_it(service: Service) -> None:
    """
    A pause takes its picture off mails that are out; who has it before them, in a copy, gets where it led.
    """
    place = Place(BOX, "paused", 1)
    snippet = service.http.get(f"/ads?id={BOX}&format=email&issue=paused").json()["ads"][str(BOX)]
    before = target(service.http, f"/e/{place.path}")
    pause = service.config / "pause.toml"
    pause.write_text(
        f'[[pause]]\nid = "now"\nline_item = "{snippet["line_item"]}"\n'
        "starts = 2026-01-01T00:00:00Z\nends = 2099-01-01T00:00:00Z\n"
    )
    service.run("apply", str(service.config))
    try:
        with service.each_worker() as workers:
            for http in workers.values():
                eventually(lambda http=http: picture(http, f"/e/{place.path}.img") == GIF, 10, "the pause")  # type: ignore[misc]
                assert target(http, f"/e/{place.path}") == before
        answer = service.http.get(f"/ads/{BOX}?format=email&issue=paused")
        assert answer.headers["adserver-reason"] == "paused"
    finally:
        pause.unlink()
        service.run("apply", str(service.config))
    eventually(lambda: picture(service.http, f"/e/{place.path}.img") != GIF, 10, "it to show again")


def test_places_of_an_issue_are_numbered(service: Service) -> None:
    """
    An article that names a slot twice gets two places; a template says by `index` which one it asks for.
    """
    article = f'<p>[the_ad id="{BOX}"]</p><p>[the_ad id="{BOX}"]</p><p>[the_ad id="889991"]</p>'
    answer = service.http.post(
        "/render?format=email&issue=numbers&index=4", content=article, headers={"content-type": "text/html"}
    )
    places = re.findall(r'<a href="[^"]*?/e/([^"]+)"', answer.text)  # an ad of words has a link and no picture

    assert answer.headers["adserver-filled"] == "3"
    assert places == [f"{BOX}/numbers/4", f"{BOX}/numbers/5", "889991/numbers/4"]
    assert len({target(service.http, f"/e/{place}") for place in places}) == 3, "no ad twice"
    other = service.http.get(f"/ads/{BOX}?format=email&issue=numbers&index=5").text
    assert other in answer.text


def test_without_an_issue_it_is_the_days(service: Service) -> None:
    """
    A template that names no issue gets the one of the newsroom's date, and a group its slot's place.
    """
    snippet = service.http.get(f"/ads/{BOX}?format=email").text
    assert re.search(rf"/e/{BOX}/\d{{4}}-\d\d-\d\d/1\.img", snippet)
    entry = service.http.get("/ads?id=group:side-rail&format=email").json()["ads"]["group:side-rail"]
    assert re.search(r"/e/88998\d/\d{4}-\d\d-\d\d/1", entry["html"])


def test_words_may_stand_for_a_picture(new_service: Callable[..., Service]) -> None:
    """
    A text creative is words around its place's link; its picture's address has nothing to show. A pair that is
    written by hand never gets one.
    """

    def only_words(config: Path) -> None:
        for path in config.glob("*.toml"):
            if path.name not in ("site.toml", "slots.toml"):
                path.unlink()
        (config / "words.toml").write_text("""
            [[advertiser]]
            id = "hall"
            name = "Hall"
            [[campaign]]
            id = "hall"
            name = "Hall"
            advertiser = "hall"
            [[creative]]
            id = "words"
            advertiser = "hall"
            kind = "text"
            title = "A concert"
            click_url = "https://hall.example/"
            [[line_item]]
            id = "hall"
            name = "Hall"
            campaign = "hall"
            priority = "standard"
            slots = [889990]
            creatives = ["words"]
        """)

    service = new_service(workers=1, configure=only_words)
    service.start()
    snippet = service.http.get(f"/ads/{BOX}?format=email&issue=words").text

    assert f'<a href="{service.url}/e/{BOX}/words/1"' in snippet
    assert "<strong>A concert</strong>" in snippet
    assert target(service.http, f"/e/{BOX}/words/1") == "https://hall.example/"
    assert picture(service.http, f"/e/{BOX}/words/1.img") == GIF
    assert picture(service.http, f"/e/{BOX}/by-hand/1.img") == GIF
    assert target(service.http, f"/e/{BOX}/by-hand/1") == HOME
    service.stop()


@pytest.mark.parametrize(
    "path",
    ["/e/1/spring/1", "/e/889990/Spring/1", "/e/889990/spring/0", "/e/889990/spring", "/e/889990/%2e%2e/1.img",
     "/e/%EF%BC%98/spring/1.img", "/e/889990/" + "a" * 41 + "/1.img", "/e/0x1/spring/1"],
)  # fmt: skip
def test_what_is_no_place_is_told_so_and_remembered_nowhere(service: Service, path: str) -> None:
    """
    404 in words, nothing of it echoed, and no key in the store.
    """
    with service.redis() as store:
        before = store.dbsize()
        answer = service.http.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert "/e/889990/2026-03-10-evening/1" in answer.json()["detail"]
        assert store.dbsize() == before


def test_invented_issues_fill_no_store(service: Service) -> None:
    """
    Once as many places as a day may have are remembered, further ones are not; picture and link agree all the same.
    """
    path = f"/e/{BOX}/invented/1"
    day = f"as:{{letters}}:day:{int(time.time()) // 86_400}"
    with service.redis() as store:
        used = store.get(day)
        store.set(day, MOST_A_DAY)
        try:
            with service.each_worker() as workers:
                assert len({(picture(http, f"{path}.img"), target(http, path)) for http in workers.values()}) == 1
                snippet = Pair(service.http.get(f"/ads/{BOX}?format=email&issue=invented").text)
                assert picture(service.http, snippet.picture) == picture(service.http, f"{path}.img") != GIF
            assert kept(service, Place(BOX, "invented", 1)) == b""
        finally:
            store.set(day, used or 0)


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.mark.system
def test_two_machines_and_an_outage(external: RedisServer, new_service: Callable[..., Service]) -> None:
    """
    Services on two machines show the same, also while the store is away: by what they remember, and what they do not
    know by the catalog alone. When it is back, what readers were shown before it went still stands.
    """
    here, there = (new_service(workers=1, environ={"ADSERVER_REDIS_URL": external.url}) for _ in range(2))
    here.start()
    shutil.copytree(here.data, there.data, ignore=shutil.ignore_patterns("journal*", "valkey"), dirs_exist_ok=True)
    there.start()
    old = [f"/e/{BOX}/old-{n}/1" for n in range(8)]
    new = [f"/e/{BOX}/new-{n}/1" for n in range(8)]

    def seen(service: Service, paths: list[str]) -> list[tuple[str, bytes]]:
        with client(service.url, keep=True) as http:
            return [(target(http, path), picture(http, f"{path}.img")) for path in paths]

    before = seen(here, old)
    assert seen(there, old) == before
    external.signal(signal.SIGKILL)

    assert seen(here, old) == before
    away = seen(here, new)
    assert seen(there, new) == away
    assert all(shown != GIF for _, shown in away)
    assert here.http.get(f"/ads/{BOX}?format=email&issue=new-0").status_code == 200

    external.start()
    eventually(lambda: here.http.get("/readyz").json()["status"] == "ok", 15, "readiness")
    assert seen(there, old) == seen(here, old) == before
    for service in (here, there):
        service.stop()
