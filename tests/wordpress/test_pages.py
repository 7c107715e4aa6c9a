"""Pages of a real WordPress with the plugin: filled, empty, cached, and with a service that is away."""

import json
import re
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.client.peers import FAULTS, SLOW, peer
from tests.page.conftest import AGENT
from tests.service.live import Service, eventually, tokens
from tests.wordpress.conftest import EMPTY, calls
from tests.wordpress.site import WordPress, quote

SIX = ["889990", "889991", "889992", "889977", "889994", "889993"]
ARTICLE = "<p>The council meets on Friday.</p>\n\n" + "\n\n".join(
    f'[the_ad id="{slot}"]\n\n<p>Paragraph after {slot}, with a [bracket].</p>' for slot in SIX
)
ASIDE = re.compile(r"<aside class=\"adserver.*?</aside>", re.DOTALL)
PHONE = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/140.0.0.0 Mobile Safari/537.36"


def slots(page: str) -> list[str]:
    """The slots that show an ad, in the page's order."""
    return re.findall(r'<aside class="adserver[^>]* data-slot="(\d+)"', page)


def main(page: str) -> str:
    """The article's part of a page."""
    found = re.search(r"<main>(.*)</main>", page, re.DOTALL)
    assert found, page
    return found[1]


def assert_bare(page: str) -> None:
    """No ad, no shortcode, no mark, and every paragraph of the article."""
    assert slots(page) == []
    assert "the_ad" not in page
    assert "<!--adserver" not in page
    assert [slot for slot in SIX if f"Paragraph after {slot}, with a [bracket]." in page] == SIX


def test_an_article_has_its_six_ads_by_one_call(site: WordPress, service: Service) -> None:
    """
    Six shortcodes, six ads in their places, one call to the service; no cache may keep the page, for its tokens.
    """
    site.set(url=service.url)
    path, before = site.post(ARTICLE), calls(service)
    answer = site.read(path)
    assert slots(answer.text) == SIX
    assert calls(service) - before == 1
    assert len(set(tokens(answer.text))) == 6
    assert "the_ad" not in answer.text
    assert answer.headers["cache-control"] == "private, no-cache"
    assert "set-cookie" not in answer.headers
    assert_bare(ASIDE.sub("", answer.text))
    assert set(tokens(site.read(path).text)).isdisjoint(tokens(answer.text))


def kept(page: Page) -> bool:
    """Whether the browser shows it from its back/forward cache; no, while it is on the way there."""
    with suppress(Error):
        return bool(page.evaluate("window.kept"))
    return False


def test_going_back_shows_the_same_view(site: WordPress, service: Service, browser: Browser) -> None:
    """
    The browser itself may keep the page: going back makes no new one, so that nothing is asked for or counted again.
    """
    site.set(url=service.url, public_url=service.url, mode="snippet")
    path, other = site.post(ARTICLE), site.post("<p>Other news.</p>")
    page = browser.new_page(user_agent=AGENT)
    page.add_init_script("addEventListener('pageshow', (event) => { window.kept = event.persisted; })")
    page.goto(site.url + path)
    before, seen = calls(service), tokens(page.content())
    page.goto(site.url + other)
    page.evaluate("history.back()")
    eventually(lambda: kept(page) or None, 10, "the way back")
    assert page.url == site.url + path
    assert tokens(page.content()) == seen
    assert calls(service) == before
    page.close()


def test_what_may_not_be_kept_at_all_stays_so(site: WordPress, service: Service) -> None:
    """
    A page that somebody else has marked as never to be kept, such as one for members, does not get kept for its ads.
    """
    site.set(url=service.url)
    site.php("return update_option( 'courier_is_strict', 1 );")
    try:
        answer = site.read(site.post(ARTICLE))
    finally:
        site.php("return delete_option( 'courier_is_strict' );")
    assert slots(answer.text) == SIX
    assert answer.headers["cache-control"] == "no-store"


def test_a_whole_page_is_one_call(site: WordPress, service: Service) -> None:
    """
    Shortcodes, groups, placements, blocks, widgets and the theme's own tags are decided together.
    """
    site.set(url=service.url)
    path = site.post(
        '[the_ad id="889990"]\n\n[the_ad_group id="side-rail"]\n\n[the_ad_placement id="article-middle"]\n\n'
        '<!-- wp:adserver/ad {"id":"889991"} /-->\n\n'
        '<!-- wp:adserver/ad {"kind":"the_ad_placement","id":"article-rail","align":"wide"} /-->\n\n'
        f'<!-- wp:shortcode -->[the_ad id="{EMPTY}"]<!-- /wp:shortcode -->'
    )
    widgets = {"2": {"kind": "the_ad", "id": "889992"}, "_multiwidget": 1}
    site.php(
        f"update_option( 'widget_adserver_ad', {quote(widgets)} ); update_option( 'courier_tag', 'front-billboard' );"
        "update_option( 'sidebars_widgets', array( 'rail' => array( 'adserver_ad-2' ), 'array_version' => 3 ) );"
    )
    try:
        before = calls(service)
        page = site.read(path).text
        assert calls(service) - before == 1
    finally:
        site.php("delete_option( 'widget_adserver_ad' ); delete_option( 'courier_tag' );")
    found = slots(page)
    assert found[:2] == ["889985", "889990"]
    assert found[2] in ("889982", "889983", "889984")
    assert found[3:5] == ["889980", "889991"]
    assert found[-1] == "889992"
    assert re.search(r'<div class="alignwide wp-block-adserver-ad">(<aside.*?</aside>)?</div>', page, re.DOTALL)
    assert re.search(r'<section class="widget"><aside class="adserver[^>]*data-slot="889992"', page)


def test_a_page_sent_in_parts_is_two_calls_at_most(site: WordPress, service: Service) -> None:
    """
    A theme that flushes in the middle gets its ads all the same; a third part would go without.
    """
    site.set(url=service.url)
    path = site.post(ARTICLE)
    site.php("update_option( 'courier_flushes', 1 ); update_option( 'courier_tag', 'front-billboard' );")
    try:
        before = calls(service)
        page = site.read(path).text
    finally:
        site.php("delete_option( 'courier_flushes' ); delete_option( 'courier_tag' );")
    assert slots(page) == ["889985", *SIX]
    assert calls(service) - before == 2


def test_a_page_without_ads_asks_nobody(site: WordPress, service: Service) -> None:
    """
    Without shortcodes there is no call, and caches may keep the page as before.
    """
    site.set(url=service.url)
    path, before = site.post("<p>Nothing to sell [here].</p>"), calls(service)
    answer = site.read(path)
    assert calls(service) == before
    assert "cache-control" not in answer.headers


def test_before_anything_is_set_shortcodes_are_nothing(site: WordPress) -> None:
    """
    A plugin that was just switched on shows no raw shortcode.
    """
    site.set()
    assert_bare(site.read(site.post(ARTICLE)).text)


def test_a_stopped_service_costs_one_page_its_budget_and_the_others_nothing(
    site: WordPress, stoppable: Service
) -> None:
    """
    Without the service the article is there without ads and without shortcodes, at most 0.3 s later than usual.
    """
    site.set(url=stoppable.url)
    plain = site.post(ARTICLE.replace("[the_ad", "[other"))
    usual = statistics.median(timed(site, plain)[0] for _ in range(5))
    stoppable.stop()
    path = site.post(ARTICLE)
    first, page = timed(site, path)
    assert_bare(page)
    assert first < usual + 0.3 + SLACK_S
    log = site.log()
    assert log.count("adserver: ") == 1
    assert stoppable.url in log
    assert "tried again every 30 s" in log
    for _ in range(3):
        assert_bare(timed(site, path)[1])
    assert site.log().count("adserver: ") == 1


SLACK_S = 0.5
"""What two busy cores may add to a page; the plugin's own part is asserted by `waits`."""


def timed(site: WordPress, path: str) -> tuple[float, str]:
    began = time.monotonic()
    page = site.read(path).text
    return time.monotonic() - began, page


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_service_does_the_page_is_whole(site: WordPress, fault: str) -> None:
    """
    Each fault of a service costs a page its ads and at most 0.3 s, and then nobody asks for 30 s.
    """
    with peer(fault) as there:
        site.set(url=there.url)
        path = site.post(ARTICLE)
        took, page = timed(site, path)
        assert_bare(page)
        assert there.calls == 1
        if fault in SLOW:
            assert took < 0.3 + 2 * SLACK_S
        for _ in range(2):
            assert_bare(site.read(path).text)
        assert there.calls == 1, "nobody asks during the pause"
    assert site.log().count("adserver: ") == 1


@pytest.mark.parametrize(("fault", "curl"), [*((fault, True) for fault in SLOW), ("hangs", False), ("pours", False)])
def test_what_hangs_is_left_after_the_budget(site: WordPress, fault: str, curl: bool) -> None:
    """
    The plugin itself waits for 0.3 s, whether nothing comes, or a byte now and then, or more than anybody can use.

    Where PHP has no cURL, WordPress limits each read only: a byte now and then, before the body, holds a page up.
    """
    with peer(fault) as there:
        site.set(url=there.url)
        took = site.php(
            f"add_filter( 'use_curl_transport', '__return_{str(curl).lower()}' );"
            "$began = microtime( true ); $html = apply_filters( 'the_content', '[the_ad id=\"889990\"]' );"
            "return array( microtime( true ) - $began, $html );"
        )
    assert 0.29 < took[0] < 0.3 + 0.15
    assert "ad" not in took[1]


def test_the_last_good_ads_are_shown_as_long_as_they_may(site: WordPress, stoppable: Service) -> None:
    """
    While the service is away a page has the ads it had, until something in them may have changed.
    """
    site.set(url=stoppable.url)
    path, other = site.post(ARTICLE), site.post(ARTICLE)
    good = site.read(path).text
    stoppable.stop()
    assert_bare(site.read(other).text)
    assert tokens(site.read(path).text) == tokens(good)
    kept = site.php(
        'global $wpdb; return $wpdb->get_col( "SELECT option_value FROM $wpdb->options'
        " WHERE option_name LIKE '\\\\_transient\\\\_timeout\\\\_adserver\\\\_kept%'\" );"
    )
    assert len(kept) == 1
    assert 0 < int(kept[0]) - time.time() <= 3600
    site.php(
        'global $wpdb; $wpdb->query( "UPDATE $wpdb->options SET option_value = 1'
        " WHERE option_name LIKE '\\\\_transient\\\\_timeout\\\\_adserver\\\\_kept%'\" );"
    )
    assert_bare(site.read(path).text)


def test_ads_chosen_for_a_known_reader_are_kept_for_nobody(site: WordPress, service: Service) -> None:
    """
    Where the site names its reader, the answer is theirs alone.
    """
    site.set(url=service.url)
    found = site.php(
        "add_filter( 'adserver_about', function ( $facts ) { return array( 'reader' => 'a81f' ) + $facts; } );"
        "$html = apply_filters( 'the_content', '[the_ad id=\"889990\"]' ); global $wpdb;"
        'return array( $html, $wpdb->get_var( "SELECT COUNT(*) FROM $wpdb->options'
        " WHERE option_name LIKE '%adserver_kept%'\" ) );"
    )
    assert slots(found[0]) == ["889990"]
    assert found[1] == "0"


def test_when_the_pause_is_over_one_page_tries(site: WordPress, stoppable: Service) -> None:
    """
    After 30 s one process asks and the others go on without; when it is answered, all have ads again.
    """
    site.set(url=stoppable.url)
    path = site.post(ARTICLE)
    stoppable.stop()
    assert_bare(site.read(path).text)
    outage = site.php("return get_transient( 'adserver_outage' );")
    assert 29 < outage["until"] - outage["since"] < 31
    later = "$o = get_transient( 'adserver_outage' ); $o['until'] -= 31; set_transient( 'adserver_outage', $o );"
    ask = "return Adserver\\Outage::may_call();"
    assert site.php(ask) is False
    site.php(later)
    assert [site.php(ask), site.php(ask)] == [True, False]
    stoppable.start()
    assert_bare(site.read(path).text)
    site.php(later)
    assert slots(site.read(path).text) == SIX
    assert slots(site.read(path).text) == SIX


def at_once(site: WordPress, n: int, reads: str, then: str) -> list[Any]:
    """What *then* returns in *n* processes, none of which begins with it before all of them have done *reads*."""
    waiting = Path(mkdtemp(dir=site.home))
    code = (
        f"{reads}; touch( '{waiting}/' . getmypid() );"
        f"while ( count( glob( '{waiting}/*' ) ) < {n} ) {{ usleep( 500 ); }} return {then};"
    )
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(lambda _: site.php(code), range(n)))


def test_an_outage_is_one_line_and_one_pause_however_many_meet_it(site: WordPress) -> None:
    """
    Pages that were all waiting when the service went away tell of it once; and when a pause is over, one of them asks.
    """
    site.set(url="http://127.0.0.1:1")
    for kind in ("never away before", "away before"):
        site.forget_log()
        at_once(site, 4, "Adserver\\Outage::may_call()", "Adserver\\Outage::failed( 'it is away' )")
        assert site.log().count("adserver: it is away") == 1, kind
        site.php("$o = Adserver\\Outage::now(); $o['until'] -= 40; return set_transient( 'adserver_outage', $o );")
        found = at_once(site, 4, "Adserver\\Outage::now()", "Adserver\\Outage::may_call()")
        assert sorted(found) == [False, False, False, True]
        site.php("return Adserver\\Outage::failed( 'still away' );")
        assert "still away" not in site.log()
        site.php("return Adserver\\Outage::answered();")
        assert site.php("return array( Adserver\\Outage::now(), Adserver\\Outage::may_call() );") == [None, True]


def test_an_outage_is_known_to_an_object_cache_as_well(site: WordPress) -> None:
    """
    Where transients are in an object cache and not in the database the same holds, by its own lock.
    """
    site.set(url="http://127.0.0.1:1")
    found = site.php(
        "wp_using_ext_object_cache( true ); $found = array( Adserver\\Outage::may_call() );"
        'foreach ( array( 1, 2 ) as $again ) { Adserver\\Outage::failed( "it is away \\xff\\n" ); }'
        "$found[] = Adserver\\Outage::may_call(); $o = Adserver\\Outage::now(); $o['until'] -= 40;"
        "set_transient( 'adserver_outage', $o );"
        "$found[] = Adserver\\Outage::may_call(); $found[] = Adserver\\Outage::may_call();"
        "set_transient( 'adserver_outage', $o ); $found[] = Adserver\\Outage::may_call();"  # stale
        "Adserver\\Outage::answered(); $found[] = Adserver\\Outage::may_call(); return $found;"
    )
    assert found == [True, False, True, False, False, True]
    assert site.log().count("adserver: it is away;") == 1


def rows(site: WordPress, *, loaded_always: bool = False) -> int:
    """How many rows the plugin has in the table of options, of what it keeps for outages."""
    more = " AND autoload = 'yes'" if loaded_always else ""
    found = site.php(
        'global $wpdb; return $wpdb->get_var( "SELECT COUNT(*) FROM $wpdb->options'
        f" WHERE option_name LIKE '%adserver\\_kept%'{more}\" );"
    )
    return int(found)


def test_made_up_addresses_fill_no_database(site: WordPress, service: Service) -> None:
    """
    Anybody can ask for a page that is not there, or for any word; of articles a fixed number of answers is kept.
    """
    site.set(url=service.url)
    path = site.post(ARTICLE)
    site.php("return update_option( 'courier_tag', 'front-billboard' );")
    try:
        before = calls(service)
        for number in range(20):
            answer = site.http.get(f"/2026/made-up-{number}/")
            assert (answer.status_code, slots(answer.text)) == (404, ["889985"])
            assert "889985" in slots(site.read(f"/search/{number}/").text)
        assert calls(service) - before == 40
        assert rows(site) == 0
        site.read(path)
        assert rows(site) == 2
    finally:
        site.php("return delete_option( 'courier_tag' );")
    kept = site.php(
        'for ( $i = 0; $i < 2000; $i++ ) { Adserver\\Outage::keep( "question $i", array( "answer $i" ), 3600 ); }'
        "Adserver\\Outage::keep( 'a question', array( str_repeat( 'x', 70000 ) ), 3600 );"
        "$found = array(); for ( $i = 0; $i < 2000; $i++ ) {"
        ' $one = Adserver\\Outage::last_good( "question $i" ); if ( $one ) { $found[ $i ] = $one[0]; } }'
        "return array( $found, Adserver\\Outage::last_good( 'a question' ) );"
    )
    assert 200 < len(kept[0]) <= 256
    assert all(answer == f"answer {number}" for number, answer in dict(kept[0]).items())
    assert kept[1] is None
    assert rows(site) <= 2 * 256
    assert rows(site, loaded_always=True) == 0


def test_advanced_ads_may_stay_installed(site: WordPress, service: Service) -> None:
    """
    Another plugin that registers the shortcodes, as late as it likes, does not get to answer them.
    """
    site.set(url=service.url)
    path = site.post(f'{ARTICLE}[the_ad_placement id="article-middle"] [[the_ad id="889990"]')
    active = "array( 'adserver/adserver.php' )"
    site.php(f"update_option( 'active_plugins', array_merge( {active}, array( 'advanced-ads-stand-in.php' ) ) );")
    try:
        page = site.read(path).text
    finally:
        site.php(f"update_option( 'active_plugins', {active} );")
    assert "an ad of the other plugin" not in page
    assert slots(page) == [*SIX, "889980", "889990"]
    assert re.search(r"</aside> \[<aside", page), "the bracket of a half escaped shortcode stays"


def test_a_page_says_what_it_is_about(site: WordPress, service: Service) -> None:
    """
    Categories are sections, tags are tags; language and device are told, too: a booking for all four finds its page.
    """
    site.set(url=service.url)
    category = site.php("return wp_insert_term( 'Sport', 'category' )['term_id'];")
    told = site.post('[the_ad id="889988"]', post_category=[category], tags_input=["Football"])
    other = site.post('[the_ad id="889988"]', post_category=[category])
    headers = {"user-agent": PHONE}
    assert 'data-line-item="of-sport"' in site.read(told, **headers).text
    assert 'data-line-item="of-sport"' not in site.read(other, **headers).text
    assert 'data-line-item="of-sport"' not in site.read(told).text


def test_a_call_holds_nothing_of_the_reader_but_their_device_and_wishes(site: WordPress) -> None:
    """
    No cookie, address or name of the reader's goes to the service; that they want privacy does.
    """
    heard: list[bytes] = []

    def note(connection: Any, stopping: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")

    with peer("notes", answer=note, heard=heard) as there:
        site.set(url=there.url)
        path = site.post('[the_ad id="889990"] [the_ad_group id="side-rail"]', post_title="Über uns & mehr")
        headers = {"cookie": "session=1", "sec-gpc": "1", "x-forwarded-for": "192.0.2.7", "user-agent": PHONE}
        site.read(f"{path}?secret=1", **headers)
    [request] = heard
    head, _, body = request.partition(b"\r\n\r\n")
    line, *said = head.decode().split("\r\n")
    assert re.fullmatch(
        r"POST /render\?repair=0&section=uncategorized&lang=en-US&device=mobile"
        r"&url=http%3A%2F%2F127.0.0.1%3A\d+%2F2\d{3}%2F\d\d%2F\d\d%2F[^&?]+ HTTP/1.1",
        line,
    ), line
    assert "secret" not in head.decode()
    names = {one.partition(":")[0].lower() for one in said}
    assert names == {
        "host", "user-agent", "accept", "accept-encoding", "content-type", "content-length", "connection", "sec-gpc",
    } | ({"referer"} & names)  # fmt: skip
    assert re.fullmatch(rb'\[the_ad id="889990"\]\n\w+\n\[the_ad_group id="side-rail"\]', body)


HOSTILE = [
    "[the_ad id='\"><script>alert(1)</script>']",
    '[the_ad id="889990-->x"]',
    '[the_ad id="889990&amp;id=1"]',
    '[the_ad id="../889990"]',
    f'[the_ad id="{"8" * 5000}"]',
    '[the_ad id="８８９９９０"]',
    '[the_ad_placement id="<img src=x onerror=alert(1)>"]',
    "[the_ad]",
    "[the_ad 889990]",
    '<!-- wp:adserver/ad {"id":"\\u0022\\u003e\\u003cscript\\u003ealert(1)\\u003c/script\\u003e"} /-->',
    '<!-- wp:adserver/ad {"kind":"the_ad onload=x","id":"889990 x"} /-->',
    '<!-- wp:adserver/ad {"kind":["the_ad"],"id":{"a":1}} /-->',
    "<!--adserver the_ad 889990 0123456789abcdef-->",
]


def test_hostile_values_come_to_nothing(site: WordPress, service: Service) -> None:
    """
    What is no id asks for nothing and is shown nowhere; nor can anybody but the site itself write a mark.
    """
    site.set(url=service.url)
    paths = site.posts([f"<p>Before</p>\n\n{code}\n\n<p>After</p>" for code in HOSTILE])
    before = calls(service)
    for path, code in zip(paths, HOSTILE, strict=True):
        article = main(site.read(path).text)
        assert "script>" not in article, code
        assert "onerror" not in article, code
        assert "[the_ad" not in article, code
        assert re.search(r"<p>Before</p>.*<p>After</p>", article, re.DOTALL), code
    assert calls(service) == before


def test_an_ad_is_put_only_where_html_stands(site: WordPress, service: Service) -> None:
    """
    In attributes, scripts, titles and text that was escaped an ad would break the page: there is nothing instead.
    """
    site.set(url=service.url)
    found = site.php(
        "$mark = do_shortcode( '[the_ad id=\"889990\"]' ); return Adserver\\Page::fill("
        " '<title>' . $mark . '</title><p title=\"' . esc_attr( $mark ) . '\" ' . $mark . '>a</p>'"
        " . '<script>var a = ' . wp_json_encode( $mark ) . ', b = \"' . $mark . '\";</script>'"
        " . '<textarea>' . esc_textarea( $mark ) . $mark . '</textarea><style>' . $mark . '</style>'"
        " . '<!-- <script> --><p>3 < 4' . wptexturize( esc_html( $mark ) ) . $mark . '</p>' );"
    )
    assert len(slots(found)) == 1
    assert ASIDE.sub("{AD}", found) == (
        '<title></title><p title="" >a</p><script>var a = "", b = "";</script><textarea></textarea><style></style>'
        "<!-- <script> --><p>3 < 4{AD}</p>"
    )


def test_no_ad_is_put_into_what_only_looks_like_html(site: WordPress, service: Service) -> None:
    """
    A `>` in an attribute ends no tag, a document within an attribute is an attribute, a comment is no place for an ad.
    """
    site.set(url=service.url)
    places = [
        ('<p title="x > y {}">a</p>', False),
        ("<p title='x > \"y\" {}'>a</p>", False),
        ('<p title = "x > y"{}>a</p>', False),
        ('<iframe srcdoc="<p>{}</p>"></iframe>', False),
        ("<iframe>{}</iframe>", False),
        ("<!--{}-->", False),
        ("<!-- {} --><p>b</p>", False),
        ("<!-- <p> -- > {} --!><p>b</p>", False),
        ("<!doctype {}>", False),
        ("<? {} ?>", False),
        ("</ {}>", False),
        ('<script>"<!--<script></script>{}"</script>', False),
        ('<a href="x>{}</a>', False),
        ('<p title="x > y">{}</p>', True),
        ("<p title=it's>{}</p>", True),
        ('<p title=">" \'>{}</p>', True),
        ("<iframe srcdoc='<p>'></iframe>{}", True),
        ("<!-->{}<p>c</p>", True),
        ("<!---->{}<p>c</p>-->", True),
        ("<!-- a --!>{}", True),
        ("<!doctype html>{}", True),
        ("3 < 4 {} > 2", True),
        ("<script>'<!--'</script>{}", True),
        ("<script>'<!--<script>-->'</script>{}", True),
        ("<title>a</title >{}", True),
    ]
    texts = [text for text, _ in places]
    found = site.php(
        "$mark = do_shortcode( '[the_ad id=\"889990\"]' ); return array_map( function ( $text ) use ( $mark ) {"
        f" return Adserver\\Page::fill_alone( str_replace( '{{}}', $mark, $text ) ); }}, {quote(texts)} );"
    )
    shown = [(ASIDE.sub("{}", html), bool(slots(html))) for html in found]
    assert shown == [(text if is_html else text.replace("{}", ""), is_html) for text, is_html in places]


PIECES = (
    "<p>", "</p>", '<p title="', "<a href=x>", "<a b='", '"', "'", ">", " x ", "=", " = ", "/", "-", "< ", "<br/>",
    "<!--", "-->", "--!>", "<!-->", "<!", "<?", "</ ", "</>", "<![CDATA[", "]]>", "<script>", "</script>", "<script ",
    "<style>", "</style>", "<title>", "</title>", "<textarea>", "</textarea >", '<iframe srcdoc="', "</iframe>",
    "<xmp>", "</xmp>",
)  # fmt: skip


def test_html_is_read_as_a_browser_reads_it(site: WordPress, browser: Browser) -> None:
    """
    In two thousand heaps of broken markup an element may be put just where Chromium makes an element of it.
    """
    dice = Random(6)
    texts = []
    for _ in range(2000):
        pieces = dice.choices(PIECES, k=dice.randint(1, 9))
        at = dice.randint(0, len(pieces))
        texts.append(["".join(pieces[:at]), "".join(pieces[at:])])
    mine = site.php(
        "return array_map( function ( $text ) { return ( new Adserver\\Reading( implode( '', $text ) ) )"
        f"->is_html_at( strlen( $text[0] ) ); }}, {quote(texts)} );"
    )
    page = browser.new_page()
    real = page.evaluate(
        """(texts) => texts.map(([before, after]) => {
            const read = new DOMParser().parseFromString(`${before}<aside data-ad></aside>${after}`, "text/html");
            return read.querySelector("aside[data-ad]") !== null;
        })""",
        texts,
    )
    page.close()
    assert 300 < sum(real) < 1700
    assert [(text, ours) for text, ours, theirs in zip(texts, mine, real, strict=True) if ours != theirs] == []


def test_a_feed_has_no_ads_and_no_shortcodes(site: WordPress, service: Service) -> None:
    """
    A feed reader is no page view.
    """
    site.set(url=service.url)
    site.post(f"{ARTICLE} Zeebrugge")
    before = calls(service)
    feed = site.read("/?s=Zeebrugge&feed=rss2").text
    assert feed.count("<item>") == 1
    assert "Paragraph after 889990" in feed
    assert "the_ad" not in feed
    assert "<aside" not in feed
    assert calls(service) == before


def test_the_rest_api_gives_articles_with_their_ads(site: WordPress, service: Service) -> None:
    """
    A site that shows WordPress's articles by its API gets each of them filled, by one call.
    """
    site.set(url=service.url)
    number = re.search(r"\?p=(\d+)", site.read(site.post(ARTICLE)).headers["link"])
    assert number
    before = calls(service)
    article = site.read(f"/wp-json/wp/v2/posts/{number[1]}").json()
    assert slots(article["content"]["rendered"]) == SIX
    assert "the_ad" not in article["excerpt"]["rendered"]
    assert calls(service) - before == 1


def test_a_list_by_the_rest_api_is_one_call(site: WordPress, service: Service) -> None:
    """
    A list of articles is filled at once, by a hundred ads at most: those behind them have none, and no mark either.
    """
    site.set(url=service.url)
    numbers = [
        re.findall(r"\?p=(\d+)", site.read(path).headers["link"])[0]
        for path in site.posts([f"{ARTICLE} Nr. {number}" for number in range(20)])
    ]
    before = calls(service)
    answer = site.read(f"/wp-json/wp/v2/posts?per_page=100&orderby=id&order=asc&include={','.join(numbers)}")
    assert calls(service) - before == 1
    assert answer.headers["cache-control"] == "private, no-cache"
    articles = [article["content"]["rendered"] for article in answer.json()]
    assert len(articles) == 20
    assert slots(articles[0]) == SIX
    assert slots(articles[19]) == []
    assert 6 <= sum(len(slots(article)) for article in articles) <= 100
    assert "the_ad" not in answer.text
    assert all(f"Nr. {number}" in article for number, article in enumerate(articles))


def test_a_list_by_the_rest_api_waits_once(site: WordPress) -> None:
    """
    A service that hangs costs a whole list of articles 0.3 s.
    """
    with peer("hangs") as there:
        site.set(url=there.url)
        site.posts([f"{ARTICLE} Antwerp"] * 5)
        took, text = timed(site, "/wp-json/wp/v2/posts?per_page=5&search=Antwerp")
        assert there.calls == 1
    assert took < 0.3 + 2 * SLACK_S
    assert len(json.loads(text)) == 5
    assert "the_ad" not in text
    assert "<aside" not in text


def test_whatever_is_no_page_makes_two_calls_at_most(site: WordPress, service: Service) -> None:
    """
    What a theme makes of articles outside of pages, such as more of them on scrolling, has one budget for all of them.
    """
    site.set(url=service.url)
    before = calls(service)
    more = site.read("/wp-admin/admin-ajax.php?action=courier_more&slots=889990,889991,889992,889977").text
    assert calls(service) - before == 2
    assert [slots(article) for article in more.split("|")[:4]] == [["889990"], ["889991"], [], []]
    assert "the_ad" not in more
    with peer("drips") as there:
        site.set(url=there.url)
        took, more = timed(site, "/wp-admin/admin-ajax.php?action=courier_more&slots=889990,889991,889992,889977")
        assert there.calls == 1
    assert took < 0.3 + 2 * SLACK_S
    assert "ad" not in more


def test_the_desk_asks_for_no_ads(site: WordPress, service: Service) -> None:
    """
    Writing an article is no view of it: neither the editor nor what it loads counts anything.
    """
    site.set(url=service.url)
    like_a_mark = "<!--adserver the_ad 889990 0123456789abcdef-->"
    [number] = re.findall(r"\?p=(\d+)", site.read(site.post(ARTICLE + like_a_mark)).headers["link"])
    before = calls(service)
    with site.signed_in() as http:
        site.forget_log()  # the desk's first page asks for updates, which is not allowed here
        page = http.get(f"/wp-admin/post.php?post={number}&action=edit").text
        nonce = http.get("/wp-admin/admin-ajax.php?action=rest-nonce").text
        article = http.get(f"/wp-json/wp/v2/posts/{number}?context=edit", headers={"x-wp-nonce": nonce}).json()
    assert "Paragraph after 889990" in page
    assert article["content"]["raw"] == ARTICLE + like_a_mark, "what was written stays so"
    assert "adserver the_ad" not in article["content"]["rendered"]
    assert page.count("adserver the_ad") == page.count(like_a_mark[3:].removesuffix("-->"))
    assert "data-line-item" not in page + article["content"]["rendered"]
    assert calls(service) == before
