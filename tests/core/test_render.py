"""Snippets: the contract of the markup, and nothing in it that anybody else wrote as markup."""

import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from adserver.decide import SHOWS
from adserver.documents import read_tables
from adserver.model import Creative, Format, Group, Kind, Size, Slot, WhenEmpty
from adserver.render import compile_snippet, render_empty, render_placeholder, sanitise
from tests.make import IMAGE, ad, creative, entries, group, political, problems, slot

PUBLIC = "https://ads.courier.example"
TOKEN = b"T" * 48
REL = "sponsored nofollow noopener"
VOID = {"img", "br", "hr", "source", "wbr", "input", "meta", "link"}

CARRIED = [(kind, form) for form in Format if form is not Format.PLACEHOLDER for kind in Kind if kind in SHOWS[form]]


class Element:
    """One element of a snippet: its name, its attributes, and the names of those it stands in."""

    def __init__(self, name: str, attributes: list[tuple[str, str | None]], within: list[str]) -> None:
        self.name = name
        self.attributes = {key: value or "" for key, value in attributes}
        self.within = within
        assert len(self.attributes) == len(attributes), f"an attribute of {name} stands twice"


class Snippet(HTMLParser):
    """A snippet as a browser reads it."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(markup)
        self.close()
        assert self._open == [], f"{self._open} left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, attrs, list(self._open)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[Element]:
        return [one for one in self.elements if one.name == name]

    def one(self, name: str) -> Element:
        (found,) = self.all(name)
        return found

    def of_class(self, name: str) -> list[Element]:
        return [one for one in self.elements if name in one.attributes.get("class", "").split()]


def markup(of: Creative, form: Format = Format.HTML, *, eager: bool = False, within: Slot | None = None) -> str:
    made, found = ad(of, within=within)
    return TOKEN.join(compile_snippet(made, found, form, PUBLIC, eager=eager)).decode()


def read(of: Creative, form: Format = Format.HTML, *, eager: bool = False, within: Slot | None = None) -> Snippet:
    return Snippet(markup(of, form, eager=eager, within=within))


# The contract


@pytest.mark.parametrize("kind", Kind)
def test_a_snippet_is_an_aside_that_says_what_it_is(kind: Kind) -> None:
    """
    The snippet is one aside that names slot, line item, creative and version, and has an accessible name.
    """
    snippet = read(creative("loaf", kind))
    outer = snippet.elements[0]
    assert outer is snippet.one("aside")
    attributes = outer.attributes
    assert attributes["class"] == f"adserver adserver-{kind.value}"
    assert (attributes["data-slot"], attributes["data-line-item"]) == ("889990", "spring-sale")
    assert (attributes["data-creative"], attributes["data-version"]) == ("loaf", "7")
    assert attributes["aria-label"] == "Advertisement: Acme"
    assert all(one.within[0] == "aside" for one in snippet.elements[1:])


@pytest.mark.parametrize(("kind", "form"), CARRIED)
def test_the_label_is_seen_and_stands_outside_the_link(kind: Kind, form: Format) -> None:
    """
    In every format the reader sees that it is an advertisement, in words that are no part of the link.
    """
    snippet = read(creative(kind=kind), form, within=slot(label="Partner of this letter"))
    labels = snippet.of_class("adserver-label") or snippet.all("small")[:1]
    assert len(labels) == 1
    assert "a" not in labels[0].within
    assert snippet.text.startswith("Partner of this letter")


@pytest.mark.parametrize(("kind", "form"), CARRIED)
def test_every_link_is_marked_as_sold_and_leads_through_the_click_address(kind: Kind, form: Format) -> None:
    """
    Links carry rel="sponsored nofollow noopener" and lead to the token's click address, in a mail to their place's,
    never to the buyer directly.
    """
    snippet = read(creative(kind=kind), form)
    counted = "e" if form is Format.EMAIL else "c"
    links = snippet.all("a")
    assert len(links) == (0 if kind is Kind.TAG else 1)
    for link in links:
        assert link.attributes["rel"] == REL
        assert link.attributes["href"] == f"{PUBLIC}/{counted}/{TOKEN.decode()}"


@pytest.mark.parametrize(("kind", "form"), CARRIED)
def test_nothing_in_a_snippet_runs_or_styles_inline(kind: Kind, form: Format) -> None:
    """
    No script element, no event handler and no style: the snippet lives under a strict Content-Security-Policy.
    """
    facts = read(creative(kind=kind, political=political()), form)
    assert not {one.name for one in facts.elements} & {"script", "style", "link", "object", "embed", "form", "base"}
    for one in facts.elements:
        assert not [name for name in one.attributes if name.startswith("on") or name == "style"]
        assert "javascript:" not in one.attributes.get("href", "") + one.attributes.get("src", "")


@pytest.mark.parametrize(("kind", "form"), CARRIED)
def test_impressions_are_counted_by_one_pixel_except_in_a_mail(kind: Kind, form: Format) -> None:
    """
    A snippet ends with one pixel at the token's impression address; a mail has none, because its image loads are no
    impressions.
    """
    snippet = read(creative(kind=kind), form)
    address = f"{PUBLIC}/i/{TOKEN.decode()}"
    pixels = [one for one in snippet.elements if one.attributes.get("src") == address]
    assert len(pixels) == (0 if form is Format.EMAIL else 1)
    assert (address in markup(creative(kind=kind), form)) == bool(pixels)
    for pixel in pixels:
        if form is Format.AMP:
            assert pixel.name == "amp-pixel"
        else:
            attributes = pixel.attributes
            assert (attributes["width"], attributes["height"], attributes["alt"]) == ("1", "1", "")


@pytest.mark.parametrize("form", [Format.HTML, Format.NATIVE, Format.EMAIL, Format.AMP])
def test_a_picture_reserves_its_place(form: Format) -> None:
    """
    An image says its width and height, so that nothing jumps, and its alternative words.
    """
    snippet = read(creative(kind=Kind.IMAGE, alt="A loaf of bread"), form)
    address = f"{PUBLIC}/e/{TOKEN.decode()}.img" if form is Format.EMAIL else f"{PUBLIC}/assets/{IMAGE}"
    (picture,) = [one for one in snippet.elements if one.attributes.get("src") == address]
    assert (picture.attributes["width"], picture.attributes["height"]) == ("300", "250")
    assert picture.attributes["alt"] == "A loaf of bread"
    if form is not Format.EMAIL:
        assert (snippet.elements[0].attributes["data-width"], snippet.elements[0].attributes["data-height"]) == (
            "300",
            "250",
        )


STILL = "fedcba9876543210fedcba9876543210.png"


@pytest.mark.parametrize("kind", [Kind.IMAGE, Kind.NATIVE])
def test_what_moves_has_its_still_for_those_who_want_less_motion(kind: Kind) -> None:
    """
    The browser chooses by itself; a picture that does not move is an image and nothing else, as ever.
    """
    fields: dict[str, Any] = {"image": IMAGE, "image_size": (320, 180), "alt": "A ferry"}
    snippet = read(creative(kind=kind, still=STILL, **fields))
    source, picture = snippet.one("source"), snippet.all("img")[0]
    assert source.attributes == {"media": "(prefers-reduced-motion: reduce)", "srcset": f"{PUBLIC}/assets/{STILL}"}
    assert source.within == picture.within == [*snippet.one("picture").within, "picture"]
    assert picture.attributes["src"] == f"{PUBLIC}/assets/{IMAGE}"
    assert not read(creative(kind=kind, **fields)).all("picture")

    pictures = read(creative(kind=kind, still=STILL, **fields), Format.AMP).all("amp-img")
    assert [one.attributes["src"].rpartition("/")[2] for one in pictures] == [IMAGE, STILL]
    assert pictures[0].attributes["media"] == f"not all and {pictures[1].attributes['media']}"


def test_a_native_picture_reserves_its_own_size() -> None:
    """
    A native creative has no booked size; its picture reserves the pixels it was measured to have.
    """
    shown = creative(kind=Kind.NATIVE, image=IMAGE, image_size=(320, 180), alt="A ferry")
    picture = read(shown).all("img")[0]
    assert (picture.attributes["width"], picture.attributes["height"]) == ("320", "180")


@pytest.mark.parametrize("form", [Format.HTML, Format.NATIVE])
@pytest.mark.parametrize("kind", [Kind.IMAGE, Kind.TEXT, Kind.NATIVE, Kind.TAG])
def test_loads_lazily_except_the_first(kind: Kind, form: Format) -> None:
    """
    What loads waits until the ad is near the screen, and its pixel with it; the page's first ad, and those in a slot
    that is not lazy, load at once.
    """
    if kind not in SHOWS[form]:
        return
    shown = creative(kind=kind)

    def loading(snippet: Snippet) -> set[str | None]:
        return {one.attributes.get("loading") for one in snippet.elements if one.name in ("img", "iframe")}

    assert loading(read(shown, form)) == {"lazy"}
    assert loading(read(shown, form, eager=True)) == {None}
    assert loading(read(shown, form, within=slot(lazy=False))) == {None}


def test_words_are_shown_as_words() -> None:
    """
    Title, text and sponsor are shown inside the link; what is not given leaves no empty element.
    """
    snippet = read(creative(kind=Kind.NATIVE, title="Fresh bread", text="Baked today", sponsor="Acme"))
    words = [
        one.attributes["class"] for one in snippet.elements if one.name in ("strong", "span") and "a" in one.within
    ]
    assert words == ["adserver-title", "adserver-text", "adserver-sponsor"]
    assert snippet.text == "AdvertisementFresh breadBaked todayAcme"
    assert len(read(creative(kind=Kind.TEXT, text="")).of_class("adserver-text")) == 1  # the aside's own class alone


@pytest.mark.parametrize(("kind", "form"), CARRIED)
def test_political_facts_stand_on_the_ad_in_every_format(kind: Kind, form: Format) -> None:
    """
    A political advertisement is labelled as one; it says sponsor, controller, payer, election and where its notice is.
    """
    snippet = read(creative(kind=kind, political=political(targeted=True)), form, within=slot(label="Partner"))
    for fact in ("Party for Bread", "Bread Holding", "Friends of Bread", "Town council 2026", "a chosen audience"):
        assert fact in snippet.text
    assert snippet.text.startswith("Political advertisement")
    assert "Partner" not in snippet.text
    notice = snippet.all("a")[-1].attributes
    assert (notice["href"], notice["rel"]) == ("https://party.example/notice", REL)
    if form is not Format.EMAIL:
        assert snippet.elements[0].attributes["aria-label"] == "Political advertisement: Acme"


def test_an_untargeted_political_ad_claims_no_audience() -> None:
    """
    Only a targeted one says it was shown to a chosen audience.
    """
    assert "audience" not in read(creative(political=political())).text


@pytest.mark.parametrize(("kind", "form"), CARRIED)
def test_a_snippet_is_the_same_every_time(kind: Kind, form: Format) -> None:
    """
    Rendering depends on its arguments alone, and the token is all that differs between two servings.
    """
    assert markup(creative(kind=kind), form) == markup(creative(kind=kind), form)
    assert "adserver-token-goes-here" not in markup(creative(kind=kind), form)


# Hostile values

HOSTILE = [
    '"><script>alert(1)</script>',
    "' onload='alert(1)",
    '" onload="alert(1)',
    "` onload=alert(1) `",
    "</script><script>alert(1)</script>",
    "</aside></a><img src=x onerror=alert(1)>",
    "<!-- <b>",
    "&lt;script&gt;&amp;&quot;",
    "{click_url}",
    "a\u2028b",
    "🥖 <3",
    "x" * 10_000,
]


@pytest.mark.parametrize("words", HOSTILE, ids=lambda words: ascii(words)[:30])
@pytest.mark.parametrize("form", [Format.HTML, Format.NATIVE, Format.EMAIL, Format.AMP])
@pytest.mark.parametrize("kind", [Kind.IMAGE, Kind.TEXT, Kind.NATIVE])
def test_words_stay_words_wherever_they_land(kind: Kind, form: Format, words: str) -> None:
    """
    Whatever a text field holds is read back by a browser as that very text; it adds no element and no attribute.
    """
    fields: dict[str, Any] = {"alt": words} if kind is Kind.IMAGE else {"title": words, "text": words}
    facts = political(**dict.fromkeys(("sponsor", "controlled_by", "paid_by", "election"), words))
    quiet, hostile = (
        read(creative(kind=kind, political=political()), form, within=slot(label="Partner")),
        read(creative(kind=kind, political=facts, **fields), form, within=slot(label=words)),
    )
    assert [(one.name, list(one.attributes)) for one in hostile.elements] == [
        (one.name, list(one.attributes)) for one in quiet.elements
    ]
    if kind is Kind.IMAGE:
        assert words in [one.attributes.get("alt") for one in hostile.elements]
    assert hostile.text.count(words) >= (4 if kind is Kind.IMAGE else 5)
    raw = markup(creative(kind=kind, political=facts, **fields), form, within=slot(label=words))
    assert not re.search(r'="[^"]*[`<][^"]*"', raw)


@pytest.mark.parametrize("words", HOSTILE, ids=lambda words: ascii(words)[:30])
def test_a_label_and_a_name_stay_words(words: str) -> None:
    """
    The slot's label is text where it is seen, and text in the accessible name.
    """
    snippet = read(creative(), within=slot(label=words))
    assert snippet.elements[0].attributes["aria-label"] == f"{words}: Acme"
    assert snippet.text == words


def test_direction_marks_do_not_reach_a_snippet() -> None:
    """
    Marks that turn the reading direction are taken out of prose when it is read, and refused in names.
    """
    tables = {
        "advertiser": [{"id": "acme", "name": "Acme"}],
        "creative": [
            {
                "id": "loaf",
                "advertiser": "acme",
                "kind": "native",
                "title": "Fresh\u202e bread",
                "text": "\u2066Baked\u2069",
                "sponsor": "Ac\u200fme",
                "click_url": "https://acme.example",
            }
        ],
    }
    assert problems(tables) == []
    (shown,) = read_tables(entries(tables))[0].creatives
    assert read(shown).text == "AdvertisementFresh breadBakedAcme"


DROPPED = [
    "<script>alert(1)</script>",
    '<script src="https://evil.example/x.js"></script>',
    "<style>body{display:none}</style>",
    '<iframe src="https://evil.example"></iframe>',
    '<object data="https://evil.example"></object><embed src="https://evil.example">',
    '<form action="https://evil.example"><input name="password"><button>Go</button></form>',
    '<img src="https://x.example/a.png" onerror="alert(1)" onload=alert(1)>',
    '<p style="position:fixed;top:0" onclick="alert(1)">Bread</p>',
    '<a href="javascript:alert(1)">Bread</a>',
    '<a href="JaVa\tScRiPt:alert(1)">Bread</a>',
    '<a href=" &#106;avascript:alert(1)">Bread</a>',
    '<a href="data:text/html,<script>alert(1)</script>">Bread</a>',
    '<a href="vbscript:x">Bread</a>',
    '<img src="javascript:alert(1)">',
    '<svg onload="alert(1)"><script>alert(1)</script></svg>',
    '<math><mtext><table><mglyph><style><img src=x onerror="alert(1)">',
    '<base href="https://evil.example"><meta http-equiv="refresh" content="0"><link rel="stylesheet" href="x">',
    "<template><script>alert(1)</script></template>",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "<!--[if IE]><script>alert(1)</script><![endif]-->",
    '<video src="x" onplay="alert(1)"></video><audio src="x"></audio>',
    '<a id="x" name="y" href="https://x.example" ping="https://evil.example">Bread</a>',
    "</div></aside><script>alert(1)</script>",
    '<p title="</p><script>alert(1)</script>">',
]
ALLOWED_ELEMENTS = {"aside", "span", "div", "img", "a", "p"}
ALLOWED_ATTRIBUTES = {"class", "src", "href", "rel", "target", "alt", "width", "height", "loading", "title"}


@pytest.mark.parametrize("bought", DROPPED, ids=lambda bought: bought[:40])
@pytest.mark.parametrize("form", [Format.HTML, Format.NATIVE])
def test_bought_html_cannot_run_submit_embed_or_style(form: Format, bought: str) -> None:
    """
    Scripts, styles, frames, forms, handlers and addresses that run are taken out of bought HTML; it stays in its box.
    """
    snippet = read(creative(kind=Kind.HTML, html=f"{bought}<p>Fresh bread</p>"), form)
    for one in snippet.elements[1:]:
        assert one.name in ALLOWED_ELEMENTS, one.name
        assert one.attributes.keys() <= ALLOWED_ATTRIBUTES, one.attributes
        for address in (one.attributes.get("href", "https://"), one.attributes.get("src", "https://")):
            assert re.match(r"https://|[^:]*$", address), address
    assert "alert(1)" not in snippet.text
    assert snippet.elements[-1].attributes["class"] == "adserver-pixel"
    assert snippet.elements[-1].within == [snippet.elements[0].name]


def test_bought_html_keeps_what_is_harmless() -> None:
    """
    Paragraphs, pictures, tables and links stay as they were bought; links become sponsored ones.
    """
    bought = (
        '<h2 class="t">Bread</h2><p>Fresh <b>today</b></p>'
        '<a href="https://x.example/" target="_blank"><img src="https://x.example/a.png" alt="x" width="1"></a>'
        "<table><tbody><tr><td>1</td></tr></tbody></table>"
    )
    assert sanitise(bought) == bought.replace('target="_blank"', f'target="_blank" rel="{REL}"')


@pytest.mark.parametrize(
    "cut",
    [
        "<",
        "<a",
        "<a href",
        '<a href="',
        '<a href="x',
        "<p>open",
        "</p>",
        "<!--",
        "<!-- x",
        "&",
        "&#",
        "<![CDATA[",
        "\ud7ff",
    ],
)
def test_bought_html_that_breaks_off_stays_in_its_box(cut: str) -> None:
    """
    HTML cut anywhere closes with its own box and swallows nothing that follows.
    """
    snippet = read(creative(kind=Kind.HTML, html=f"<p>Bread</p>{cut}"))
    assert snippet.elements[-1].attributes["class"] == "adserver-pixel"
    assert snippet.elements[-1].within == ["aside"]


def test_the_click_macro_becomes_the_counted_address() -> None:
    """
    {click_url} in bought HTML and in a tag becomes the token's click address, at every place it stands.
    """
    bought = '<a href="{click_url}">one</a><a href="{click_url}">two</a>'
    address = f"{PUBLIC}/c/{TOKEN.decode()}"
    assert [one.attributes["href"] for one in read(creative(kind=Kind.HTML, html=bought)).all("a")] == [address] * 2
    inner = Snippet(read(creative(kind=Kind.TAG, html=bought)).one("iframe").attributes["srcdoc"])
    assert [one.attributes["href"] for one in inner.all("a")] == [address] * 2


@pytest.mark.parametrize("bought", [*DROPPED, *HOSTILE], ids=lambda bought: ascii(bought)[:40])
def test_a_tag_lives_in_a_sandbox(bought: str) -> None:
    """
    A third-party tag runs in a frame that may run scripts and open windows and nothing else; the page sees none of its
    markup.
    """
    snippet = read(creative(kind=Kind.TAG, html=bought))
    frame = snippet.one("iframe").attributes
    assert frame["sandbox"] == "allow-scripts allow-popups"
    assert frame["srcdoc"] == bought.replace("{click_url}", f"{PUBLIC}/c/{TOKEN.decode()}")
    assert (frame["width"], frame["height"], frame["title"]) == ("300", "250", "Advertisement: Acme")
    assert [one.name for one in snippet.elements] == ["aside", "span", "iframe", "img"]
    raw = markup(creative(kind=Kind.TAG, html=bought))
    assert re.search(r'srcdoc="([^"<>`]*)"></iframe>', raw)
    assert raw.count("<iframe") == 1


# Empty slots and placeholders


def test_an_empty_slot_collapses_unless_it_keeps_its_box() -> None:
    """
    What nothing fills is nothing, or an empty box that is hidden from assistive technology.
    """
    assert render_empty(slot(), Format.HTML) == b""
    box, label, space = Snippet(render_empty(slot(when_empty=WhenEmpty.KEEP), Format.HTML).decode()).elements
    assert label.attributes["aria-hidden"] == "true"
    assert (space.attributes["width"], space.attributes["height"]) == ("300", "250")
    assert box.name == "aside"
    assert box.attributes == {
        "class": "adserver adserver-empty",
        "data-slot": "889990",
        "data-width": "300",
        "data-height": "250",
        "aria-hidden": "true",
    }


@pytest.mark.parametrize("form", [Format.EMAIL, Format.AMP, Format.NATIVE])
def test_other_formats_get_nothing_from_an_empty_slot(form: Format) -> None:
    """
    A mail or an AMP page has no use for an empty box.
    """
    assert render_empty(slot(when_empty=WhenEmpty.KEEP), form) == b""


@pytest.mark.parametrize("bought", ['<script src="https://x.example/t.js"></script>', *HOSTILE], ids=ascii)
def test_a_passback_lives_in_the_same_sandbox(bought: str) -> None:
    """
    Another ad server's markup is boxed like any third-party tag.
    """
    empty = slot(when_empty=WhenEmpty.PASSBACK, passback=bought, label="Partner")
    frame = Snippet(render_empty(empty, Format.HTML).decode()).one("iframe").attributes
    assert frame["sandbox"] == "allow-scripts allow-popups"
    assert (frame["srcdoc"], frame["title"]) == (bought, "Partner")


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (slot(), {"data-adserver-slot": "889990", "data-width": "300", "data-height": "250"}),
        (slot(refresh_s=60, sizes=((728, 90), (300, 250))), {"data-refresh": "60", "data-width": "728"}),
        (group(889990, id="side-bar"), {"data-adserver-group": "side-bar"}),
    ],
)
def test_a_placeholder_holds_no_ad_and_no_token(ask: Slot | Group, said: dict[str, str]) -> None:
    """
    A placeholder may be kept in any cache: it says which slot or group belongs there, and its size.
    """
    box, *_ = Snippet(render_placeholder(ask).decode()).elements
    assert said.items() <= box.attributes.items()
    assert box.attributes["class"] == "adserver adserver-placeholder"
    assert unescape(render_placeholder(ask).decode()) == render_placeholder(ask).decode()


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        (((300, 250),), ["300x250"]),
        (((970, 250), (728, 90)), ["970x250"]),
        (((728, 90), (468, 60), (320, 100)), ["728x90", "320x100"]),
        (((300, 600), (160, 600)), ["300x600", "160x600"]),
        (((300, 250), (300, 250)), ["300x250"]),
    ],
)
def test_a_placeholder_keeps_the_room_of_every_size_that_is_the_highest_somewhere(
    sizes: tuple[Size, ...], kept: list[str]
) -> None:
    """
    Each size that is the highest at some width has a drawing of nothing; without a style only the first takes room.
    """
    _, label, *spaces = Snippet(render_placeholder(slot(sizes=sizes)).decode()).elements
    assert label.attributes == {"class": "adserver-label", "data-label": "Advertisement", "aria-hidden": "true"}
    assert [f"{one.attributes['width']}x{one.attributes['height']}" for one in spaces] == kept
    assert ["display" in one.attributes for one in spaces] == [False] + [True] * (len(kept) - 1)


def test_without_consent_a_passback_stays_away() -> None:
    """
    Another ad server's markup is a third party's: for a reader who has not consented nothing stands there.
    """
    empty = slot(when_empty=WhenEmpty.PASSBACK, passback="<p>Ask them</p>")
    assert b"iframe" in render_empty(empty, Format.HTML)
    assert render_empty(empty, Format.HTML, own=True) == b""
