"""Bought HTML as pages get it, and what was taken away from it, in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adserver.console.markup import clean
from adserver.render import sanitise

BOUGHT = """<div class="box">
<!-- made by Acme -->
<script>track("</div>")</script>
<p style="color: red">Fresh bread</p>
<a href="{click_url}" onclick="steal()" rel="me" title="Buy">Buy <b>now</b></a>
<form action="https://evil.example/"><input name="card">Words</form>
<a href="javascript:alert(1)">Here</a>
<img src="https://acme.example/loaf.png" alt="A loaf" onerror=alert(1)>
</div>
"""


def test_what_is_removed_is_told_with_its_line() -> None:
    """
    Scripts, handlers, styles, forms, comments and addresses that are none: a sentence each, in the order of the source.
    """
    assert clean(BOUGHT).removed == (
        "removes the comment at line 2",
        "removes the script at line 3",
        "removes the attribute style of <p> at line 4",
        "removes the attribute onclick of <a> at line 5",
        "removes the tag <form> at line 6; the words in it stay",
        "removes the tag <input> at line 6",
        "removes the address 'javascript:alert(1)' in href of <a> at line 7",
        "removes the attribute onerror of <img> at line 8",
    )


def test_pages_get_what_is_shown_here() -> None:
    """
    The cleaned markup is what `render` makes of it, with the click macro still in its place.
    """
    found = clean(BOUGHT)

    assert found.html == sanitise(BOUGHT)
    assert '<a href="{click_url}" title="Buy" rel="sponsored nofollow noopener">' in found.html


def test_lines_stand_beside_each_other() -> None:
    """
    What stays is beside itself; what goes is beside nothing or beside what became of it.
    """
    pairs = clean(BOUGHT).pairs

    assert pairs[0] == ('<div class="box">', '<div class="box">')
    assert ('<p style="color: red">Fresh bread</p>', "<p>Fresh bread</p>") in pairs
    assert "\n".join(before for before, _ in pairs).split() == BOUGHT.split()
    long = "".join(f"<p>Line {n} of a page in one line</p>" for n in range(20))
    assert len(clean(long).pairs) == 40


@pytest.mark.parametrize(
    ("html", "told"),
    [
        ("<p>Plain <b>words</b></p>", ()),
        ('<a href="https://acme.example/">Bread</a>', ()),
        ("", ()),
        ("a < b & c", ()),
        ("<svg><script>1</script><a href=x>y</a></svg>z", ("removes the <svg> at line 1 and what is in it",)),
        ("<template><p onclick=x>y</p></template>", ("removes the template and what is in it at line 1",)),
        ("<!DOCTYPE html>\n\n<style>p{}</style>", ("removes the declaration at line 1", "removes the style at line 3")),
        ("<iframe src=x><b onclick=y></iframe>", ("removes the tag <iframe> at line 1; the words in it stay",)),
        ("<P CLASS=x ONCLICK=y>q", ("removes the attribute onclick of <p> at line 1",)),
        (
            "<a href=' java\tscript:x' href='/fine'>q</a>",
            ("removes the address ' java\\tscript:x' in href of <a> at line 1",),
        ),
        ("<table><td>x", ("puts the rest in order, as browsers would: compare the two side by side",)),
        ("<p onclick='a>b", ()),
    ],
)
def test_the_sentences_are_true(html: str, told: tuple[str, ...]) -> None:
    """
    Nothing is told of markup that stays as it is, and nothing of what lies in something told already.
    """
    assert clean(html).removed == told


def test_many_sentences_are_cut() -> None:
    """
    Ten thousand handlers are 200 sentences and a number.
    """
    removed = clean("<b onclick>" * 5000).removed

    assert (len(removed), removed[-1]) == (201, "and 4,800 more")


@pytest.mark.parametrize(
    "piece", ["<", "<!--", "<a ", '<a b="', "<a b='", "</", "<?", "<![CDATA[", "<script>", "<b onclick=", "<svg>", "\n"]
)
def test_texts_made_to_hurt_are_cleaned_in_time(piece: str) -> None:
    """
    64 kB of what makes parsers look again and again at the same characters.
    """
    html = (piece * 65536)[:65536]

    assert clean(html).html == sanitise(html)


def test_what_is_no_markup_is_refused() -> None:
    """
    Too long, or no text.
    """
    for html in ("x" * 65537, "a\0b", "\ud800"):
        with pytest.raises(ValueError, match=r"HTML text of at most|not valid Unicode"):
            clean(html)


PIECES = st.sampled_from(
    [
        "<",
        ">",
        "/",
        "=",
        '"',
        "'",
        " ",
        "\n",
        "a",
        "b",
        "p",
        "script",
        "style",
        "svg",
        "!--",
        "--",
        "on",
        "href",
        "&lt;",
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_whatever_is_given_is_told_about_or_stays(html: str) -> None:
    """
    Without a sentence, the cleaned markup cleans to itself and has the same tags and attributes.
    """
    found = clean(html)

    assert sanitise(found.html) == found.html
    assert clean(found.html).removed == ()
    assert "<script" not in found.html
