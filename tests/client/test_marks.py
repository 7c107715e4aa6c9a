"""What a template leaves where an ad goes, and what an article becomes before its ads are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from adserver import client
from adserver.client import marks

TEXTS = st.text(st.sampled_from('[]/<>!-" =&_adtheigroupplcmn189\\\n\u201d\u00a0\u00e9\u6f22\0\ud800'))


def test_an_ad_becomes_a_comment_that_names_it() -> None:
    """
    Numbers and text that can be an id leave a mark, which shows nothing where nobody fills it.
    """
    assert client.ad(889990) == client.ad(" 889990 ") == Markup("<!--adserver the_ad 889990-->")
    assert client.ad_group("side-rail") == Markup("<!--adserver the_ad_group side-rail-->")
    assert client.ad_placement("top") == Markup("<!--adserver the_ad_placement top-->")


@pytest.mark.parametrize("ask", ["", None, True, "a b", "1-->", "<b>", "x" * 65, "８８９９９０", 1.5, object()])
def test_what_can_be_no_id_becomes_nothing(ask: object) -> None:
    """
    Nothing but letters, digits and dashes ever reaches a page by a tag.
    """
    assert client.ad(ask) == Markup()


def test_an_article_is_read_as_the_service_reads_it() -> None:
    """
    Shortcodes are mended, literals of escaped ones stay, and comments and tags are left as they are.
    """
    article = Markup(
        '<p>a</p>[the_ad id=”889990”][[the_ad id="1"]]<!-- [the_ad id="2"] --><i title=\'[the_ad id="3"]\'>'
        '[the_ad_group id="side-rail"]x[/the_ad_group][the_ad]'
    )
    assert client.body(article) == (
        '<p>a</p><!--adserver the_ad 889990-->[the_ad id="1"]<!-- [the_ad id="2"] --><i title=\'[the_ad id="3"]\'>'
        "<!--adserver the_ad_group side-rail-->x"
    )


def test_text_that_is_not_marked_safe_is_escaped_and_its_ads_are_not() -> None:
    """
    An article is escaped around its shortcodes, unless it is marked safe or escaping is off.
    """
    text = '<script>1</script>[the_ad id="889990"] & more'
    mark = "<!--adserver the_ad 889990-->"
    assert client.body(text) == f"&lt;script&gt;1&lt;/script&gt;{mark} &amp; more"
    assert client.body(Markup(text)) == client.body(text, escaping=False) == f"<script>1</script>{mark} & more"
    assert client.body(None) == ""


class Unreadable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_what_raises_when_it_is_read_becomes_nothing() -> None:
    """
    An object that cannot become text shows nothing, and raises nothing into a template.
    """
    assert client.body(Unreadable()) == client.ad(Unreadable()) == Markup()


@given(TEXTS)
def test_escaping_lets_nothing_of_a_text_become_markup(text: str) -> None:
    """
    Whatever the text, an unsafe article holds no tag and no comment but marks.
    """
    assert "<" not in marks.fill(client.body(text), ())


@given(TEXTS)
def test_a_mark_is_filled_once_and_in_its_order(text: str) -> None:
    """
    What an answer holds is not read again, be it a mark itself; marks without an answer become nothing.
    """
    page = f"{client.ad(1)}{client.body(text)}{client.ad(2)}"
    assert marks.find_asks(page)[0] == ("the_ad", "1")
    assert marks.fill(page, [str(client.ad(3))]).startswith(str(client.ad(3)))
    assert not marks.find_asks(marks.fill(page, ()))


@pytest.mark.parametrize("end", ["\u2026", "...", "&hellip;", "", " \u2026", ", and more"])
@pytest.mark.parametrize("mark", [client.ad(889990), client.ad_group("side-rail"), client.ad_placement("top")])
def test_a_cut_mark_hides_nothing(mark: str, end: str) -> None:
    """
    Wherever a filter cuts an article, what is left of a mark goes, and the rest of the page is seen and filled.
    """

    def words(page: str) -> str:
        return " ".join(page.split())

    rest = f"</p><p>More.</p>{client.ad(1)}<!-- foot --><p>Last.</p>"
    for at in range(2, len(mark)):
        if at < {", and more": len("<!--adserver"), "": len("<!--a")}.get(end, 0):
            continue  # such a beginning might be any comment's
        filled = marks.fill(f"<p>First {mark[:at]}{end}{rest}", ["AD"])
        assert words(filled) == words(f"<p>First {end}{rest}".replace(client.ad(1), "AD")), mark[:at]
        assert words(marks.fill(f"First {mark[:at]}{end}", ())) == words(f"First {end}")
        assert marks.has_marks(f"First {mark[:at]}{end}")


@pytest.mark.parametrize(
    "comment",
    [
        "<!-- a -->", "<!--...-->", "<!--<p>off</p>-->", "<!--ads-->", "<!--adserver-->", "<!--adserver the_ad 1 -->",
        "<!--adserver is away-->", "<!--\n<b>\n-->", "<!---->", "<!-->", "<!DOCTYPE html>",
        "<!--[if IE]><b><![endif]-->",
        "<!--adserver the_ad_list 1-->", "<!--open <p>to the end", "<!--</code>", "<script>x = '<!--' + y</script>",
        "<![CDATA[x]]>",
    ],
)  # fmt: skip
def test_a_comment_of_the_sites_own_stays(comment: str) -> None:
    """
    Whatever else begins as a mark does is left byte for byte.
    """
    for page in (f"<p>{comment}</p>", f"{comment}\u2026<p>...", f"a {comment}", f"{comment}<!-- b -->{comment}"):
        assert marks.fill(page, ()) == page
        assert not marks.find_asks(page)


@given(st.lists(st.sampled_from(["<!--", "<!", "-->", "adserver ", "the_ad ", "1", "...", "<", ">", "\u2026", "a "])))
def test_what_is_left_of_cut_marks_is_taken_out_at_once(pieces: list[str]) -> None:
    """
    Of whatever text, nothing but pieces of marks is taken out, and no letter of the rest.
    """
    page = "".join(pieces)
    filled = marks.fill(page, ())
    left = iter(page)
    assert all(char in left for char in filled), "what stays stands in its order"
    assert filled.count("\u2026") == page.count("\u2026")
    assert filled.count("...") >= page.count("...")


def test_one_call_answers_a_hundred() -> None:
    """
    A page of more ads gets the first hundred, and nothing in the places of the others.
    """
    page = "".join(client.ad(n) for n in range(150))
    assert len(marks.find_asks(page)) == 100
    assert marks.fill(page, ["x"] * 100) == "x" * 100


def test_an_article_of_very_many_shortcodes_loses_them_all() -> None:
    """
    No number of shortcodes leaves one of them to be read.
    """
    article = client.body(Markup('a[the_ad id="889990"]' * 5_000))
    assert marks.fill(article, ()) == "a" * 5_000


def test_the_last_resort_removes_what_looks_like_a_shortcode() -> None:
    """
    Where an article cannot be read at all, nothing that looks like an ad shortcode stays.
    """
    assert marks.without_shortcodes('a[the_ad id="1"]b[/the_ad]c[the\\_ad_group x') == "abc"
