"""The lenient reading: what it mends, what it counts, and what it never touches."""

from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adserver.repair import KINDS, Article, TooManyShortcodes, read, read_strict
from adserver.shortcode import Shortcode, replace

LIMIT = 100
Reading = Callable[[str, int], Article]


def shown(article: Article, answer: str = "") -> str:
    return "".join(piece if isinstance(piece, str) else answer for piece in article.pieces)


def ids(article: Article) -> list[str | None]:
    return [code.attrs.get("id") for code in article.shortcodes()]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("[the_ad id=“889990”]", "curly-quotes"),
        ("[the_ad id=”889990″]", "curly-quotes"),
        ("[the_ad id=„889990‟]", "curly-quotes"),
        ("[the_ad id=‘889990’/]", "curly-quotes"),
        ("[the_ad id=«889990» label=‹x›]", "curly-quotes"),
        ('[the_ad id="“889990”"]', "curly-quotes"),
        ("[the_ad id=`889990`]", "curly-quotes"),
        ("[the_ad id=&#8220;889990&#8221;]", "entities"),
        ("[the_ad id=&quot;889990&quot;]", "entities"),
        ("[the_ad id=&#039;889990&#039;]", "entities"),
        ("[the_ad id=&ldquo;889990&rdquo;]", "entities"),
        ("[the_ad id=&#x201D;889990&Prime;]", "entities"),
        ("[the_ad id=&amp;#8221;889990&amp;#8243;]", "entities"),
        ('[the_ad\u00a0id="889990"]', "blank"),
        ('[the_ad&nbsp;id="889990"]', "blank"),
        ('[the_ad &#160; id="889990"]', "blank"),
        ('[the_ad\u202fid="889990"]', "blank"),
        ('[the_ad\u3000id="889990"]', "blank"),
        ('[the_ad \ufeffid="889990"]', "blank"),
        ('[the_ad id="889990\u200b"]', "blank"),
        ('[the_ad id=" 889990 "]', "blank"),
        ('[the_ad<br />id="889990"]', "line-break"),
        ('[the_ad <br> id="889990"]', "line-break"),
        ('[the_ad</p>\n<p>id="889990"]', "line-break"),
        ('[the_ad id="889\n990"]', "line-break"),
        ('[the_ad id="\r\n889990"]', "line-break"),
        (r"\[the_ad id=\"889990\"\]", "backslash"),
        (r'\[the_ad id="889990"]', "backslash"),
        (r'[the\_ad id="889990"\]', "backslash"),
        ("[the_ad 889990]", "positional-id"),
        ('[the_ad "889990"]', "positional-id"),
        ("[the_ad =889990]", "positional-id"),
        ("[the_ad=889990]", "positional-id"),
        ("[the_ad:889990]", "positional-id"),
        ("[the_ad #889990]", "positional-id"),
        ('[the_ad"889990"]', "positional-id"),
        ('[the_ad id : "889990"]', "positional-id"),
        ('[the_ad id="889990"label="x"]', "positional-id"),
        ('[the_ad id="889990",label="x"]', "positional-id"),
        ('[the_ad id="889990]', "positional-id"),
        ('[the_ad id=889990"]', "positional-id"),
        ("[the_ad id='889990\"]", "positional-id"),
        ('[the_ad id="889990"', "unclosed"),
    ],
)
def test_mends_a_damaged_shortcode(source: str, kind: str) -> None:
    """
    What an editor, a cache or an export did to a shortcode is undone, and counted once under its kind.
    """
    article = read(f"before {source}", LIMIT)

    assert ids(article) == ["889990"]
    assert shown(article) == "before "
    assert article.repairs == {kind: 1}


@pytest.mark.parametrize(
    ("source", "attrs"),
    [
        ('[the_ad id="889990"]', {"id": "889990"}),
        ("[the_ad id=889990/]", {"id": "889990"}),
        ("[the_ad\n  id = '889990'\n]", {"id": "889990"}),
        ('[the_ad id="889990" label="It’s “x” & a&nbsp;b \\o/"]', {"id": "889990", "label": "It’s “x” & a&nbsp;b o/"}),
        (r'[the_ad id="\70\70\71"]', {"id": "889"}),
        ('[the_ad id="889990" inline]', {"id": "889990", 0: "inline"}),
        ('[the_ad id="889990"][/the_ad]', {"id": "889990"}),
    ],
)
def test_a_clean_shortcode_is_no_repair(source: str, attrs: dict[int | str, str]) -> None:
    """
    A shortcode that WordPress reads to a clean id is read as WordPress reads it, and counts as nothing.
    """
    assert read(source, LIMIT) == Article(("", Shortcode("the_ad", attrs, ""), ""), {})


def test_a_placement_is_found_by_its_slug() -> None:
    """
    The positional id of a placement may be a name.
    """
    article = read("[the_ad_placement header-left]", LIMIT)

    assert article.shortcodes() == [Shortcode("the_ad_placement", {"id": "header-left"}, "")]


def test_a_stray_closing_tag_swallows_nothing() -> None:
    """
    The text before a closing tag stays, its shortcodes are answered, and the closing tag goes.
    """
    article = read("A [the_ad id=1] B [the_ad id=2] C [/the_ad] D", LIMIT)

    assert shown(article, "*") == "A * B * C  D"
    assert article.repairs == {"stray-closing-tag": 1}


@pytest.mark.parametrize("text", ['3 < 4 [the_ad id="1"] 5 > 4', 'if (a<b) [the_ad id="1"]', '5 <6 [the_ad id="1"]'])
def test_answers_behind_a_stray_angle_bracket(text: str) -> None:
    """
    A `<` that begins no tag is just a character.
    """
    article = read(text, LIMIT)

    assert shown(article, "*") == text.replace('[the_ad id="1"]', "*")
    assert article.repairs == {"stray-angle-bracket": 1}


@pytest.mark.parametrize(
    "text",
    [
        "<!-- [the_ad id=1] -->",
        "<!-- [the_ad id=1]",
        "<!-- <b> --> <!-- [/the_ad] -->",
        "<![CDATA[ [the_ad id=1] ]]>",
        '<a href="[the_ad id=1]">x</a>',
        '<a href="[the_ad id="1"]">x</a>',
        '<a title="1 > 0 [the_ad id=1]">x</a>',
        "<div [the_ad id=1]>",
        "[the_adx id=1] [the_ad-x] [the_ads] [The_Ad id=1] [ the_ad id=1]",
        "&#91;the_ad id=1&#93;",
        "[the_ad ",
    ],
)
def test_leaves_alone_what_no_reader_sees_as_a_shortcode(text: str) -> None:
    """
    Comments, CDATA, tags and other people's shortcodes stay exactly as they are.
    """
    assert read(text, LIMIT) == Article((text,), {})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('<!-- <![CDATA[ --> [the_ad id="1"]', "<!-- <![CDATA[ --> *"),
        ('<script>if (a<b) x("[the_ad id=1]");</script>', '<script>if (a<b) x("*");</script>'),
        ('[[the_ad id="1"]] [[/the_ad]]', '[the_ad id="1"] [/the_ad]'),
        ('[[the_ad id="1"] [the_ad id="1"]]', "[* *]"),
        ('<p>[the_ad id="1"</p><p>[the_ad id="2"]</p>', "<p>*</p><p>*</p>"),
        ('<em>[the_ad</em> id="1"]', "<em>*</em>"),
        (
            '[the_ad id="1" then the article goes on and on and on until [1]',
            "* then the article goes on and on and on until [1]",
        ),
        (
            '[the_ad id="1" then the article goes on and on and on to a ] bracket',
            "* then the article goes on and on and on to a ] bracket",
        ),
    ],
)
def test_finds_where_a_shortcode_begins_and_ends(text: str, result: str) -> None:
    """
    Neither markup nor a lost bracket hides a shortcode, or lets it take words of the article.
    """
    assert shown(read(text, LIMIT), "*") == result


def test_strict_reading_keeps_ads_out_of_attributes() -> None:
    """
    Where WordPress would sanitise an ad to fit into an attribute, the strict reading puts nothing.
    """
    article = read_strict('<a href="x[the_ad id=1]">[the_ad id=2]</a>', LIMIT)

    assert article == Article(('<a href="x">', Shortcode("the_ad", {"id": "2"}, ""), "</a>"), {})


def test_strict_reading_encloses_as_wordpress_does() -> None:
    """
    Strictly read, a stray closing tag swallows what WordPress lets it swallow.
    """
    article = read_strict("[the_ad id=1] words [the_ad id=2][/the_ad]", LIMIT)

    assert article.shortcodes() == [Shortcode("the_ad", {"id": "1"}, " words [the_ad id=2]")]


@pytest.mark.parametrize("reading", [read, read_strict])
@pytest.mark.parametrize("unit", ["[the_ad id=1]", "<[the_ad id=1]>"])
def test_stops_at_too_many_shortcodes(reading: Reading, unit: str) -> None:
    """
    One shortcode more than the limit ends the reading, however many follow.
    """
    assert len(reading(unit * LIMIT, LIMIT).shortcodes()) == LIMIT
    with pytest.raises(TooManyShortcodes) as refused:
        reading(unit * 100_000, LIMIT)

    assert (refused.value.found, refused.value.limit) == (LIMIT + 1, LIMIT)


def test_shortcodes_in_attributes_count_towards_the_limit() -> None:
    """
    The strict reading's limit also bounds what is never answered.
    """
    with pytest.raises(TooManyShortcodes):
        read_strict('<a href="[the_ad]">' * (LIMIT + 1), LIMIT)


WORDS = st.sampled_from(["Singapore", "bridge,", "9 o’clock", "“quoted”", "a & b", "café", "新闻", "[sic]", "50%", "—"])
CLEAN = st.sampled_from(
    ['[the_ad id="889990"]', "[the_ad id='1' x=\"y\"]", "[the_ad_group id=12]", '[the_ad_placement id="top"/]']
)
DAMAGED = st.sampled_from(
    [
        *(
            "[the_ad id=“889990”]",
            "[the_ad id=&quot;1&quot;]",
            '[the_ad\u00a0id="1"]',
            '[the_ad<br />id="1"]',
            "[the_ad 1]",
        ),
        *(
            r"\[the_ad id=\"1\"\]",
            '[the_ad id="1]',
            "[the_ad:1]",
            '[the_ad"1"]',
            "[/the_ad]",
            "[/the_ad_group]",
            "[the_ad]",
        ),
    ]
)
BROKEN = st.sampled_from(
    [
        *(
            "[",
            "]",
            "[[",
            "]]",
            "<",
            ">",
            '"',
            "'",
            "=",
            "/",
            "\\",
            " ",
            "\n",
            "\xa0",
            "”",
            "&#8221;",
            "é",
            "<b>",
            "</b>",
            "<b ",
        ),
        *(
            "[the_ad",
            "[the_ad ",
            "[/the_ad",
            "[the_adx]",
            '[[the_ad id="5"]]',
            "<!--",
            "-->",
            "<![CDATA[",
            "]]>",
            "<br />",
        ),
        *(
            '<a href="',
            '">',
            "<img alt='",
            "'>",
            "\\[",
            "\\]",
            'id="7"',
            " id=",
            "&#91;",
            r'[the_ad id="\xff"]',
            "\0",
            "id",
        ),
    ]
)


def joined(*parts: st.SearchStrategy[str], by: str = " ") -> st.SearchStrategy[str]:
    return st.lists(st.one_of(*parts), max_size=20).map(by.join)


@given(st.text())
def test_leaves_a_text_without_shortcodes_alone(text: str) -> None:
    """
    A text in which no shortcode of ours could begin or end is unchanged, byte for byte, by both readings.
    """
    assume("[the" not in text)
    assume("[/the" not in text)

    assert read(text, LIMIT) == read_strict(text, LIMIT) == Article((text,), {})


@given(joined(WORDS, CLEAN))
def test_readings_agree_on_clean_articles(text: str) -> None:
    """
    Where nothing is damaged there is nothing to mend: both readings are WordPress's.
    """
    article = read(text, LIMIT)

    assert article == read_strict(text, LIMIT)
    assert article.repairs == {}
    assert shown(article, "AD") == replace(text, lambda code: "AD")


@given(st.lists(st.one_of(WORDS, CLEAN, DAMAGED), max_size=20))
def test_no_word_is_lost(parts: list[str]) -> None:
    """
    With every answer empty, what is left of an article is its words, in order.
    """
    left = shown(read("\n".join(parts), LIMIT)).split()

    assert left == " ".join(part for part in parts if "the_ad" not in part).split()


@given(joined(WORDS, CLEAN, DAMAGED, st.sampled_from(["3 < 4", "a<b)", "5 > 4"])))
def test_no_shortcode_is_left_for_a_reader_to_see(text: str) -> None:
    """
    An answered page holds no ad shortcode that WordPress would run, nor a piece of one.
    """
    page = shown(read(text, LIMIT), "AD")

    assert "the_ad" not in page


@given(joined(WORDS, CLEAN, DAMAGED, BROKEN, by=""))
def test_reads_any_text(text: str) -> None:
    """
    Whatever the text, pieces alternate, literals come from the text in its order, and repairs have known kinds.
    """
    article = read(text, LIMIT)
    letters = iter(text)

    assert all(isinstance(piece, str) == (n % 2 == 0) for n, piece in enumerate(article.pieces))
    assert len(article.pieces) % 2 == 1
    assert all(letter in letters for letter in shown(article))
    assert set(article.repairs) <= set(KINDS)
    for code in article.shortcodes():
        "".join(code.attrs.values()).encode()  # nothing in it that could not be sent


@given(joined(WORDS, CLEAN, DAMAGED, BROKEN, by=""))
def test_strict_reading_is_what_wordpress_shows(text: str) -> None:
    """
    With every answer empty, the strict reading shows what WordPress shows.
    """
    assert shown(read_strict(text, LIMIT)) == replace(text, lambda code: "")


def test_an_article_cut_anywhere_keeps_its_words() -> None:
    """
    Cut at any character, an article still shows every word in front of the cut, and the ads that are whole.
    """
    text = (
        '<p title="a > b">One [the_ad id=“1”] two</p><!-- x --> \\[the_ad id=\\"2\\"\\] three [the_ad id="3"][/the_ad]'
    )
    for cut in range(len(text) + 1):
        article = read(text[:cut], LIMIT)
        page = shown(article)

        assert all(word in page for word in ("One", "two", "three") if word in text[:cut])
        assert len(article.shortcodes()) >= text[:cut].count("]") - text[:cut].count("[/the_ad]")


@pytest.mark.parametrize("reading", [read, read_strict])
@pytest.mark.parametrize(
    "unit",
    [
        *(
            "[",
            "[[",
            "[the_ad ",
            "[the_ad",
            '[the_ad id="',
            '"',
            "<",
            "<a ",
            "<[",
            "<!-- [the_ad ",
            "&nbsp;",
            "\xa0",
            "\\",
            "=",
        ),
        *("' ", "<b><i>", "[x", "[/the_ad", "< ", "“", "&#8221;", '<a b="', '<a " ="', "<!---->", "[theory]"),
    ],
)
def test_hostile_text_is_read_to_its_end(reading: Reading, unit: str) -> None:
    """
    2 MiB of nothing but one fragment does not hide the shortcode in front of it, and is itself left alone.
    """
    body = unit * ((2 << 20) // len(unit))

    article = reading('[the_ad id="889990"]. ' + body, LIMIT)

    assert article == Article(("", Shortcode("the_ad", {"id": "889990"}, ""), ". " + body), {})


@pytest.mark.parametrize("reading", [read, read_strict])
def test_markup_in_bulk_is_left_alone(reading: Reading) -> None:
    """
    A hundred thousand comments, each with a shortcode in it, hide neither the ad in front nor the ad behind.
    """
    comments = "<!-- [the_ad] -->" * 100_000

    assert shown(reading(f"[the_ad id=1]{comments}[the_ad id=2]", LIMIT), "*") == f"*{comments}*"


def test_closing_tags_in_bulk_are_dropped() -> None:
    """
    Closing tags are counted one by one, also when they come in a crowd.
    """
    assert read("[/the_ad]" * 200_000, LIMIT) == Article(("",), {"stray-closing-tag": 200_000})
