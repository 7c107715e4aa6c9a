"""A request's query string: what is taken from it, and what is not."""

import pytest

from adserver.context import MOST_IDS, PLAIN, BadQuery, Query, parse_query
from adserver.decide import Filled, Page, decide
from adserver.model import Format, Targeting, Terms
from tests.make import NOON, SLOT, catalog, draws, line_item


def test_an_empty_query_asks_for_nothing_special() -> None:
    """
    Without a query a slot is answered as HTML.
    """
    assert parse_query(b"") is PLAIN
    assert Query((), Format.HTML, repair=True) == PLAIN


def test_ids_keep_their_order_and_lose_their_repeats() -> None:
    """
    Ids are answered in the order asked, each once; whether they are ad ids is not judged here.
    """
    assert parse_query(b"id=889991&id=889990&id=889991&id=%00&id=").ids == ("889991", "889990", "\0", "")


@pytest.mark.parametrize("form", Format)
def test_takes_every_format(form: Format) -> None:
    """
    Each format can be asked for by its name.
    """
    assert parse_query(f"format={form.value}".encode()).format is form


@pytest.mark.parametrize("value", ["", "HTML", "json", "html%20", "%3Cscript%3E", "html%00"])
def test_another_format_is_refused_without_echoing_it(value: str) -> None:
    """
    A format there is none of gets 400 and the list of those there are; what was asked is not repeated.
    """
    with pytest.raises(BadQuery, match="none of html, placeholder, email, amp, native") as caught:
        parse_query(f"format={value}".encode())
    assert caught.value.status == 400
    assert "script" not in str(caught.value)


def test_repair_is_on_unless_switched_off() -> None:
    """
    Only `repair=0` switches the repair of shortcodes off.
    """
    assert [parse_query(f"repair={value}".encode()).repair for value in ("0", "1", "", "no")] == [
        False,
        True,
        True,
        True,
    ]


def test_an_instant_to_preview_is_kept_as_it_is() -> None:
    """
    What it means depends on the newsroom's time zone.
    """
    assert parse_query(b"at=2026-03-10T12:00").at == "2026-03-10T12:00"


@pytest.mark.parametrize(
    "query",
    [
        b"dest=https://evil.example",
        b"reader=&device=toaster&section=&tag=&key=1",
        b"ua=&consent=2",
        b"__proto__=1&constructor=2",
        b"&&&=&==",
        b"ID=889990&Format=email",
    ],
)
def test_unknown_and_idle_parameters_change_nothing(query: bytes) -> None:
    """
    Parameters without effect are read over, whatever they hold.
    """
    assert parse_query(query) == PLAIN


def test_what_is_said_of_the_page_is_known() -> None:
    """
    Section, tags, language, country, device and the site's own keys are facts, in lower case; the address is kept.
    """
    page = b"url=https%3A%2F%2FExample.com%2Fbread&section=Food&tag=a&tag=B&key.Team=Ajax"
    context = parse_query(page + b"&lang=de-AT&country=NL&device=mobile").context
    assert context.facts == {
        "section=food", "tag=a", "tag=b", "lang=de", "lang=de-at", "country=nl", "device=mobile", "key.team=ajax"
    }  # fmt: skip
    assert (context.path, context.address) == ("/bread", "https://example.com/bread")


def test_words_of_a_page_are_compared_as_those_of_the_catalog() -> None:
    """
    An accent written as a letter of its own, as some machines do, is the same word: in sections, tags and keys.
    """
    apart, whole = b"caf%65%CC%81", b"caf%C3%A9"
    for form in (b"section=%b", b"tag=%b", b"key.place=%b", b"section=x&tag=a&tag=%b&key.a=b&key.a=%b"):
        said = [parse_query(form.replace(b"%b", word)).context for word in (apart, whole)]
        assert said[0] == said[1]
    found = catalog(line_item(targeting=Targeting(any=Terms(section=("café",)))))
    page = Page((SLOT,), context=parse_query(b"section=" + apart).context)
    assert isinstance(decide(found, NOON, page, draws())[0], Filled)


@pytest.mark.parametrize("at", [b"at=", b"at=%20", b"at=+", b"at=2026-03-10&at="])
def test_an_empty_instant_is_refused(at: bytes) -> None:
    """
    It never means the live page, which would count.
    """
    with pytest.raises(BadQuery, match="Parameter 'at' is empty") as caught:
        parse_query(at)
    assert caught.value.status == 400


@pytest.mark.parametrize("query", [b"id=%ff", b"id=%c3", b"id=\xff", b"format=%ed%a0%80", b"x=%80"])
def test_a_query_that_is_not_utf_8_is_refused(query: bytes) -> None:
    """
    Bytes that spell no text get 400.
    """
    with pytest.raises(BadQuery, match="not percent-encoded UTF-8") as caught:
        parse_query(query)
    assert caught.value.status == 400


def test_a_hundred_slots_are_the_most() -> None:
    """
    100 ids are answered, 101 are refused.
    """
    hundred = "&".join(f"id={889000 + n}" for n in range(MOST_IDS))
    assert len(parse_query(hundred.encode()).ids) == 100
    with pytest.raises(BadQuery, match="101 ids were asked for; at most 100"):
        parse_query(f"{hundred}&id=1".encode())


def test_twenty_thousand_parameters_are_refused_before_they_are_read() -> None:
    """
    A query made to cost work is refused by its length alone.
    """
    with pytest.raises(BadQuery, match="more than 256 parameters"):
        parse_query(b"id=889990&" * 20_000)


def test_a_reader_is_read_and_not_remembered() -> None:
    """
    A key, a consent that is said, a browser's name; queries that name a reader are not kept.
    """
    query = parse_query(b"reader=ann%20b&consent=1&ua=Mozilla%2F5.0")
    assert (query.reader, query.consent, query.user_agent) == ("ann b", True, "Mozilla/5.0")
    assert parse_query(b"consent=yes").consent is False
    assert parse_query(b"reader=x") is not parse_query(b"reader=x")
    assert parse_query(b"section=x") is parse_query(b"section=x")
