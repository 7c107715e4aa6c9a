"""The strict reading of shortcodes: what WordPress made of it, this module makes of it."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adserver.shortcode import Shortcode, parse_attributes, replace, split

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent.parent / "data" / "wordpress_shortcodes.jsonl").read_text("utf-8").splitlines()
]


def mark(code: Shortcode) -> str:
    parts = ["AD", code.name, *(f"{key}={quote(str(value), safe='-_.~')}" for key, value in code.attrs.items())]
    if code.content:
        parts.append("@content=" + quote(code.content, safe="-_.~"))
    return "{{" + " ".join(parts) + "}}"


@pytest.mark.parametrize("row", ROWS, ids=[f"{n}-{row['category']}" for n, row in enumerate(ROWS, 1)])
def test_reads_a_text_as_wordpress_does(row: dict[str, str]) -> None:
    """
    Each text comes out as WordPress 6.1 itself made it.
    """
    assert replace(row["content"], mark) == row["result"]


FRAGMENTS = st.sampled_from(
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
            "\0",
            "\xa0",
            "\u200b",
            "\udcff",
            "é",
            "x",
        ),
        *("the_ad", "the_ad_group", "[the_ad", "[the_ad]", '[the_ad id="1"]', "[the_ad id='3' x]", '[the_ad id="4"/]'),
        *("[/the_ad]", "[/the_ad_group]", "[the_ad_group id=2]", '[[the_ad id="5"]]', "[other]", "&#91;", "&#93;"),
        *(
            "<!--",
            "-->",
            "<![CDATA[",
            "]]>",
            "<b>",
            "</b>",
            '<a href="',
            '">',
            "<img alt='",
            "'>",
            '<p style="',
            "\\x41",
        ),
        *('id="7"', " id=", ' label="', '0="x"', '5="y"', "javascript:", "<a [the_ad id=1] b='c'>", "onclick='"),
    ]
)
GRAMMAR = st.lists(FRAGMENTS, max_size=20).map("".join)


def silence(code: Shortcode) -> str:
    return ""


@given(st.text())
def test_leaves_a_text_without_shortcodes_alone(text: str) -> None:
    """
    A text in which no ad shortcode could begin is unchanged, byte for byte.
    """
    assume("[the_ad" not in text)

    assert replace(text, mark) == text


@given(GRAMMAR)
def test_reads_any_text(text: str) -> None:
    """
    No text makes the parser raise, whatever the answers hold.
    """
    replace(text, lambda code: "&#91;[the_ad]<b>\"'")


@given(GRAMMAR)
def test_cut_text_is_what_replace_shows(text: str) -> None:
    """
    The pieces of a text, each shortcode answered, are the text as replaced.
    """
    answered = [part if isinstance(part, str) else "AD" for part in split(text, lambda code: "AD", limit=100)]

    assert "".join(answered) == replace(text, lambda code: "AD")


@given(GRAMMAR, GRAMMAR)
def test_answers_are_not_scanned_again(text: str, answer: str) -> None:
    """
    A shortcode inside an answer is shown, not run.
    """
    calls = 0

    def count(code: Shortcode) -> str:
        nonlocal calls
        calls += 1
        return answer

    replace(text, count)
    with_answer, calls = calls, 0
    replace(text, lambda code: count(code) and "")

    assert calls == with_answer


@pytest.mark.parametrize(
    ("attributes", "attrs"),
    [
        (r'id="\xc3\xa9"', {"id": "é"}),
        (r'id="\351"', {"id": "\udce9"}),
        ("id='1' \udcff", {}),
        ('-3="x" y 9223372036854775808="z"', {-3: "x", 0: "y", "9223372036854775808": "z"}),
        ('007="bond"', {"007": "bond"}),
        ('a="<b>" c="<b"', {"a": "<b>", "c": ""}),
    ],
)
def test_reads_attributes_as_php_does(attributes: str, attrs: dict[int | str, str]) -> None:
    """
    Escapes spell bytes, bytes that are not UTF-8 leave no attributes, and a number is a number only within 64 bits.
    """
    assert parse_attributes(attributes) == attrs


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('<p title="[the_ad]">', '<p title="&lt;b&gt; &amp; &quot;">'),
        ("<p data-x = '[the_ad]' >", "<p data-x='&lt;b&gt; &amp; &quot;' >"),
        ('<p onclick="[the_ad]">', '<p onclick="[the_ad]">'),
        ('<iframe src="[the_ad]">', '<iframe src="[the_ad]">'),
        ('<my-own title="[the_ad]">', '<my-own title="[the_ad]">'),
        ('<a href="vbscript&#58;data:[the_ad]">', '<a href="&lt;b&gt; &amp; &quot;">'),
        ('<a href="mailto:[the_ad]">', '<a href="mailto:&lt;b&gt; &amp; &quot;">'),
        ('<p style="color: red; width: [the_ad]">', '<p style="color: red">'),
        ('<p style="width: [the_ad]">', '<p style="width: [the_ad]">'),
        ("<p title=[the_ad]>", '<p title=<b> & ">'),
        ("<[the_ad]>", '<<b> & ">'),
        ("</p [the_ad]>", "</p [the_ad]>"),
    ],
)
def test_sanitises_an_answer_inside_an_attribute(text: str, result: str) -> None:
    """
    In a quoted attribute an answer is made safe, or the attribute stays as it was; anywhere else it stands as it is.
    """
    assert replace(text, lambda code: '<b> & "') == result


MIB = 1 << 20
CLEAN = '[the_ad id="889990"]'


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
            "[/the_ad]",
            "<",
            "<a ",
            "<[",
            '<a href="[the_ad ]',
            "<!--",
        ),
        *("<!-- [the_ad] ", "&nbsp;", "\xa0", "\\", "=", "' ", "<b><i>", "<[>", "]", "/]", "[x", "<!-- [the_ad] -->"),
    ],
)
def test_hostile_text_is_read_to_its_end(unit: str) -> None:
    """
    2 MiB of nothing but one fragment does not hide the shortcode in front of it, and is otherwise left alone.
    """
    body = unit * (2 * MIB // len(unit))

    assert replace(f"{CLEAN}. {body.replace(']', '')}", mark) == f"{{{{AD the_ad id=889990}}}}. {body.replace(']', '')}"
    assert replace(CLEAN + "<!-- " + body, mark).startswith("{{AD the_ad id=889990}}")


def test_one_shortcode_may_fill_the_text() -> None:
    """
    A shortcode of 2 MiB is one shortcode, where WordPress would empty the article.
    """
    found: list[Shortcode] = []

    def collect(code: Shortcode) -> str:
        found.append(code)
        return ""

    replace("[the_ad " + 'a="b" ' * (2 * MIB // 6) + "/" * 20_000 + "]", collect)

    assert found == [Shortcode("the_ad", {"a": "b", 0: "/" * 19_999}, "")]
