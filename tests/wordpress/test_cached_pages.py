"""Pages behind a page cache: boxes that each reader's browser fills, and how the loader is put on a page."""

import re
from html import unescape
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page

from tests.page.conftest import AGENT
from tests.service.live import REPOSITORY, Service, eventually, free_port, tokens
from tests.wordpress.conftest import EMPTY, calls
from tests.wordpress.site import WordPress, quote
from tests.wordpress.test_pages import ARTICLE, SIX, assert_bare, main, slots


def _note(page: Page, complaints: list[str], asked: list[str]) -> None:
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: asked.append(request.url))


def boxes(page: str) -> list[str]:
    return re.findall(r'<div class="adserver adserver-placeholder" data-adserver-slot="(\d+)"', page)


def test_a_kept_page_holds_boxes_and_no_token(site: WordPress, service: Service) -> None:
    """
    Where a page cache is on, pages carry boxes by themselves; the cache keeps them, and nobody is asked again.
    """
    site.set(url=service.url, public_url=service.url)
    with site.page_cache():
        path, before = site.post(ARTICLE), calls(service)
        made, kept = site.read(path), site.read(path)
        another = site.read(site.post(ARTICLE + " Also."))
        asked = calls(service) - before
    assert "x-page-cache" not in made.headers
    assert kept.headers["x-page-cache"] == "hit"
    assert made.text == kept.text
    assert boxes(kept.text) == boxes(another.text) == SIX
    assert tokens(kept.text) == slots(kept.text) == []
    assert "the_ad" not in main(kept.text)
    assert "cache-control" not in made.headers
    assert asked == 1, "what the boxes of six slots look like is asked once for all pages that have these"


def test_each_reader_of_a_kept_page_has_ads_of_their_own(site: WordPress, service: Service, browser: Browser) -> None:
    """
    Two readers of one kept page: six ads each, by one call each, with tokens of their own, and nothing on the device.
    """
    site.set(url=service.url, public_url=service.url)
    found: list[list[str]] = []
    with site.page_cache():
        path = site.post(ARTICLE)
        site.read(path)
        for _ in range(2):
            context = browser.new_context(user_agent=AGENT)
            page = context.new_page()
            complaints: list[str] = []
            asked: list[str] = []
            _note(page, complaints, asked)
            answer = page.goto(site.url + path)
            assert answer is not None
            assert answer.headers["x-page-cache"] == "hit"
            page.wait_for_function("document.querySelectorAll('main aside img.adserver-pixel').length == 6")
            found.append(tokens(page.content()))
            assert len([one for one in asked if "/ads?" in one]) == 1
            assert complaints == []
            assert context.cookies() == []
            assert page.evaluate("[localStorage.length, sessionStorage.length]") == [0, 0]
            context.close()
    assert [len(one) for one in found] == [6, 6]
    assert set(found[0]).isdisjoint(found[1])


@pytest.mark.parametrize("mode", ["auto", "snippet"])
def test_a_page_made_while_the_service_is_away_is_not_kept(site: WordPress, mode: str) -> None:
    """
    A cache must not go on showing a page without its ads after the service is back.
    """
    gone = f"http://127.0.0.1:{free_port()}"
    site.set(url=gone, public_url=gone, mode=mode)
    with site.page_cache():
        path = site.post(ARTICLE)
        pages = [site.read(path) for _ in range(2)]
    for page in pages:
        assert "x-page-cache" not in page.headers
        assert_bare(page.text)


@pytest.mark.parametrize("settings", [{"mode": "snippet", "public_url": True}, {"mode": "auto"}])
def test_no_cache_keeps_a_page_with_its_ads(site: WordPress, service: Service, settings: dict[str, str | bool]) -> None:
    """
    WordPress's page caches do not look at headers: they are told by the constant, or the first reader's tokens would be
    everybody's. A page without ads they keep.
    """
    site.set(
        url=service.url, mode=str(settings["mode"]), **({"public_url": service.url} if "public_url" in settings else {})
    )
    with site.page_cache():
        path, plain = site.post(ARTICLE), site.post("<p>Nothing to sell here.</p>")
        pages = [site.read(path) for _ in range(3)]
        assert [site.read(plain).headers.get("x-page-cache") for _ in range(2)] == [None, "hit"]
    assert [page.headers.get("x-page-cache") for page in pages] == [None] * 3
    assert [slots(page.text) for page in pages] == [SIX] * 3
    assert len({token for page in pages for token in tokens(page.text)}) == 18


def test_a_kept_page_names_no_reader(site: WordPress, service: Service) -> None:
    """
    Who reads and whether they agreed is the next reader's own: a page that may be kept says neither. A page made for
    one view says both.
    """
    site.php("return update_option( 'courier_knows_readers', 1 );")
    try:
        found = {}
        for mode in ("placeholder", "snippet"):
            site.set(url=service.url, public_url=service.url, mode=mode)
            [found[mode]] = re.findall(
                rf"<script[^>]*{service.url}/loader[^>]*>", site.read(site.post(ARTICLE), **{"x-reader": "a81f"}).text
            )
    finally:
        site.php("return delete_option( 'courier_knows_readers' );")
    assert "data-section" in found["placeholder"]
    assert "reader" not in found["placeholder"]
    assert "consent" not in found["placeholder"]
    assert 'data-reader="a81f"' in found["snippet"]
    assert 'data-consent="1"' in found["snippet"]


TWICE = (
    '[the_ad id="889980"]\n\n<p>Between.</p>\n\n[the_ad_placement id="article-middle"]\n\n[the_ad_group id="side-rail"]'
    '\n\n[the_ad_group id="side-rail"]\n\n[the_ad id="889990"]\n\n[the_ad id="889990"]'
)


@pytest.mark.parametrize("flushes", [False, True])
def test_a_slot_has_one_box_a_page(site: WordPress, service: Service, flushes: bool) -> None:
    """
    The script fills a slot's first box; for a second one, by whatever name and in whatever part of the page, no room is
    kept. An article of its own has its own boxes.
    """
    site.set(url=service.url, public_url=service.url, mode="placeholder")
    path = site.post(TWICE)
    if flushes:
        site.php("update_option( 'courier_flushes', 1 ); return update_option( 'courier_tag', 'article-middle' );")
    try:
        page = site.read(path)
    finally:
        site.php("delete_option( 'courier_flushes' ); return delete_option( 'courier_tag' );")
    assert boxes(page.text) == ["889980", "889990"]
    assert page.text.count('data-adserver-group="side-rail"') == 1
    assert page.text.count("adserver-placeholder") == 3
    assert "the_ad" not in main(page.text)
    [number] = re.findall(r"\?p=(\d+)", page.headers["link"])
    other = re.findall(r"\?p=(\d+)", site.read(site.post(TWICE)).headers["link"])[0]
    articles = site.read(f"/wp-json/wp/v2/posts?include={number},{other}").json()
    assert [boxes(article["content"]["rendered"]) for article in articles] == [["889980", "889990"]] * 2


def test_twenty_cyrillic_tags_do_not_make_a_call_too_long(site: WordPress, service: Service, browser: Browser) -> None:
    """
    The service takes addresses of 2,048 bytes, and a Cyrillic letter needs six: what does not fit is not said.
    """
    words = [f"городской совет и бюджет района {number}" for number in range(20)]
    path = site.post(ARTICLE, tags_input=words, post_title="Заседание городского совета о бюджете района")
    site.set(url=service.url, public_url=service.url, mode="snippet")
    assert slots(site.read(path).text) == SIX
    query = site.php(
        f"return Adserver\\About::query( array( 'tags' => {quote(words)}, 'section' => {quote('ж' * 200)},"
        f" 'keys' => array( 'к' => {quote(words)} ), 'url' => {quote('http://a.example/' + '%D0%B6' * 200)} ), true );"
    )
    assert 1000 < len(f"/render{query}") < 1800
    site.set(url=service.url, public_url=service.url, mode="placeholder")
    [script] = re.findall(rf"<script[^>]*{service.url}/loader[^>]*>", site.read(path).text)
    said = dict(re.findall(r' data-(\w+)="([^"]*)"', script))
    tags = unescape(said["tags"]).split(", ")
    assert 5 <= len(tags) < 20
    assert len(urlencode([("tag", tag) for tag in tags])) <= 1200
    page = browser.new_page(user_agent=AGENT)
    asked: list[str] = []
    _note(page, [], asked)
    page.goto(site.url + path)
    page.wait_for_function("document.querySelectorAll('main aside img.adserver-pixel').length == 6")
    [call] = [one for one in asked if "/ads?" in one]
    assert "&tag=" in call
    assert len(call.removeprefix(service.url)) <= 2048
    page.close()


def test_placeholders_wait_for_a_public_address(site: WordPress, service: Service) -> None:
    """
    Without an address that browsers know nobody could fill a box: then pages carry the ads themselves.
    """
    site.set(url=service.url, mode="placeholder")
    assert slots(site.read(site.post(ARTICLE)).text) == SIX


def test_the_script_is_on_the_page_by_a_name_that_may_be_kept_for_ever(site: WordPress, service: Service) -> None:
    """
    Script and stylesheet stand in the head, deferred, with what the page says of itself, under their versioned names.
    """
    site.set(url=service.url, public_url=service.url)
    tag = site.php(
        "return wp_insert_term( 'Night \"shift\", <late>', 'post_tag', array( 'slug' => 'late' ) )['term_id'];"
    )
    page = site.read(site.post("<p>News</p>", tags_input=[tag])).text
    head = page.partition("</head>")[0]
    [script] = re.findall(rf"<script[^>]*{service.url}/loader[^>]*>", head)
    [style] = re.findall(rf"<link[^>]*{service.url}/loader[^>]*>", head)
    assert " defer " in script
    assert ' data-section="uncategorized" data-lang="en-US" data-tags="late"' in script
    assert "consent" not in script
    for found in (script, style):
        [name] = re.findall(r"/loader\.(?:js|css)\?v=[0-9a-f]{16}", found)
        assert "immutable" in service.http.get(name).headers["cache-control"]
    site.set(url=service.url)
    assert "loader" not in site.read(site.post("<p>News</p>")).text


def test_the_site_says_whether_its_reader_agreed(site: WordPress, service: Service) -> None:
    """
    Consent, keys and whatever else only the site knows are said by filters, and escaped where they land.
    """
    site.set(url=service.url, public_url=service.url)
    tag, query = site.php(
        "add_filter( 'adserver_consent', '__return_true' );"
        "add_filter( 'adserver_about', function ( $facts ) {"
        " return array( 'section' => '\"><x',"
        " 'keys' => array( 'edition' => 'late \"&', 'moods' => array( 'a', 'b' ) ) )"
        " + $facts; } );"
        "$facts = Adserver\\About::page();"
        "return array( Adserver\\Loader::say( '<script src=\"x\"></script>', 'adserver-loader' ),"
        " Adserver\\About::query( $facts, Adserver\\About::consent() ) );"
    )
    assert ' data-section="&quot;&gt;&lt;x"' in tag
    assert ' data-consent="1"' in tag
    assert ' data-keys="edition=late%20%22%26&amp;moods=a&amp;moods=b"' in tag
    assert query.startswith("?repair=0&consent=1&section=%22%3E%3Cx&lang=en-US")
    assert "&key.edition=late%20%22%26&key.moods=a&key.moods=b" in query


def test_the_documentations_filters_work(site: WordPress, service: Service) -> None:
    """
    What docs/integrations.md tells a theme to write does what it says.
    """
    [example] = re.findall(r"```php\n(.*?)```", (REPOSITORY / "docs" / "integrations.md").read_text("utf-8"), re.DOTALL)
    query = site.php(
        f"function my_banner_has_consent() {{ return true; }} {example}"
        "return Adserver\\About::query( Adserver\\About::page(), Adserver\\About::consent() );"
    )
    assert query.startswith("?repair=0&consent=1&section=sport&lang=en-US")
    assert "&key.edition=late" in query


def test_boxes_come_back_with_the_service(site: WordPress, stoppable: Service) -> None:
    """
    While the service is away kept boxes are shown as long as they may: readers' browsers ask for their ads.
    """
    path = site.post(f'[the_ad id="{EMPTY}"]')  # booked by nobody, so that its box may be kept for an hour at any time

    def shown() -> bool:
        return boxes(site.read(path).text) == [str(EMPTY)]

    def kept() -> bool:
        """A service that was slow once is not asked again for 30 s: each try begins anew."""
        site.set(url=stoppable.url, public_url=stoppable.url, mode="placeholder")
        return shown()

    eventually(kept, 20, "the first answer within 0.3 s")
    stoppable.stop()
    assert shown()
    stoppable.start()
    assert shown()
    eventually(kept, 20, "another answer")
