"""Delivery as pages use it: snippets, several at once, whole articles."""

import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from tests.service.live import SLOTS, Service, tokens

KEEP, PASSBACK, COLLAPSE, SOON = 700001, 700002, 700003, 700004
SOON_S = 300
ORIGIN = "https://news.example.com"
SECURE = {"x-content-type-options": "nosniff"}

ARTICLE = """<h1>The ferry that learned to wait</h1>
<p>For eleven years the last boat left at ten, whoever was still on the quay.</p>
<p>“We timed it with the bakers’ shift,” says the harbour master — and it worked.</p>
<p>To show an ad, an editor writes [[the_ad id="889990"]] where it should stand.</p>

[the_ad id="889990"]
[the_ad id="889991"]
[the_ad id="889992"]
[the_ad id="889977"]
[the_ad id="889994"]
[the_ad id="889993"]
"""


def add_test_slots(config: Path) -> None:
    """Slots without a booking for each *when_empty*, and one whose only booking begins in five minutes."""
    starts = (datetime.now(UTC) + timedelta(seconds=SOON_S)).isoformat(timespec="seconds")
    (config / "tests.toml").write_text(
        f"""
        [[slot]]
        id = {KEEP}
        name = "Keeps its box"
        size = "300x250"
        when_empty = "keep"
        [[slot]]
        id = {PASSBACK}
        name = "Passes back"
        size = "300x250"
        when_empty = "passback"
        passback = "<p>Place a notice</p>"
        [[slot]]
        id = {COLLAPSE}
        name = "Collapses"
        size = "300x250"
        [[slot]]
        id = {SOON}
        name = "Booked from soon on"
        size = "300x250"
        [[line_item]]
        id = "soon"
        name = "Soon"
        campaign = "house"
        priority = "house"
        slots = [{SOON}]
        creatives = ["house-tide-table"]
        starts = {starts}
        ends = 2099-01-01T00:00:00Z
        """
    )


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    service = new_service(
        environ={"ADSERVER_ALLOWED_ORIGINS": f"{ORIGIN} https://m.example.com"}, configure=add_test_slots
    )
    service.start()
    return service


@pytest.fixture
def http(service: Service) -> httpx.Client:
    return service.http


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of a problem answer, after everything else about it was checked."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == status
    detail = body["detail"]
    assert isinstance(detail, str)
    assert detail.endswith(".")
    return detail


# GET /ads/{id}


@pytest.mark.parametrize("slot", SLOTS)
def test_each_of_the_18_ids_answers_with_a_snippet(http: httpx.Client, slot: int) -> None:
    """
    A slot's ad is 200, HTML, never stored, and says which slot, line item, creative and version it is.
    """
    answer = http.get(f"/ads/{slot}")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.match(
        rf'<aside class="[^"]+" data-slot="{slot}" data-line-item="[^"]+" data-creative="[^"]+" data-version="1"',
        answer.text,
    )
    assert 'aria-label="' in answer.text
    assert len(tokens(answer.text)) == 1
    assert "<script" not in answer.text
    assert " style=" not in answer.text
    assert " on" not in re.sub(r'"[^"]*"', "", re.sub(r">[^<]*<", "><", answer.text))


def test_a_plain_request_gets_the_same_answer_as_any_other(http: httpx.Client) -> None:
    """
    The short way for plain requests and the long one answer alike, filled and unfilled: only token and date differ.
    """
    for slot in (889990, KEEP, PASSBACK, COLLAPSE, SOON):
        plain = [http.get(f"/ads/{slot}") for _ in range(20)]
        other = [http.get(f"/ads/{slot}", params={"section": "business"}) for _ in range(20)]
        assert {answer.status_code for answer in plain} == {answer.status_code for answer in other}
        bodies = [{re.sub(r"/[ic]/[\w-]{48}", "", answer.text) for answer in answers} for answers in (plain, other)]
        assert bodies[0] == bodies[1]
        headers = [
            {tuple((name, value) for name, value in one.headers.items() if name not in ("date", "content-length"))}
            for one in (plain[0], other[0])
        ]
        assert headers[0] == headers[1]


def test_snippet_reserves_its_box_and_marks_its_links(http: httpx.Client) -> None:
    """
    An image ad has its width and height, its label outside the link, and a link that search engines do not follow.
    """
    html = next(text for _ in range(40) if "adserver-image" in (text := http.get("/ads/889990").text))

    assert 'rel="sponsored nofollow noopener"' in html
    assert re.search(r'<img src="[^"]+/assets/[0-9a-f]{32}\.png" width="300" height="250" alt="[^"]+"', html)
    assert html.index("adserver-label") < html.index("<a ")
    assert "Advertisement" not in html[html.index("<a ") : html.index("</a>")]
    assert 'loading="lazy"' not in html


def test_only_the_first_ad_of_a_page_loads_at_once(http: httpx.Client) -> None:
    """
    The first snippet of a page is eager; those after it are lazy.
    """
    ads = http.get("/ads?id=889990&id=889991&id=889977").json()["ads"]

    lazy = ['loading="lazy"' in ad["html"] for ad in ads.values()]

    assert lazy == [False, True, True]


def test_third_party_tag_is_boxed(http: httpx.Client) -> None:
    """
    A bought tag runs in a sandboxed frame that shares neither origin nor cookies with the page.
    """
    html = next(text for _ in range(40) if "<iframe" in (text := http.get("/ads/889992?consent=1").text))

    assert 'sandbox="allow-scripts allow-popups"' in html
    assert "allow-same-origin" not in html
    assert " srcdoc=" in html


@pytest.mark.parametrize("path", ["/ads/889995", "/ads/1", "/ads/4294967296"])
def test_unknown_id_is_a_problem(http: httpx.Client, path: str) -> None:
    """
    An id that is no slot is 404, with a sentence that says what an id looks like.
    """
    assert "889990" in problem(http.get(path), 404)


def test_no_fill_names_its_reason(http: httpx.Client) -> None:
    """
    A slot without a booking is 204 and says why in a header.
    """
    answer = http.get(f"/ads/{COLLAPSE}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["adserver-reason"] == "no-booking"
    assert answer.headers["cache-control"] == "no-store"


def test_booking_that_has_not_begun_is_not_live(http: httpx.Client) -> None:
    """
    Before its first booking begins, a slot says so.
    """
    answer = http.get(f"/ads/{SOON}")

    assert answer.status_code == 204
    assert answer.headers["adserver-reason"] == "not-live"


def test_empty_slot_may_keep_its_box(http: httpx.Client) -> None:
    """
    With when_empty = "keep" the page gets the empty box, so nothing jumps; the reason is said all the same.
    """
    answer = http.get(f"/ads/{KEEP}")

    assert answer.status_code == 200
    assert answer.headers["adserver-reason"] == "no-booking"
    assert 'data-width="300" data-height="250"' in answer.text
    assert tokens(answer.text) == []


def test_empty_slot_may_pass_back(http: httpx.Client) -> None:
    """
    With when_empty = "passback" the page gets the passback markup, boxed like any bought markup.
    """
    answer = http.get(f"/ads/{PASSBACK}?consent=1")

    assert answer.status_code == 200
    assert answer.headers["adserver-reason"] == "no-booking"
    assert "&lt;p&gt;Place a notice&lt;/p&gt;" in answer.text
    assert 'sandbox="allow-scripts allow-popups"' in answer.text


@pytest.mark.parametrize("form", ["html", "placeholder", "email", "amp", "native"])
@pytest.mark.parametrize("slot", SLOTS)
def test_every_format_answers_for_every_slot(http: httpx.Client, slot: int, form: str) -> None:
    """
    Each format gives a snippet for each slot of the sample, or nothing and the reason.
    """
    answer = http.get(f"/ads/{slot}?format={form}")

    assert answer.status_code in (200, 204)
    assert ("adserver-reason" in answer.headers) is (answer.status_code == 204)
    if form in ("html", "placeholder"):
        assert answer.status_code == 200
    caching = "public, max-age=" if form == "placeholder" else "no-store"
    assert answer.headers["cache-control"].startswith(caching)
    if answer.status_code == 200 and form == "email":
        assert "/i/" not in answer.text
        assert "<script" not in answer.text
        assert "<iframe" not in answer.text
    if answer.status_code == 200 and form == "amp":
        assert "<img" not in answer.text
        assert "amp-pixel" in answer.text
    if form == "placeholder":
        assert f'data-adserver-slot="{slot}"' in answer.text
        assert tokens(answer.text) == []


def test_placeholder_is_kept_no_longer_than_its_slot_stays_the_same(http: httpx.Client) -> None:
    """
    A placeholder's max-age ends at the slot's next booking change; another slot's may be longer.
    """

    def age(url: str) -> int:
        return int(http.get(url).headers["cache-control"].removeprefix("public, max-age="))

    assert SOON_S - 60 < age(f"/ads/{SOON}?format=placeholder") <= SOON_S
    assert age(f"/ads?format=placeholder&id=889990&id={SOON}") <= SOON_S
    assert age("/ads/889990?format=placeholder") > SOON_S
    article = f'<p>A</p>[the_ad id="{SOON}"][the_ad id="889990"]'
    answer = http.post("/render?format=placeholder", content=article, headers={"content-type": "text/html"})
    assert int(answer.headers["cache-control"].removeprefix("public, max-age=")) <= SOON_S
    assert http.get(f"/ads?id={SOON}").json()["ads"][str(SOON)]["max_age"] <= SOON_S


def test_placeholder_counts_nothing(service: Service) -> None:
    """
    A placeholder is not a request: it may be asked for once and shown a thousand times.
    """
    before = service.row(889983)
    for _ in range(3):
        service.http.get("/ads/889983?format=placeholder")

    assert service.row(889983) == before


def test_unknown_format_is_a_problem_that_lists_the_known(http: httpx.Client) -> None:
    """
    Another format is 400 and names those there are.
    """
    for answer in (http.get("/ads/889990?format=pdf"), http.get("/ads?id=889990&format=pdf")):
        assert "placeholder" in problem(answer, 400)


def test_preview_of_an_instant_needs_a_staff_token(http: httpx.Client) -> None:
    """
    Parameter at is for the staff; without a token it is refused on all three delivery calls.
    """
    at = "at=2027-01-01T00:00:00Z"
    for answer in (
        http.get(f"/ads/889990?{at}"),
        http.get(f"/ads?id=889990&{at}"),
        http.post(f"/render?{at}", content="x", headers={"content-type": "text/plain"}),
    ):
        assert "staff" in problem(answer, 403)


def test_context_parameters_are_taken_on_all_delivery_calls(http: httpx.Client) -> None:
    """
    All context parameters may be given together, and unknown ones are ignored.
    """
    context = (
        "url=https://news.example.com/a&section=town&tag=a&tag=b&lang=nl&country=NL&device=mobile"
        "&reader=k1&ua=Mozilla&consent=1&unheard-of=1"
    )
    assert http.get(f"/ads/889990?{context}").status_code == 200
    assert http.get(f"/ads?id=889990&{context}").status_code == 200
    answer = http.post(f"/render?{context}", content=ARTICLE.encode(), headers={"content-type": "text/html"})
    assert answer.headers["adserver-filled"] == "6"


def test_head_of_an_ad_is_its_header_and_counts_nothing(service: Service) -> None:
    """
    HEAD answers like GET without a body, and is no request for an ad.
    """
    before = service.row(889984)

    one = service.http.head("/ads/889984")
    none = service.http.head(f"/ads/{COLLAPSE}")
    several = service.http.head("/ads?id=889984&id=889985")

    assert (one.status_code, one.content) == (200, b"")
    assert one.headers["content-type"] == "text/html; charset=utf-8"
    assert one.headers["cache-control"] == "no-store"
    assert (none.status_code, none.headers["adserver-reason"]) == (204, "no-booking")
    assert (several.status_code, several.content) == (200, b"")
    assert several.headers["content-type"] == "application/json"
    assert http_head_is_like_get(service)
    assert service.row(889984) == before


def http_head_is_like_get(service: Service) -> bool:
    paths = ("/healthz", "/readyz", "/openapi.json", "/", "/ads/1")
    return all(service.http.head(path).status_code == service.http.get(path).status_code for path in paths)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/ads/889990", "GET, HEAD"),
        ("DELETE", "/ads/889990", "GET, HEAD"),
        ("OPTIONS", "/ads/889990", "GET, HEAD"),
        ("POST", "/ads?id=889990", "GET, HEAD"),
        ("GET", "/render", "POST"),
        ("PUT", "/render", "POST"),
        ("POST", "/readyz", "GET, HEAD"),
        ("DELETE", "/metrics", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
    ],
)
def test_wrong_method_is_405_and_says_which_is_right(http: httpx.Client, method: str, path: str, allowed: str) -> None:
    """
    An address asked with another method says what it answers.
    """
    answer = http.request(method, path)

    assert "method" in problem(answer, 405) or "only" in problem(answer, 405)
    assert {name.strip() for name in answer.headers["allow"].split(",")} == set(allowed.split(", "))


@pytest.mark.parametrize("path", ["/nothing", "/ads/", "/ads/889990/", "/ads/889990/x.bat", "/render/", "/i", "/adsx"])
def test_path_that_is_no_address_is_404(http: httpx.Client, path: str) -> None:
    """
    Paths are strict: no trailing slash, no suffix.
    """
    problem(http.get(path), 404)


# GET /ads?id=…


def test_several_ads_come_as_json_in_the_order_asked(http: httpx.Client) -> None:
    """
    The page call answers every id asked, in that order, the unknown ones with their reason.
    """
    asked = ["889994", "889977", "123", "889990", "x", str(COLLAPSE), str(KEEP)]

    answer = http.get("/ads", params={"id": asked})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    body = answer.json()
    assert list(body) == ["version", "ads"]
    assert body["version"] == 1
    assert list(body["ads"]) == asked
    for name, ad in body["ads"].items():
        assert list(ad) == ["html", "filled", "reason", "line_item", "creative", "max_age"]
        if name.startswith("88"):
            assert ad["filled"] is True
            assert ad["reason"] is None
            assert f'data-line-item="{ad["line_item"]}" data-creative="{ad["creative"]}"' in ad["html"]
            assert isinstance(ad["max_age"], int)
            assert ad["max_age"] > 0
    unknown = {"html": "", "filled": False, "reason": "unknown-slot", "line_item": None, "creative": None}
    assert {**unknown, "max_age": body["ads"]["123"]["max_age"]} == body["ads"]["123"]
    assert body["ads"]["x"]["reason"] == "unknown-slot"
    assert body["ads"][str(COLLAPSE)]["reason"] == "no-booking"
    assert body["ads"][str(KEEP)]["html"].startswith("<aside")


def test_a_page_of_all_18_has_no_creative_twice(http: httpx.Client) -> None:
    """
    A page is decided as a whole: 18 slots, 18 ads, 18 different creatives.
    """
    ads = http.get("/ads", params={"id": [str(slot) for slot in SLOTS]}).json()["ads"]

    assert all(ad["filled"] for ad in ads.values())
    assert len({ad["creative"] for ad in ads.values()}) == 18


def test_a_hundred_ids_are_answered_and_one_more_is_not(http: httpx.Client) -> None:
    """
    Up to 100 ids in one call; 101 are refused in words.
    """
    answer = http.get("/ads?" + "&".join(f"id={n}" for n in range(1, 101)))

    assert answer.status_code == 200
    assert len(answer.json()["ads"]) == 100
    assert "100" in problem(http.get("/ads?" + "&".join(f"id={n}" for n in range(1, 102))), 400)


def test_page_call_without_an_id_is_a_problem(http: httpx.Client) -> None:
    """
    A call that names no slot says how to name one.
    """
    assert "id=889990" in problem(http.get("/ads"), 400)
    assert "id=889990" in problem(http.get("/ads?section=town"), 400)


def test_same_id_twice_is_one_ad(http: httpx.Client) -> None:
    """
    An id named twice is answered once, for JSON has one entry a key.
    """
    assert list(http.get("/ads?id=889990&id=889990").json()["ads"]) == ["889990"]


# CORS and cookies


def test_only_configured_origins_may_read_ads_by_script(http: httpx.Client) -> None:
    """
    A page of an allowed origin reads the answer, another's does not, and nobody with credentials.
    """
    for path in ("/ads/889990", "/ads?id=889990", "/ads/889990?format=placeholder", f"/ads/{COLLAPSE}"):
        ours = http.get(path, headers={"origin": ORIGIN})
        evil = http.get(path, headers={"origin": "https://evil.example"})
        none = http.get(path)
        null = http.get(path, headers={"origin": "null"})
        assert ours.headers["access-control-allow-origin"] == ORIGIN
        for answer in (evil, none, null):
            assert "access-control-allow-origin" not in answer.headers
        for answer in (ours, evil, none):
            assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("path", ["/ads?id=889990&format=none", "/ads", "/ads/1", "/ads/889990?format=none"])
def test_what_is_wrong_may_be_read_by_the_same_pages(http: httpx.Client, path: str) -> None:
    """
    An error is as readable as an ad, or the browser's console would tell of origins and not of what is wrong.
    """
    ours = http.get(path, headers={"origin": ORIGIN})
    evil = http.get(path, headers={"origin": "https://evil.example"})

    assert ours.status_code == evil.status_code in (400, 404)
    assert ours.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-origin" not in evil.headers
    assert ours.headers["vary"] == evil.headers["vary"] == "Origin"


def test_no_answer_sets_a_cookie(http: httpx.Client) -> None:
    """
    Nothing public sets a cookie, not even when one is sent.
    """
    cookie = {"cookie": "session=1"}
    token = tokens(http.get("/ads/889990").text)[0]
    answers = [
        http.get(path, headers=cookie)
        for path in (
            "/ads/889990", "/ads?id=889990", "/ads/1", f"/i/{token}", f"/c/{token}", "/", "/healthz", "/readyz",
            "/metrics", "/openapi.json", "/api/report", "/nothing",
        )
    ]  # fmt: skip
    answers += [http.post(f"/{kind}/{token}", headers=cookie) for kind in "iv"]
    answers.append(http.post("/render", content="x", headers={**cookie, "content-type": "text/plain"}))

    assert [answer.url for answer in answers if "set-cookie" in answer.headers] == []


# POST /render


def render(http: httpx.Client, article: str | bytes, query: str = "", media: str = "text/html") -> httpx.Response:
    body = article.encode() if isinstance(article, str) else article
    return http.post(f"/render{query}", content=body, headers={"content-type": media})


@pytest.mark.parametrize("media", ["text/html", "text/plain", "text/html; charset=UTF-8", 'text/plain;charset="utf-8"'])
def test_article_gets_its_six_ads(http: httpx.Client, media: str) -> None:
    """
    Each shortcode of an article becomes its snippet, and every other byte stays as it was.
    """
    answer = render(http, ARTICLE, media=media)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == media.split(";")[0] + "; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["adserver-filled"] == "6"
    assert "adserver-unknown" not in answer.headers
    assert "adserver-repaired" not in answer.headers
    slots = re.findall(r'data-slot="(\d+)"', answer.text)
    assert slots == ["889990", "889991", "889992", "889977", "889994", "889993"]
    emptied = re.sub(r"<aside.*?</aside>", "", answer.text, flags=re.DOTALL)
    expected = re.sub(r'^\[the_ad id="\d+"\]$', "", ARTICLE, flags=re.MULTILINE)
    assert emptied == expected.replace("[[the_ad", "[the_ad").replace('"889990"]]', '"889990"]')
    assert len(set(tokens(answer.text))) == 6


def test_render_has_no_creative_twice(http: httpx.Client) -> None:
    """
    An article is decided as one page.
    """
    for _ in range(5):
        creatives = re.findall(r'data-creative="([^"]+)"', render(http, ARTICLE).text)
        assert len(set(creatives)) == 6


def test_unknown_and_unfilled_shortcodes_become_nothing(http: httpx.Client) -> None:
    """
    No shortcode is left for a reader to see; the unknown ids are named in a header.
    """
    article = f'<p>A[the_ad id="889999"]B[the_ad id="{COLLAPSE}"]C[the_ad_group id="no-such"]D</p>'

    answer = render(http, article)

    assert answer.text == "<p>ABCD</p>"
    assert answer.headers["adserver-filled"] == "0"
    assert answer.headers["adserver-unknown"] == "889999, no-such"


def test_groups_and_placements_are_answered(http: httpx.Client) -> None:
    """
    The other two shortcodes work as well: a group answers by one of its slots, a placement by its slot or group.
    """
    answer = render(http, '[the_ad_group id="side-rail"]|[the_ad_placement id="article-middle"]')

    rail, middle = re.findall(r'data-slot="(\d+)"', answer.text)
    assert rail in ("889982", "889983", "889984")
    assert middle == "889980"
    assert answer.headers["adserver-filled"] == "2"


def test_broken_shortcode_is_mended_and_counted(http: httpx.Client) -> None:
    """
    What an editor's curly quotes broke is mended, said in a header, and left alone with repair=0.
    """
    article = "<p>A</p>[the_ad id=“889990”]<p>B</p>[the_ad id=&quot;889991&quot;]"

    mended, strict = render(http, article), render(http, article, "?repair=0")

    assert mended.headers["adserver-filled"] == "2"
    assert mended.headers["adserver-repaired"] == "2"
    assert "[the_ad" not in mended.text
    assert "adserver-repaired" not in strict.headers
    assert strict.headers["adserver-filled"] != "2"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No shortcode here.\r\n",
        "[gallery ids='1'] [the_advert id=1] [ the_ad]",
        "é😀\u2028\x00\x1f",
        "<p>[</p>" * 99,
    ],
)
def test_text_without_ads_comes_back_byte_for_byte(http: httpx.Client, text: str) -> None:
    """
    What is not an ad shortcode is not touched.
    """
    answer = render(http, text, media="text/plain")

    assert answer.status_code == 200
    assert answer.content == text.encode()


def test_article_too_large_is_413(http: httpx.Client) -> None:
    """
    2 MiB are read, one byte more is not, whether announced or sent in chunks.
    """
    most = b"a" * (2 * 1024 * 1024)
    assert render(http, most).content == most
    assert "2,097,152" in problem(render(http, most + b"a"), 413)

    chunked = http.post("/render", content=iter([most, b"a"]), headers={"content-type": "text/html"})
    assert chunked.status_code == 413


@pytest.mark.parametrize(
    "media", ["application/json", "text/css", "multipart/form-data; boundary=a", "", "text/html; charset=latin-1"]
)
def test_article_of_another_type_is_415(http: httpx.Client, media: str) -> None:
    """
    Another type or charset is refused in words.
    """
    assert "article" in problem(render(http, ARTICLE, media=media), 415)


def test_article_that_is_not_utf8_is_400(http: httpx.Client) -> None:
    """
    A body that is not UTF-8 is refused, and the byte is named.
    """
    assert "byte 3" in problem(render(http, b"abc\xff"), 400)


def test_article_with_too_many_shortcodes_is_400(http: httpx.Client) -> None:
    """
    100 shortcodes are answered, more are refused before any is decided.
    """
    assert render(http, '[the_ad id="889990"]' * 100).status_code == 200
    for query in ("", "?repair=0"):
        assert "100" in problem(render(http, '[the_ad id="889990"]' * 101, query), 400)


# Files, probes, description


def test_creative_file_is_immutable(http: httpx.Client) -> None:
    """
    An image of a snippet is served for ever, under the hash of its bytes.
    """
    html = next(text for _ in range(40) if "/assets/" in (text := http.get("/ads/889990").text))
    url = re.findall(r'src="([^"]+/assets/[^"]+)"', html)[0]

    answer = http.get(url)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content.startswith(b"\x89PNG")
    assert http.get(url, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    problem(http.get("/assets/" + "0" * 32 + ".png"), 404)
    problem(http.get("/assets/site.toml"), 404)


def test_probes_answer(http: httpx.Client) -> None:
    """
    Alive and ready are for machines: short, and never stored.
    """
    alive, ready = http.get("/healthz"), http.get("/readyz")

    assert (alive.status_code, alive.text) == (200, "ok\n")
    assert ready.json() == {"status": "ok", "reasons": [], "catalog_version": 1}
    assert alive.headers["cache-control"] == ready.headers["cache-control"] == "no-store"


def test_served_snippets_are_counted(service: Service) -> None:
    """
    Every snippet handed out is a request and a serve; a no-fill is a request alone.
    """
    before = {row["slot"]: row for row in service.report()}
    for _ in range(5):
        service.http.get("/ads/889986")
        service.http.get(f"/ads/{COLLAPSE}")
    service.http.get(f"/ads?id=889986&id={COLLAPSE}")
    render(service.http, f'[the_ad id="889986"][the_ad id="{COLLAPSE}"]')

    after = {row["slot"]: row for row in service.report()}

    def rise(slot: int, figure: str) -> int:
        return int(after[slot][figure] - before[slot][figure])

    assert (rise(889986, "requests"), rise(889986, "served")) == (7, 7)
    assert (rise(COLLAPSE, "requests"), rise(COLLAPSE, "served")) == (7, 0)
    assert rise(889986, "impressions") == 0


def test_description_is_json(http: httpx.Client) -> None:
    """
    The API description is served as JSON.
    """
    answer = http.get("/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.text)["openapi"].startswith("3.1")


def test_two_mebibytes_of_nothing_but_brackets_are_read_in_linear_time(http: httpx.Client) -> None:
    """
    A body made to hurt parsers takes as long as any other of its size.
    """
    http.get("/healthz")
    for unit in (b"[", b"[the_ad ", b'[the_ad id="', b"<a [the_ad]", b"[[the_ad]"):
        body = (unit * (2 * 1024 * 1024 // len(unit) + 1))[: 2 * 1024 * 1024]
        began = time.monotonic()
        answer = render(http, body)
        took = time.monotonic() - began
        assert answer.status_code in (200, 400)
        assert took < 2, (unit, took)  # quadratic time would be minutes
