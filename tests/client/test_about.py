"""What a site says of a page, as a query."""

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adserver.client.about import NAMES, say
from adserver.context import parse_query

TEXT = st.text(st.sampled_from("ab &=#?%+;\n\0\u00e9\u6f22\ud800"))
ANYTHING = st.none() | st.booleans() | st.integers() | TEXT | st.binary() | st.lists(TEXT | st.none())


def test_everything_that_can_be_said_arrives() -> None:
    """
    The service's own reading of the query finds what was said.
    """
    about = say({
        "url": "https://news.example.com/sport/1?utm=x#top", "section": "sport", "tags": ["cup & co", "final"],
        "lang": "nl", "country": "nl", "device": "mobile", "reader": "r1", "ua": "Mozilla/5.0 (X11)", "consent": True,
        "keys": {"page": "home", "team": ["a", "b"]}, "format": "native",
    })  # fmt: skip
    query = parse_query(about.query[1:].encode())
    assert query.context.facts == {
        "section=sport", "tag=cup & co", "tag=final", "lang=nl", "country=nl", "device=mobile", "key.page=home",
        "key.team=a", "key.team=b",
    }  # fmt: skip
    assert query.context.address == "https://news.example.com/sport/1"
    assert (query.reader, query.user_agent, query.consent) == ("r1", "Mozilla/5.0 (X11)", True)
    assert (query.format.value, query.repair, about.personal) == ("native", False, True)


def test_a_single_word_is_one_tag() -> None:
    """
    A tag given as text is that tag, and not its letters.
    """
    assert dict(parse_qsl(say({"tags": "cup"}).query[1:]))["tag"] == "cup"


@pytest.mark.parametrize(
    ("given", "consents"), [(True, True), ("1", True), (1, True), (False, False), ("yes", False), ("", False)]
)
def test_consent_is_yes_or_no(given: object, consents: bool) -> None:
    """
    Only a plain yes is consent.
    """
    assert parse_query(say({"consent": given}).query[1:].encode()).consent is consents


def test_names_that_say_nothing_are_told() -> None:
    """
    A slip of the pen is noticed instead of passed on.
    """
    about = say({"sections": "sport", "section": "sport"})
    assert (about.unknown, "sections" in about.query) == (("sections",), False)


@given(st.dictionaries(st.sampled_from(sorted(NAMES)), ANYTHING))
def test_nothing_that_is_said_makes_an_address_the_service_refuses(facts: dict[str, Any]) -> None:
    """
    Whatever a template says, the query is plain ASCII, short enough, and read by the service.
    """
    query = say(facts).query
    assert len(query) <= 1800
    parse_query(query[1:].encode("ascii"))


def test_what_does_not_fit_is_left_out_and_the_rest_said() -> None:
    """
    Of a page with very many tags, consent and section are said all the same.
    """
    about = say({"tags": [f"tag-{n:030}" for n in range(1_000)], "consent": True, "section": "sport"})
    query = parse_query(about.query[1:].encode())
    assert query.consent
    assert "section=sport" in query.context.facts
    assert 20 < len(query.context.facts) < 66
