"""The same article in Jinja2 and Django, sync and async, with the real service and with every fault of one."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jinja2.nativetypes import NativeEnvironment
from markupsafe import Markup

from adserver.client import AsyncClient, Client
from adserver.repair import read
from tests.client.conftest import BUSINESS
from tests.client.peers import FAULTS, OK, SLOW, peer
from tests.client.sites import SITES, jinja
from tests.service.live import REPOSITORY, Service, client, eventually, tokens

ARTICLE = re.search(r"<article.*</article>", (REPOSITORY / "adserver/sample/page.html").read_text(), re.DOTALL)[0]  # type: ignore[index]
ASIDE = re.compile(r"<aside.*?</aside>", re.DOTALL)
ABOUT = {"section": "town", "tags": ["library"], "lang": "en"}
WORDPRESS = Path(__file__).parents[1] / "data" / "wordpress_shortcodes.jsonl"
PATIENT: dict[str, Any] = {"budget_s": 20}
"""Where ads are to be there, so that a busy machine changes nothing."""
CALLS = 'adserver_http_responses_total{route="render",status="200"}'


@pytest.fixture(params=list(SITES))
def site(request: pytest.FixtureRequest) -> Any:
    """Makes the site in question."""
    return SITES[request.param]


def slots(page: str) -> list[str]:
    return re.findall(r'<aside[^>]* data-slot="(\d+)"', page)


def words(article: str) -> str:
    """What of *article* stands on the page whatever becomes of its ads."""
    return "".join(piece for piece in read(article, 100).pieces if isinstance(piece, str))


def assert_whole(page: str) -> None:
    """The article is there with every word, and nothing of how it came about."""
    assert "<title>Tide &amp; time</title>" in page
    assert words(ARTICLE) in ASIDE.sub("", page)
    assert page.rstrip().endswith("</main>") or ASIDE.search(page)
    assert "[the_ad" not in page
    assert "<!--adserver" not in page


def test_an_article_is_filled_by_one_call(service: Service, site: Any) -> None:
    """
    Tags of base, article and included templates and the shortcodes of its body: one call, one decision, one page.
    """
    with site(service.url, **PATIENT) as show:
        before = service.metric(CALLS)
        show(ARTICLE, **ABOUT)
        eventually(lambda: service.metric(CALLS) == before + 1, what="one call")
        page = show(ARTICLE, **ABOUT)
        eventually(lambda: service.metric(CALLS) == before + 2, what="one call more")
    assert_whole(page)
    found = slots(page)
    assert found[0] == "889978"
    assert {"889980", "889990", "889991", "889992", "889977", "889994", "889993"} <= set(found)
    assert len(tokens(page)) == len(found)
    assert page.count(' loading="lazy"') > page.count("<aside"), "all but the first ad load when they come near"


def test_what_a_site_says_of_its_page_decides(service: Service, site: Any) -> None:
    """
    A booking for one section shows there and nowhere else.
    """
    article = f'[the_ad id="{BUSINESS}"]'
    with site(service.url, **PATIENT) as show:
        assert 'data-line-item="of-business"' in show(article, section="business")
        assert 'data-line-item="of-business"' not in show(article, section="sport")


def test_text_that_is_not_marked_safe_is_escaped(service: Service, site: Any) -> None:
    """
    Without `safe` a reader's comment is text, and the ad in it an ad.
    """
    with site(service.url, **PATIENT) as show:
        page = show('<script>x</script>[the_ad id="889990"]<b>', "comment.html")
    assert page.startswith("&lt;script&gt;x&lt;/script&gt;<aside ")
    assert page.endswith("</aside>&lt;b&gt;")


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_the_service_harms_a_page(fault: str, site: Any, caplog: pytest.LogCaptureFixture) -> None:
    """
    The page is whole and without ads, soon; for the next 30 s nobody is asked; one line of the log tells of it.
    """
    options = {} if fault in SLOW else PATIENT
    with peer(fault) as there, site(there.url, **options) as show, caplog.at_level(logging.INFO, "adserver.client"):
        began = time.monotonic()
        first = show(ARTICLE, **ABOUT)
        took = time.monotonic() - began
        others = [show(ARTICLE, **ABOUT) for _ in range(3)]
        if fault not in SLOW:
            assert there.calls == 1, "one call, also where it ended without a word"
    assert_whole(first)
    assert not slots(first)
    assert others == [first] * 3
    assert took < (15 if fault in SLOW else 20), "a budget of 0.3 s, on a busy machine; what drips goes on for 120 s"
    assert [record.levelname for record in caplog.records if record.name == "adserver.client"] == ["WARNING"]


def test_a_page_waits_no_longer_than_its_budget(site: Any) -> None:
    """
    The budget is for the whole page, and also where bytes come one by one.
    """
    for fault in ("hangs", "drips"):
        with peer(fault) as there, site(there.url, budget_s=0.05) as show:
            show("", **ABOUT)  # what is made once is made
            took = []
        with peer(fault) as there, site(there.url, budget_s=0.05, pause_s=0) as show:
            for _ in range(8):
                began = time.monotonic()
                show(ARTICLE, **ABOUT)
                took.append(time.monotonic() - began)
        assert sorted(took)[2] < 0.3, took  # the quickest of them, because others use this machine too


def test_a_stopped_service_leaves_the_last_good_ads_and_comes_back(
    stoppable: Service, site: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """
    While it is away a page keeps the ads it had, another has none; when it is back both have fresh ones.
    """
    with site(stoppable.url, pause_s=0, **PATIENT) as show, caplog.at_level(logging.INFO, "adserver.client"):
        before = show(ARTICLE, **ABOUT)
        stoppable.stop()
        again = show(ARTICLE, **ABOUT)
        other = show(ARTICLE, section="sport")
        personal = show(ARTICLE, **ABOUT, reader="r1", consent=True)
        stoppable.start()
        back = eventually(lambda: page if tokens(page := show(ARTICLE, **ABOUT)) != tokens(before) else None)
        assert slots(show(ARTICLE, section="sport"))
    assert before == again
    for page in (other, personal):
        assert_whole(page)
        assert not slots(page)
    assert_whole(back)
    assert not set(tokens(back)) & set(tokens(before))
    levels = [record.levelname for record in caplog.records if record.name == "adserver.client"]
    assert levels == ["WARNING", "INFO"]


def test_an_ad_is_not_kept_beyond_its_flight(service: Service) -> None:
    """
    What may be shown again, and for how long, the service says with each answer: never past the slot's next change.
    """
    answer = service.http.post(
        "/render?repair=0", content='[the_ad id="889990"]', headers={"content-type": "text/html"}
    )
    alone = service.http.get("/ads?id=889990").json()["ads"]["889990"]["max_age"]
    assert 0 <= int(answer.headers["adserver-max-age"]) - alone <= 1


def test_a_slot_nobody_knows_is_nothing_and_is_told_once(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """
    The newsroom hears which ids are wrong, once each.
    """
    with closing(Client(service.url, **PATIENT)) as ads, caplog.at_level(logging.WARNING, "adserver.client"):
        pages = [ads.render(Markup('a[the_ad id="12345"]b[the_ad_group id="nope"]c')) for _ in range(3)]
    assert pages == ["abc"] * 3
    told = [record.getMessage() for record in caplog.records if record.name == "adserver.client"]
    assert [one.split("placement ")[1].split(";")[0] for one in told] == ["12345", "nope"]


def test_several_slots_come_by_their_ids(service: Service) -> None:
    """
    A site without a template engine of ours asks for what it needs, in one call.
    """
    with closing(Client(service.url, **PATIENT)) as ads:
        found = ads.ads([889990, "889991", 12345, "no id", 889990], section="town")
    assert list(found) == ["889990", "889991", "12345"]
    assert found["889990"].startswith('<aside class="adserver')
    assert found["12345"] == ""


def test_what_wordpress_reads_is_read_by_client_and_service_alike(service: Service) -> None:
    """
    For each of a few hundred odd texts a page is the same whether the service or the client takes it apart.
    """
    rows = [json.loads(line)["content"] for line in WORDPRESS.read_text("utf-8").splitlines()]
    with closing(Client(service.url, **PATIENT)) as ads, client(service.url, keep=True) as http:
        for text in rows:
            html = text.encode("utf-8", "replace").decode()
            there = http.post("/render", content=html.encode(), headers={"content-type": "text/html"})
            page = ads.render(Markup(html), consent=False)
            if there.status_code == 400:  # it takes no more than a hundred; the client shows the first of them
                assert "[the_ad" not in page
            else:
                assert ASIDE.sub("AD", page) == ASIDE.sub("AD", there.text), html


def test_many_threads_share_a_client(service: Service) -> None:
    """
    Every page of every thread has its own tokens.
    """
    with closing(Client(service.url, **PATIENT)) as ads, ThreadPoolExecutor(8) as pool:
        environment = jinja(ads)
        render = environment.get_template("article.html").render
        pages = list(pool.map(lambda _: render(title="Tide & time", body=ARTICLE, place="article-middle"), range(64)))
    for page in pages:
        assert_whole(page)
        assert slots(page)
    found = [token for page in pages for token in tokens(page)]
    assert len(set(found)) == len(found)


def test_a_waiting_page_does_not_block_the_event_loop() -> None:
    """
    While an async site waits for an answer that never comes, its other tasks go on.
    """

    async def show(ads: AsyncClient) -> int:
        template = jinja(ads, enable_async=True).get_template("article.html")
        page = asyncio.create_task(template.render_async(title="Tide & time", body=ARTICLE, place="article-middle"))
        turns = 0
        while not page.done():
            await asyncio.sleep(0)
            turns += 1
        assert_whole(await page)
        return turns

    with peer("hangs") as there, closing(AsyncClient(there.url)) as ads:
        assert asyncio.run(show(ads)) > 100


def test_a_reader_who_goes_away_opens_no_circuit() -> None:
    """
    A request that is called off says nothing of the service: the next page asks.
    """

    async def call_off(ads: AsyncClient, calls: int) -> None:
        task = asyncio.create_task(ads.render(Markup('[the_ad id="889990"]')))
        await asyncio.to_thread(eventually, lambda: there.calls == calls)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with peer("hangs") as there, closing(AsyncClient(there.url, budget_s=20)) as ads:
        for n in (1, 2):
            asyncio.run(call_off(ads, n))
        assert there.calls == 2


def test_a_connection_that_was_closed_meanwhile_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """
    A service that was started anew between two pages is asked by a new connection, once a page.
    """

    def once(connection: Any, stopping: threading.Event) -> None:
        connection.sendall(OK + b"content-length: 8\r\n\r\n<aside/>")

    with (
        peer("closes", answer=once) as there,
        closing(Client(there.url, **PATIENT)) as ads,
        caplog.at_level(logging.INFO, "adserver.client"),
    ):
        for n in range(1, 6):
            assert ads.ads([889990]) == {"889990": "<aside/>"}
            assert there.calls == n
            eventually(lambda: not any(thread.is_alive() for thread in there._threads), what="its closing")
    assert not caplog.records


def test_a_client_goes_on_after_a_fork(service: Service) -> None:
    """
    A server that loads the site once and forks its workers has ads in each of them.
    """
    script = (
        "import os, sys\n"
        "from adserver.client import Client\n"
        f"ads = Client({service.url!r}, budget_s=20)\n"
        "assert ads.ads([889990])['889990']\n"
        "child = os.fork()\n"
        "found = ads.ads([889990])['889990']\n"
        "if child == 0:\n"
        "    os._exit(0 if found else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or (0 if found else 2))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_cut_article_hides_nothing_of_its_page(service: Service, site: Any) -> None:
    """
    Where a template shows an article's beginning, the end of that is no comment that swallows all that comes after.
    """
    with site(service.url, **PATIENT) as show:
        for before in range(41):
            page = show("x" * before + '[the_ad id="889990"]' + "y" * 90, "beginning.html")
            assert slots(page) == (["889990"] if before < 11 else []), page
            assert re.fullmatch(r"<p>x*<?y*\u2026</p>Last\.", ASIDE.sub("", page)), page


def test_what_is_no_text_is_handed_over_as_it_is(service: Service) -> None:
    """
    A native environment gives numbers and lists as they are, and text with its ads.
    """
    with closing(Client(service.url, **PATIENT)) as ads:
        environment = NativeEnvironment(extensions=["adserver.client.jinja.Ads"])
        environment.adserver = ads  # type: ignore[attr-defined]

        def native(source: str) -> Any:
            return environment.from_string(source).render()

        assert native("{{ 1 }}") == 1
        assert native("{{ [1, none] }}") == [1, None]
        assert native("") in (None, "")
        assert slots(native("<p>{% ad 889990 %}</p>")) == ["889990"]
        assert slots(native("{% ad 889990 %}")) == ["889990"]

        waiting = NativeEnvironment(extensions=["adserver.client.jinja.Ads"], enable_async=True)
        waiting.adserver = ads  # type: ignore[attr-defined]
        number: Any = asyncio.run(waiting.from_string("{{ 1 }}").render_async())
        assert number == 1
        assert slots(asyncio.run(waiting.from_string("{% ad 889990 %}!").render_async())) == ["889990"]


def test_what_is_rendered_for_somewhere_else_is_completed_by_itself(service: Service) -> None:
    """
    A mail that is made while a page is, by another environment or with words of its own, has its own ads and format.
    """
    with closing(Client(service.url, **PATIENT)) as ads:
        pages, mails = jinja(ads), jinja(ads)
        mail = "MAIL{% ad 889991 %}"
        for environment in (pages, mails):
            letter = environment.from_string(mail)
            sent: list[str] = []

            def send(letter: Any = letter, sent: list[str] = sent) -> str:
                sent.append(letter.render(adserver={"format": "email", "issue": "today"}))
                return ""

            page = pages.from_string("{% ad 889990 %}{{ send() }}").render(send=send, adserver=ABOUT)
            assert slots(page) == ["889990"]
            assert re.search(r'^MAIL.*<a href="[^"]*/e/889991/today', sent[0], re.DOTALL), sent

        for said in ({}, {"adserver": ABOUT}):
            foot = partial(pages.from_string("{% ad 889991 %}").render, **said)
            page = pages.from_string("{{ foot() | safe }}").render(foot=foot, adserver=ABOUT)
            assert slots(page) == ["889991"], "a part of the page, whether or not it is told the same again"
        assert slots(mails.from_string("{{ x() | safe }}").render(x=foot)) == ["889991"]


def test_a_task_that_outlives_its_page_has_ads_of_its_own(service: Service) -> None:
    """
    What a page's template sets off and leaves behind is no part of it any more.
    """

    async def show(ads: AsyncClient) -> str:
        environment = jinja(ads, enable_async=True)
        over = asyncio.Event()
        tasks = []

        async def later() -> str:
            await over.wait()
            return str(await environment.from_string("{% ad 889991 %}").render_async())

        def begin() -> str:
            tasks.append(asyncio.create_task(later()))
            return ""

        await environment.from_string("{{ begin() }}").render_async(begin=begin)
        over.set()
        return await tasks[0]

    with closing(AsyncClient(service.url, **PATIENT)) as ads:
        assert slots(asyncio.run(show(ads))) == ["889991"]


def test_an_ordinary_page_asks_nobody() -> None:
    """
    A page without ads is as it was, and costs no call.
    """
    with peer("hangs") as there, closing(Client(there.url)) as ads:
        environment = jinja(ads)
        assert environment.from_string("<p>{{ x }}</p>").render(x="<") == "<p>&lt;</p>"
        assert environment.from_string("{% ad none %}{{ none|ads }}{{ missing|ads }}-").render() == "-"
        assert there.calls == 0


def test_a_part_rendered_by_itself_is_filled_with_its_page(service: Service) -> None:
    """
    A template rendered by a function of another, and a stream, are parts of one page: one call.
    """
    with closing(Client(service.url, **PATIENT)) as ads:
        environment = jinja(ads)
        foot = environment.get_template("foot.html")
        page = environment.from_string("{% ad 889990 %}{{ foot()|safe }}")
        before = service.metric(CALLS)
        first = page.render(foot=lambda: foot.render(place="article-middle"))
        assert slots(first) == ["889990", "889980"]
        assert slots("".join(page.generate(foot=lambda: foot.render(place="article-middle")))) == slots(first)
        eventually(lambda: service.metric(CALLS) == before + 2)


def test_an_environment_without_a_client_shows_pages_without_ads(caplog: pytest.LogCaptureFixture) -> None:
    """
    A forgotten setting is told once and harms no page.
    """
    environment = jinja(None)
    render = environment.get_template("article.html").render
    pages = [render(title="Tide & time", body=ARTICLE, place="article-middle") for _ in range(3)]
    assert_whole(pages[0])
    assert [record.getMessage() for record in caplog.records] == [
        "the environment's 'adserver' is None; expected a Client or AsyncClient"
    ]


def test_without_escaping_an_article_stays_text(service: Service) -> None:
    """
    An environment that does not escape, as for text mails, gets plain text back from the filter.
    """
    with closing(Client(service.url, **PATIENT)) as ads:
        environment = jinja(ads)
        environment.autoescape = False
        page = environment.from_string('{{ (body|ads) ~ "<i>" }}').render(body='<b>[the_ad id="889990"]')
    assert page.startswith("<b><aside ")
    assert page.endswith("</aside><i>")


@pytest.mark.parametrize(
    ("url", "options"),
    [("127.0.0.1:8000", {}), ("ftp://a", {}), ("http://a?b", {}), ("http://a", {"budget_s": 0}),
     ("http://a", {"form": "pdf"}), ("http://a", {"pause_s": -1})],
)  # fmt: skip
def test_a_client_that_cannot_be_meant_is_refused_when_it_is_made(url: str, options: dict[str, Any]) -> None:
    """
    A wrong setting is told at start, in words, and not by pages without ads.
    """
    with pytest.raises(ValueError, match=r"expected|none of"):
        Client(url, **options)
