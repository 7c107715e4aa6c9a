"""Field values as people write them: what is clearly right is taken, everything else refused in words."""

import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adserver import fields

HUGE = int("f" * 4000, 16)  # more digits than Python will spell


def label(value: object) -> str:
    return ascii(fields.shown(value))[:40]


@pytest.mark.parametrize("value", [0, -1, 2**32, 10**30, HUGE, 1.0, True, "889990", None, [1], float("nan")], ids=label)
def test_a_slot_number_is_a_whole_number(value: object) -> None:
    """
    A slot's id in a file is a whole number that fits 32 bits, and nothing that merely looks like one.
    """
    with pytest.raises(ValueError, match="expected a whole number above 0"):
        fields.parse_slot_number(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Spring",
        "spring sale",
        "-spring",
        "_spring",
        "spring\n",
        "sprıng",
        "ѕpring",
        "sp​ring",
        "../spring",
        "spring/x",
        "a" * 65,
        "spring\0",
        "naïve",
        unicodedata.normalize("NFD", "é"),
        5,
        True,
        None,
        HUGE,
    ],
    ids=label,
)
def test_ids_are_lowercase_ascii_words(value: object) -> None:
    """
    An id that could be confused with another, or lead out of where it stands, is refused.
    """
    with pytest.raises(ValueError, match="expected a lowercase word"):
        fields.parse_word(value)


def test_words_and_sizes_read_as_written() -> None:
    """
    Good ids and sizes are taken as they are.
    """
    assert [fields.parse_word(word) for word in ("a", "0", "spring-sale_2026", "x" * 64)][2] == "spring-sale_2026"
    assert fields.parse_size("300x250") == (300, 250)


@pytest.mark.parametrize("value", ["300", "300X250", "300 x 250", "0x250", "300x0", "-3x2", "99999x1", "３00x250", 300])
def test_a_size_is_two_numbers_of_pixels(value: object) -> None:
    """
    A size that is not clearly width x height is refused.
    """
    with pytest.raises(ValueError, match="expected width x height"):
        fields.parse_size(value)


def test_names_are_normalised() -> None:
    """
    A name is trimmed and composed, so that two spellings of one name are one name.
    """
    assert fields.parse_name("  Cafe\u0301 Zoutmond  ") == "Café Zoutmond"
    assert fields.parse_name("\u212bngström") == "Ångström"


@pytest.mark.parametrize("name", ["Bakery 🥖", "Иванов", "Ελλάδα", "שלום", "パン屋", "Ünïté", "I ❤️ bread", "Ω Audio"])
def test_names_may_be_of_any_script_and_hold_emoji(name: str) -> None:
    """
    A newsroom's customers have the names they have.
    """
    assert fields.parse_name(name) == unicodedata.normalize("NFC", name)


UNSEEN = "\u200b\u200c\u200d\u2060\u2062\ufeff\u00ad\u034f\u180e\u3164\u115f\uffa0\u2800\U000e0041\U000e007f"
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
BREAKING = "\0\x01\t\n\r\x1b\x7f\x85\u2028\u2029"


@pytest.mark.parametrize("char", UNSEEN + BIDI, ids=ascii)
def test_a_name_holds_nothing_unseen(char: str) -> None:
    """
    Invisible characters and marks that turn the reading direction would make two names look alike.
    """
    with pytest.raises(ValueError, match="holds invisible characters"):
        fields.parse_name(f"Ac{char}me")


@pytest.mark.parametrize("char", BREAKING, ids=ascii)
def test_text_holds_no_control_character_or_line_break(char: str) -> None:
    """
    Neither a name nor prose may break a line or control a terminal.
    """
    for parse in (fields.parse_name, fields.parse_prose):
        with pytest.raises(ValueError, match="holds a control character or line break"):
            parse(f"Ac{char}me")


@pytest.mark.parametrize("name", ["Аcme", "Acmе Bank", "Bread Bοat", "pаypal"])
def test_look_alike_letters_are_refused(name: str) -> None:
    """
    A word that mixes Latin with Cyrillic or Greek letters imitates another name.
    """
    with pytest.raises(ValueError, match="look-alike letters"):
        fields.parse_name(name)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        ("x" * 201, "has 201 characters; at most 200"),
        ("\udc80", "not valid Unicode"),
        (5, "expected text in quotes"),
        (HUGE, "a number of thousands of digits"),
    ],
    ids=["empty", "blank", "long", "surrogate", "number", "huge"],
)
def test_what_is_no_name_is_refused(value: object, said: str) -> None:
    """
    A name is given, is text, and is short enough to be read.
    """
    with pytest.raises(ValueError, match=said):
        fields.parse_name(value)


def test_prose_loses_its_direction_marks() -> None:
    """
    Words for a reader keep emoji and joiners, and lose what would turn the page's reading direction.
    """
    assert fields.parse_prose(f" Fresh{BIDI} bread 👩‍🍳 ") == "Fresh bread 👩‍🍳"
    assert fields.parse_prose("\u200e \u200f") == ""
    with pytest.raises(ValueError, match="has 10,240 characters"):
        fields.parse_prose("x" * 10_240)


@pytest.mark.parametrize(
    "value", ["\0", "x" * 65_537, "\ud800", None, 5], ids=["nul", "long", "surrogate", "none", "5"]
)
def test_markup_is_text_of_bounded_length(value: object) -> None:
    """
    Bought HTML is at most 64 kB of Unicode text without NUL.
    """
    with pytest.raises(ValueError, match=r"HTML text of at most|not valid Unicode"):
        fields.parse_markup(value)


BAD_NUMBERS = [float("nan"), float("inf"), float("-inf"), -1, -0.001, 1e308, 1e6 + 1, True, False, "1", None, [], HUGE]


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=label)
def test_weights_and_shares_are_sober_numbers(value: object) -> None:
    """
    A weight or share that is no number, not finite, below 0 or beyond all measure is refused.
    """
    with pytest.raises(ValueError, match="expected a number from 0 to 1,000,000"):
        fields.parse_weight(value)
    with pytest.raises(ValueError, match="expected a percentage above 0 and at most 100"):
        fields.parse_share(value)


def test_edges_of_weights_and_shares() -> None:
    """
    A weight may be 0, which never shows; a share may be 100 and not 0.
    """
    assert [fields.parse_weight(value) for value in (0, 2, 0.5, 1_000_000)] == [0.0, 2.0, 0.5, 1e6]
    assert [fields.parse_share(value) for value in (100, 0.5)] == [100.0, 0.5]
    for value in (0, -0.0, 100.1):
        with pytest.raises(ValueError, match="expected a percentage"):
            fields.parse_share(value)


@pytest.mark.parametrize("value", [29, 86_401, 30.0, True, "30", HUGE], ids=label)
def test_seconds_have_bounds(value: object) -> None:
    """
    A refresh is between half a minute and a day.
    """
    with pytest.raises(ValueError, match="expected whole seconds from 30 to 86400"):
        fields.parse_seconds(value)


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_a_flag_is_true_or_false(value: object) -> None:
    """
    Nothing else stands for yes or no.
    """
    with pytest.raises(ValueError, match="expected true or false"):
        fields.parse_flag(value)


def test_an_instant_carries_its_offset() -> None:
    """
    A date and time with an offset is one instant, wherever it is read.
    """
    amsterdam = timezone(timedelta(hours=1))
    assert fields.parse_instant(datetime(1970, 1, 1, 1, tzinfo=amsterdam)) == 0
    assert fields.parse_instant(datetime(2026, 3, 2, 12, tzinfo=UTC)) == 1_772_452_800


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (datetime(2026, 3, 1), "is 2026-03-01T00:00:00, which has no offset"),  # noqa: DTZ001
        (date(2026, 3, 1), "expected a date and time with an offset"),
        ("2026-03-01T00:00:00Z", "expected a date and time with an offset"),
        (1_772_323_200, "expected a date and time with an offset"),
        (datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=23))), "expected a year from 1970 to 9998"),
        (datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-23))), "expected a year from 1970 to 9998"),
    ],
)
def test_another_way_to_write_an_instant_is_refused(value: Any, said: str) -> None:
    """
    A date without an offset would be another hour elsewhere; one at the end of time could not be written back.
    """
    with pytest.raises(ValueError, match=said):
        fields.parse_instant(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "Europe",
        "CET+1",
        "../../etc/passwd",
        "/etc/localtime",
        "a\0b",
        "é",
        "\udc80",
        "x" * 5000,
        "tzdata.zi",
        "localtime",
        "posixrules",
        "Factory",
        "posix/Europe/Amsterdam",
        "right/Europe/Amsterdam",
        "europe/amsterdam",
        "utc",
        1,
    ],
    ids=label,
)
def test_a_time_zone_is_one_there_is(value: object) -> None:
    """
    A zone's name never reads a file that is no zone.
    """
    with pytest.raises(ValueError, match="expected the name of a time zone"):
        fields.parse_zone(value)


def test_every_zone_of_the_list_is_taken() -> None:
    """
    The names are those of the IANA list, and each can be read.
    """
    for name in ("UTC", "Europe/Amsterdam", "America/Argentina/Buenos_Aires", "Etc/GMT+1", "CET"):
        assert fields.parse_zone(name) == name
        ZoneInfo(name)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("europe/amsterdam", "Europe/Amsterdam"),
        ("Europe/Amsterdm", "Europe/Amsterdam"),
        ("Amsterdam", "Europe/Amsterdam"),
        ("new york", "America/New_York"),
        ("utc", "UTC"),
        ("posix/Europe/Amsterdam", "Europe/Amsterdam"),
        ("localtime", None),
        ("posixrules", None),
    ],
)
def test_a_zone_that_is_none_is_told_with_the_nearest(value: str, meant: str | None) -> None:
    """
    By its name, or by its city alone; nothing is guessed for what is no zone's.
    """
    said = sentence(fields.parse_zone, value)
    assert said.endswith(f"did you mean {meant!r}?" if meant else "such as 'Europe/Amsterdam'")


GOOD_URLS = [
    "https://example.com",
    "http://example.com/",
    "https://shop.example.com:8443/a/b?x=1&y=%20#top",
    "https://xn--e1awd7f.example/",
    "https://example.com?x='1'",
    "https://example.com/;p=(1)!$*,~",
]
BAD_URLS = [
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    " https://example.com",
    "\x01https://example.com",
    "https://example.com ",
    "java\tscript:alert(1)",
    "ht\ntps://example.com",
    "data:text/html,x",
    "vbscript:x",
    "file:///etc/passwd",
    "ftp://example.com",
    "//evil.example",
    "/evil",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "https://",
    "https://?x",
    "https://a@evil.example",
    "https://a:b@evil.example",
    "https://evil.example\\@good.example",
    "https://good.example\\.evil.example",
    "https://good%00.example",
    "https://good%2eexample",
    "https://еxample.com",
    "https://example。com",
    "https://example.com:99999/",
    "https://example.com:0/",
    "https://example.com:-1/",
    "https://example.com:80:80/",
    "https://example.com:８０/",
    "https://example.com/\r\nSet-Cookie: x=1",
    "https://example.com/\0",
    'https://example.com/"onclick=',
    "https://example.com/<script>",
    "https://example.com/`",
    "https://example.com/{click_url}",
    "https://[::1]/",
    "https://[not-an-address/",
    "https://exa_mple.com",
    "https://-example.com",
    "https://example..com",
    "https://example.com.",
    f"https://{'a' * 64}.example",
    "https://example.com/" + "x" * 2000,
    "HTTPS://example.com",
    "",
    None,
    5,
    b"https://example.com",
]


@pytest.mark.parametrize("url", GOOD_URLS)
def test_a_web_address_is_sent_as_written(url: str) -> None:
    """
    A good URL goes out exactly as it came in.
    """
    assert fields.parse_url(url) == url
    assert fields.parse_click_url(url) == url


@pytest.mark.parametrize("url", BAD_URLS, ids=label)
def test_what_is_no_plain_web_address_is_refused(url: object) -> None:
    """
    A URL that another reader could take for another place is refused, with a short sentence on one line.
    """
    for parse in (fields.parse_url, fields.parse_click_url):
        with pytest.raises(ValueError, match=" ") as caught:
            parse(url)
        assert len(str(caught.value)) < 250
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("url", ["mailto:desk@example.com?subject=Bread%20and%20butter", "tel:+31-10-1234567"])
def test_a_click_may_write_or_call(url: str) -> None:
    """
    A click may also open a mail or a call; a page address may not.
    """
    assert fields.parse_click_url(url) == url
    with pytest.raises(ValueError, match="is not a web address"):
        fields.parse_url(url)


@pytest.mark.parametrize(
    "url", ["mailto:", "mailto:a b", "tel:1\n", "mailto:a@b<x>", "Mailto:a@b", "sms:1", "mailto:é@b"]
)
def test_a_bad_mail_or_call_is_refused(url: str) -> None:
    """
    Only plain characters make a mail or call link.
    """
    with pytest.raises(ValueError, match=" "):
        fields.parse_click_url(url)


@settings(max_examples=200)
@given(st.one_of(st.text(), st.text().map("https://".__add__), st.integers(), st.floats(), st.none(), st.binary()))
def test_any_value_is_taken_or_refused_in_words(value: object) -> None:
    """
    No value makes a parser fail in another way than ValueError, and what it says is short.
    """
    parsers = (
        fields.parse_word,
        fields.parse_name,
        fields.parse_prose,
        fields.parse_markup,
        fields.parse_size,
        fields.parse_weight,
        fields.parse_share,
        fields.parse_url,
        fields.parse_click_url,
        fields.parse_instant,
        fields.parse_zone,
        fields.parse_slot_number,
    )
    for parse in parsers:
        assert len(sentence(parse, value)) < 300


def sentence(parse: Callable[[object], object], value: object) -> str:
    """What *parse* says against *value*; nothing when it takes it."""
    try:
        parse(value)
    except ValueError as error:
        return str(error)
    return ""
