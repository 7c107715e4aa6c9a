"""Tracking: every event is counted once, and only if it is genuine, in time and a reader's."""

import base64
import time
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from adserver.report import EVENT_FIGURES
from adserver.token import Keys, Mint, parse_keys, verify
from tests.service.live import BROWSER, Service, client, eventually, tokens

KEY = "7 " + "5a" * 32
GIF_HEAD = b"GIF89a\x01\x00\x01\x00"
IMPRESSION, VIEWABLE, CLICK = 1, 2, 4
HOME = "https://www.example.com/"


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("k") / "keys"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service], secret: Path) -> Service:
    """Four workers that sign with a key the tests know."""
    service = new_service(workers=4, environ={"ADSERVER_SECRET_FILE": str(secret)})
    service.start()
    return service


@pytest.fixture
def http(service: Service) -> httpx.Client:
    return service.http


def keys() -> Keys:
    return parse_keys(KEY)


def destination(service: Service, html: str) -> str:
    """The click URL of the creative that *html* shows, as its configuration has it."""
    name = html.partition('data-creative="')[2].partition('"')[0]
    tables = [tomllib.loads(path.read_text()) for path in service.config.glob("*.toml")]
    return str(next(row["click_url"] for table in tables for row in table.get("creative", ()) if row["id"] == name))


def minted(like: str, *, ago_s: float = 0, allowed: int = 7, signed: Keys | None = None, serial: int = 0) -> str:
    """A token for the same ad as *like*, by an issuer that does not exist."""
    genuine = verify(keys(), like.encode())
    mint = Mint(signed or keys(), b"tests")
    mint.next_serial = serial
    return mint.token(genuine.ad, genuine.day, time.time() - ago_s, allowed).decode()


def invalid(service: Service, reason: str) -> int:
    return sum(row["invalid"].get(reason, 0) for row in service.http.get("/api/report").json()["rows"])


# Counting once


def test_pixel_is_a_gif_that_counts_one_impression(service: Service) -> None:
    """
    Fetching the pixel answers a 1x1 GIF that nobody stores, and the report shows one impression.
    """
    before = service.row(889990)

    answer = service.http.get(f"/i/{service.token(889990)}")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/gif"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.startswith(GIF_HEAD)
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert "adserver-ignored" not in answer.headers
    after = service.row(889990)
    assert after["impressions"] - before["impressions"] == 1
    assert (after["viewables"], after["clicks"]) == (before["viewables"], before["clicks"])


def test_pixel_fetched_fifty_times_counts_one(service: Service) -> None:
    """
    A token counts one impression however often its pixel is fetched: 49 are ignored as duplicate.
    """
    token = service.token(889991)
    before, ignored = service.row(889991), service.metric('adserver_events_rejected_total{reason="duplicate"}')

    answers = [service.http.get(f"/i/{token}") for _ in range(50)]

    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    said = [answer.headers.get("adserver-ignored") for answer in answers]
    assert said == [None, *["duplicate"] * 49]
    assert {row["slot"]: row for row in service.report()}[889991]["impressions"] - before["impressions"] == 1
    metric = 'adserver_events_rejected_total{reason="duplicate"}'
    eventually(lambda: service.metric(metric) - ignored == 49, 10, "the metric")


def test_fifty_at_once_on_four_workers_count_one(service: Service) -> None:
    """
    The same token on all workers in the same moment counts once; what no worker knew of, the store recognises.
    """
    repeats = 'adserver_events_rejected_total{reason="duplicate"}', "adserver_ship_repeats_total"
    token = service.token(889992)
    before, ignored = service.row(889992), sum(service.metric(name) for name in repeats)

    with service.each_worker() as workers, ThreadPoolExecutor(50) as pool:
        assert len(workers) == 4
        https = list(workers.values())
        answers = list(pool.map(lambda n: https[n % 4].get(f"/i/{token}"), range(50)))

    assert {answer.status_code for answer in answers} == {200}
    assert sum("adserver-ignored" not in answer.headers for answer in answers) <= 4
    assert service.row(889992)["impressions"] - before["impressions"] == 1
    eventually(lambda: sum(service.metric(name) for name in repeats) - ignored == 49, 5, "49 repeats")


def test_the_events_of_a_token_count_apart(service: Service) -> None:
    """
    One token stands for one of each event, in any order, by GET or by POST.
    """
    token = service.token(889993)
    before = service.row(889993)
    http = service.http

    answers = [
        http.get(f"/c/{token}"),
        http.post(f"/v/{token}"),
        http.post(f"/i/{token}"),
        http.post(f"/m/{token}"),
        http.get(f"/c/{token}"),
        http.post(f"/v/{token}"),
        http.get(f"/i/{token}"),
        http.post(f"/m/{token}"),
    ]

    assert [answer.status_code for answer in answers] == [302, 204, 204, 204, 302, 204, 200, 204]
    assert [answer.headers.get("adserver-ignored") for answer in answers] == [None] * 4 + ["duplicate"] * 4
    assert all(answer.headers["cache-control"] == "no-store" for answer in answers)
    after = service.row(889993)
    assert [after[figure] - before[figure] for figure in EVENT_FIGURES] == [1, 1, 1, 1]


def test_each_ad_of_a_page_counts_by_its_own_token(service: Service) -> None:
    """
    The six pixels of an article count one impression each, in their own slots.
    """
    slots = (889990, 889991, 889992, 889977, 889994, 889993)
    article = "".join(f'[the_ad id="{slot}"]' for slot in slots)
    before = {row["slot"]: row["impressions"] for row in service.report()}
    page = service.http.post("/render", content=article, headers={"content-type": "text/plain"}).text

    for token in tokens(page):
        assert service.http.get(f"/i/{token}").status_code == 200

    after = {row["slot"]: row["impressions"] for row in service.report()}
    assert {slot: after[slot] - before[slot] for slot in after if after[slot] != before[slot]} == dict.fromkeys(
        slots, 1
    )


# Clicks


def test_click_goes_to_the_creatives_own_destination(service: Service) -> None:
    """
    A click is 302 to exactly the URL that the configuration has for the creative.
    """
    html = service.http.get("/ads/889990").text

    answer = service.http.get(f"/c/{tokens(html)[0]}")

    assert answer.status_code == 302
    assert answer.headers["location"] == destination(service, html)


@pytest.mark.parametrize(
    "suffix",
    [
        "?dest=https://evil.example", "?ct0=https%3A%2F%2Fevil.example", "?redirect=//evil.example", "?//evil.example",
        "?url=https://evil.example&u=javascript:alert(1)", "?dest[]=https://evil.example", "?utm_source=x", "?&&=&",
        "?dest=%0d%0aSet-Cookie:%20a=b", "?oadest=https://evil.example", "?x=%22%3E%3Cscript%3E",
    ],
)  # fmt: skip
def test_nothing_in_the_url_changes_a_clicks_destination(service: Service, suffix: str) -> None:
    """
    Parameters are ignored: the destination is the creative's own, whole and unextended.
    """
    html = service.http.get("/ads/889977").text

    answer = service.http.get(f"/c/{tokens(html)[0]}{suffix}")

    assert answer.status_code == 302
    assert answer.headers["location"] == destination(service, html)
    assert "evil" not in str(answer.headers)
    assert "adserver-ignored" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/c/https://evil.example", "/c//evil.example", "/c/%2f%2fevil.example", "/c/\\evil.example", "/c/"]
)
def test_click_without_a_genuine_token_goes_home(http: httpx.Client, path: str) -> None:
    """
    What is no token of ours leads to the site's own home page.
    """
    answer = http.get(path)

    assert answer.status_code == 302
    assert answer.headers["location"] == HOME
    assert answer.headers["adserver-ignored"] == "malformed"


def test_click_that_is_late_still_arrives(service: Service) -> None:
    """
    A genuine token that is too old to count still takes the reader to the creative.
    """
    html = service.http.get("/ads/889990").text
    late = minted(tokens(html)[0], ago_s=5 * 3600)

    answer = service.http.get(f"/c/{late}")

    assert answer.status_code == 302
    assert answer.headers["location"] == destination(service, html)
    assert answer.headers["adserver-ignored"] == "expired"


def test_click_without_token_and_home_page_is_404_without_a_link(new_service: Callable[..., Service]) -> None:
    """
    A site that has set no home page answers a forged click with a page that links nowhere.
    """

    def without_home(config: Path) -> None:
        site = config / "site.toml"
        site.write_text("\n".join(line for line in site.read_text().splitlines() if not line.startswith("home_url")))

    service = new_service(workers=1, configure=without_home)
    service.start()
    answer = service.http.get(f"/c/{'A' * 48}")
    service.stop()

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert "href" not in answer.text
    assert "http" not in answer.text
    assert "location" not in answer.headers


# Tokens that do not count


def spellings(token: str) -> dict[str, str]:
    """*token* in forms that are not its own."""
    raw = base64.urlsafe_b64decode(token)
    return {
        "padded": token + "=",
        "percent-padded": token + "%3D%3D",
        "extended": token + "A",
        "twice": token * 2,
        "other case": token.swapcase(),
        "hex": raw.hex(),
        "re-encoded": base64.b64encode(raw + b"\0").decode().replace("/", "%2F"),
        "blank after": token + "%20",
        "line end after": token + "/",
        "dot after": token + ".gif",
        "slash before": "/" + token,
        "fullwidth": "".join(chr(ord(c) + 0xFEE0) for c in token[:2]) + token[2:],
        "percent-encoded": f"%{ord(token[0]):02X}" + token[1:],
    }


@pytest.mark.parametrize("form", list(spellings("A" * 48)))
def test_token_has_one_spelling(service: Service, form: str) -> None:
    """
    Any other way to write a genuine token is not that token.
    """
    token = service.token()

    answer = service.http.get(f"/i/{spellings(token)[form]}")

    assert answer.status_code == 200
    assert answer.headers["adserver-ignored"] in ("malformed", "forged")
    assert service.http.get(f"/i/{token}").headers.get("adserver-ignored") is None


def test_truncated_token_does_not_count(service: Service) -> None:
    """
    A token cut anywhere gets the usual answer and counts nothing.
    """
    token = service.token()
    before = service.counts()
    with service.connection() as http:
        for length in range(48):
            for answer in (
                http.get(f"/i/{token[:length]}"),
                http.post(f"/m/{token[:length]}"),
                http.post(f"/v/{token[:length]}"),
            ):
                assert answer.status_code in (200, 204)
                assert answer.headers["adserver-ignored"] == "malformed"
    assert service.counts() == before


def test_flipped_bit_makes_a_token_a_forgery(service: Service) -> None:
    """
    Each single bit of a token is under its signature: flipped, it counts nothing and a click with it goes home.
    """
    raw = base64.urlsafe_b64decode(service.token())
    before = service.counts()
    with service.connection() as http:
        for bit in range(len(raw) * 8):
            flipped = bytearray(raw)
            flipped[bit // 8] ^= 1 << bit % 8
            token = base64.urlsafe_b64encode(flipped).decode()
            assert http.get(f"/i/{token}").headers["adserver-ignored"] == "forged"
            if bit % 16 == 0:
                assert http.get(f"/c/{token}").headers["location"] == HOME
    assert service.counts() == before


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ago_s": 5 * 3600}, "expired"),
        ({"ago_s": -600}, "future"),
        ({"signed": parse_keys("7 " + "5b" * 32)}, "forged"),
        ({"signed": parse_keys("8 " + "5a" * 32)}, "forged"),
        ({"allowed": VIEWABLE | CLICK}, "not-allowed"),
        ({"allowed": 0}, "not-allowed"),
    ],
    ids=["expired", "future", "other key", "other key id", "other event", "no event"],
)
def test_token_that_is_not_good_for_the_event_does_not_count(
    service: Service, options: dict[str, object], reason: str
) -> None:
    """
    A token of another time, another key or another event gets the usual answer, and its reason is counted.
    """
    token = minted(service.token(), serial=77, **options)  # type: ignore[arg-type]
    name = f'adserver_events_rejected_total{{reason="{reason}"}}'
    before, rejected = service.counts(), service.metric(name)

    answers = [service.http.get(f"/i/{token}"), service.http.post(f"/i/{token}")]

    assert [answer.status_code for answer in answers] == [200, 204]
    assert [answer.headers["adserver-ignored"] for answer in answers] == [reason] * 2
    assert service.counts() == before
    eventually(lambda: service.metric(name) - rejected == 2, 10, "the metric")


def test_token_of_another_issuer_counts(service: Service) -> None:
    """
    A genuine token counts on whichever service shares the key, also one minted elsewhere.
    """
    before = service.counts()
    token = minted(service.token(), serial=1000)

    assert "adserver-ignored" not in service.http.get(f"/i/{token}").headers

    assert service.counts()["impressions"] - before["impressions"] == 1


def test_refused_tokens_leave_no_trace_of_themselves(service: Service) -> None:
    """
    What is wrong with a token is counted under a closed list of reasons and never echoed.
    """
    answer = service.http.get("/i/PEPPERMINT")

    assert "PEPPERMINT" not in str(answer.headers)
    assert "PEPPERMINT" not in service.http.get("/metrics").text
    assert "PEPPERMINT" not in service.log()


# Readers only

ROBOTS = [
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        *(({"user-agent": name}, "bot") for name in ROBOTS),
        ({"user-agent": ""}, "no-user-agent"),
        ({"sec-purpose": "prefetch"}, "prefetch"),
        ({"sec-purpose": "prefetch;prerender"}, "prefetch"),
        ({"sec-purpose": "Prefetch"}, "prefetch"),
        ({"purpose": "prefetch"}, "prefetch"),
        ({"x-purpose": "preview"}, "prefetch"),
        ({"x-moz": "prefetch"}, "prefetch"),
    ],
)
def test_what_is_no_reader_is_filed_beside_the_count(service: Service, headers: dict[str, str], reason: str) -> None:
    """
    Robots, prefetches and nameless clients are answered as usual and counted under their reason alone.
    """
    before, filed = service.counts(), invalid(service, reason)
    first, second = service.token(), service.token()
    http = service.http

    answers = [
        http.get(f"/i/{first}", headers=headers),
        http.post(f"/v/{first}", headers=headers),
        http.get(f"/c/{first}", headers=headers),
        http.post(f"/i/{second}", headers=headers),
    ]

    assert [answer.status_code for answer in answers] == [200, 204, 302, 204]
    assert [answer.headers["adserver-ignored"] for answer in answers] == [reason] * 4
    after = service.counts()
    assert [after[name] - before[name] for name in ("impressions", "viewables", "clicks")] == [0, 0, 0]
    assert invalid(service, reason) - filed == 4


def test_a_prefetch_takes_no_event_from_its_reader(service: Service) -> None:
    """
    What a browser fetches ahead is filed once, however often and by whichever worker, and uses nothing up: the reader
    who then sees the ad, and follows it, is counted. What is fetched ahead after that is a repeat.
    """
    before, filed = service.counts(), invalid(service, "prefetch")
    token = service.token()
    ways = [("GET", f"/i/{token}"), ("POST", f"/m/{token}"), ("POST", f"/v/{token}"), ("GET", f"/c/{token}")]

    said: list[list[str | None]] = []
    for purpose in ("prefetch;prerender", "prefetch;prerender", "", "", "prefetch"):
        headers = {"sec-purpose": purpose} if purpose else {}
        answers = [service.http.request(method, path, headers=headers) for method, path in ways]
        said.append([answer.headers.get("adserver-ignored") for answer in answers])

    assert said == [[one] * 4 for one in ("prefetch", "duplicate", None, "duplicate", "duplicate")]
    after = service.counts()
    assert [after[name] - before[name] for name in EVENT_FIGURES] == [1] * len(EVENT_FIGURES)
    assert invalid(service, "prefetch") - filed == 4


def test_client_without_a_user_agent_is_not_counted(service: Service) -> None:
    """
    A beacon that sends no User-Agent at all is filed as such.
    """
    request = f"GET /i/{service.token()} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    answer = service.raw(request.encode())

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nadserver-ignored: no-user-agent\r\n" in answer


@pytest.mark.parametrize(
    "fetch", [{}, {"sec-fetch-dest": "image", "sec-fetch-site": "cross-site"}, {"dnt": "1", "sec-gpc": "1"}]
)
def test_ordinary_browser_is_counted(service: Service, fetch: dict[str, str]) -> None:
    """
    A reader's browser counts, also on another site's page and with privacy signals.
    """
    answer = service.http.get(f"/i/{service.token()}", headers={"user-agent": BROWSER, **fetch})

    assert "adserver-ignored" not in answer.headers


def test_beacon_opened_as_a_page_from_elsewhere_is_not_counted(service: Service) -> None:
    """
    A beacon's address navigated to from another site is no impression.
    """
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "document"}

    answer = service.http.get(f"/i/{service.token()}", headers=headers)

    assert answer.status_code == 200
    assert "adserver-ignored" in answer.headers


def test_head_is_answered_and_not_counted(service: Service) -> None:
    """
    HEAD of a pixel or a click is answered without a body and filed under its method.
    """
    before = service.counts()
    html = service.http.get("/ads/889990").text
    token = tokens(html)[0]
    series = [f'adserver_events_invalid_total{{reason="method",type="{type_}"}}' for type_ in ("impression", "click")]
    filed = [service.metric(one) for one in series]

    pixel, click = service.http.head(f"/i/{token}"), service.http.head(f"/c/{token}")

    assert (pixel.status_code, pixel.content) == (204, b"")
    assert (click.status_code, click.headers["location"]) == (302, destination(service, html))
    assert [answer.headers["adserver-ignored"] for answer in (pixel, click)] == ["method"] * 2
    after = service.counts()
    assert (after["impressions"], after["clicks"]) == (before["impressions"], before["clicks"])
    eventually(lambda: [service.metric(one) for one in series] == [was + 1 for was in filed], 10, "the metrics")

    service.http.get(f"/c/{token}")

    assert service.counts()["clicks"] == before["clicks"] + 1, "a scanner's HEAD took the reader's click away"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/i/", ("PUT", "DELETE", "OPTIONS", "PATCH")),
        ("/m/", ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")),
        ("/v/", ("GET", "HEAD", "PUT", "DELETE", "OPTIONS")),
        ("/c/", ("POST", "PUT", "DELETE", "OPTIONS")),
    ],
)
def test_wrong_method_is_405_and_counts_nothing(service: Service, path: str, methods: tuple[str, ...]) -> None:
    """
    Another method than an event's own is refused, and the token is still good afterwards.
    """
    token = service.token()
    before = service.counts()

    for method in methods:
        answer = service.http.request(method, f"{path}{token}")
        assert answer.status_code == 405
        assert method not in answer.headers["allow"].split(", ")
        if method != "HEAD":
            assert answer.headers["content-type"] == "application/problem+json"

    assert service.counts() == before
    good = service.http.request("POST" if path in ("/m/", "/v/") else "GET", f"{path}{token}")
    assert "adserver-ignored" not in good.headers


# Bodies


def test_beacons_body_is_ignored_up_to_a_kilobyte(service: Service) -> None:
    """
    navigator.sendBeacon may send a body: it says nothing, and 1,024 bytes of it are taken.
    """
    for content in (b"", b"x" * 1024, b'{"ad": 1}', b"\xff\x00"):
        answer = service.http.post(f"/i/{service.token()}", content=content)
        assert answer.status_code == 204
        assert "adserver-ignored" not in answer.headers
    answer = service.http.post(f"/v/{service.token()}", content=iter([b"a", b"b"]))
    assert answer.status_code == 204


@pytest.mark.parametrize("path", ["/i/", "/m/", "/v/"])
def test_large_body_of_a_beacon_is_refused_and_not_counted(service: Service, path: str) -> None:
    """
    More than a kilobyte is 413, announced or in chunks; the token is still good afterwards.
    """
    token = service.token()
    before = service.counts()

    announced = service.http.post(f"{path}{token}", content=b"x" * 1025)
    chunked = service.http.post(f"{path}{token}", content=iter([b"x" * 1024, b"y"]))

    assert (announced.status_code, chunked.status_code) == (413, 413)
    assert service.counts() == before
    assert "adserver-ignored" not in service.http.post(f"{path}{token}").headers


def test_compressed_body_is_not_read(service: Service) -> None:
    """
    Bodies are never decompressed: 415, and the token is still good afterwards.
    """
    token = service.token()

    answer = service.http.post(f"/i/{token}", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})

    assert answer.status_code == 415
    assert "adserver-ignored" not in service.http.post(f"/i/{token}").headers


# Keys


def test_old_keys_verify_after_a_rotation(new_service: Callable[..., Service], tmp_path: Path) -> None:
    """
    A new signing key takes over while the tokens of the old one still count, once; without the old key they do not.
    """
    file = tmp_path / "keys"
    old, new = "1 " + "11" * 32, "2 " + "22" * 32

    def write(*lines: str) -> None:
        file.write_text("\n".join(lines) + "\n")
        file.chmod(0o600)

    write(old)
    service = new_service(workers=1, environ={"ADSERVER_SECRET_FILE": str(file)})
    service.start()
    used, unused, late = service.token(), service.token(), service.token()
    assert "adserver-ignored" not in service.http.get(f"/i/{used}").headers
    service.stop()

    write(f"# rotated\n{new}", old)
    service.start("ok", "degraded")  # it notes the keys it had a moment ago
    assert verify(parse_keys(new), service.token().encode())
    assert "adserver-ignored" not in service.http.get(f"/i/{unused}").headers
    service.http.get(f"/i/{used}")
    assert service.counts()["impressions"] == 2
    service.stop()

    write(new)
    service.start("ok", "degraded")  # it notes the keys it had a moment ago
    assert service.http.get(f"/i/{late}").headers["adserver-ignored"] == "forged"
    assert service.counts()["impressions"] == 2
    service.stop()


def test_secret_that_everybody_can_read_is_refused(new_service: Callable[..., Service], tmp_path: Path) -> None:
    """
    A key file open to the whole machine, or without a key, is not used: the service says so and does not start.
    """
    file = tmp_path / "keys"
    file.write_text(KEY)
    file.chmod(0o644)
    service = new_service(environ={"ADSERVER_SECRET_FILE": str(file)})

    assert "chmod 600" in service.run("serve", "--port", "0", code=3).stderr
    file.chmod(0o600)
    file.write_text("not a key")
    assert "64 hex digits" in service.run("serve", "--port", "0", code=3).stderr


def test_reader_who_clicks_is_sent_on_without_a_cookie_or_referrer_leak(service: Service) -> None:
    """
    The redirect carries no cookie and is stored nowhere.
    """
    with client(service.url) as http:
        answer = http.get(f"/c/{service.token()}")

    assert "set-cookie" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-length"] == "0"
