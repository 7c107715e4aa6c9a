"""A creative as the HTML a page embeds: values escaped for where they land, bought HTML sanitised or boxed.

A snippet is made once per ad, format and catalog version, and cut where its token goes; serving it is one join.
Rules: no inline script, event handler or style (it must live under a strict Content-Security-Policy); every link is
`sponsored nofollow noopener`; nothing from a request is ever echoed. Bought `html` goes through nh3; a third-party
`tag` lives in a sandboxed frame without `allow-same-origin`, so it can reach neither the page nor its cookies.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape

import nh3

from adserver.catalog import Ad, Catalog
from adserver.model import Creative, Format, Group, Kind, Political, Size, Slot, WhenEmpty

Snippet = tuple[bytes, ...]
"""A snippet's UTF-8 bytes, cut at every place where its token goes; a newsletter's, where its path goes."""

_TOKEN = "adserver-token-goes-here"  # noqa: S105 - a mark; no character in it is changed by escaping or by nh3
_REL = "sponsored nofollow noopener"
CLICK_MACRO = "{click_url}"
LESS_MOTION = "(prefers-reduced-motion: reduce)"
_PREVIEW = "PREVIEW"

_ALONE = ' display="none"'

_TAGS = (
    "a abbr b bdi blockquote br caption cite code dd del div dl dt em figcaption figure h2 h3 h4 h5 h6 hr i img ins"
    " kbd li mark ol p picture q s small source span strong sub sup table tbody td tfoot th thead time tr u ul wbr"
)
TAGS = frozenset(_TAGS.split())
ATTRIBUTES = {
    "*": {"class", "dir", "lang", "title", "role", "aria-label", "aria-hidden"},
    "a": {"href", "target"},
    "img": {"src", "srcset", "alt", "width", "height", "loading", "decoding"},
    "source": {"src", "srcset", "media", "type", "width", "height"},
    "td": {"colspan", "rowspan"},
    "th": {"colspan", "rowspan", "scope"},
    "time": {"datetime"},
}
WHOLLY_REMOVED = {"script", "style", "template"}
"""Of these, what is in them goes as well; of any other tag that is not allowed, the words in it stay."""
SCHEMES = {"http", "https", "mailto", "tel"}


def sanitise(markup: str) -> str:
    """Bought HTML without anything that runs, submits, embeds, styles or overlays."""
    return nh3.clean(
        markup,
        tags=set(TAGS),
        clean_content_tags=WHOLLY_REMOVED,
        attributes={name: set(allowed) for name, allowed in ATTRIBUTES.items()},
        url_schemes=SCHEMES,
        link_rel=_REL,
    )


def compile_snippet(catalog: Catalog, ad: Ad, form: Format, public_url: str, *, eager: bool) -> Snippet:
    """The ad as *form* wants it. *eager* is the page's first: it loads at once, the others when near the screen."""
    make = _MAKERS[form]
    advertiser = catalog.advertisers[ad.creative.advertiser].name
    return _cut(make(_Scene(ad, catalog.version, advertiser, public_url, eager=eager)))


def render_preview(catalog: Catalog, ad: Ad, form: Format, public_url: str, *, eager: bool) -> bytes:
    """The same marked PREVIEW, without token and pixel: its link leads straight to where a click would."""
    advertiser = catalog.advertisers[ad.creative.advertiser].name
    return _MAKERS[form](_Scene(ad, catalog.version, advertiser, public_url, eager=eager, preview=True)).encode()


def _cut(markup: str) -> Snippet:
    return tuple(part.encode() for part in markup.split(_TOKEN))


class _Scene:
    """What a maker needs to know of one ad, with the addresses already spelled."""

    def __init__(
        self, ad: Ad, version: int, advertiser: str, public_url: str, *, eager: bool, preview: bool = False
    ) -> None:
        self.slot, self.line_item, self.creative = ad.slot, ad.line_item, ad.creative
        self.version = version
        self.advertiser = advertiser
        self.click = f"{public_url}/c/{_TOKEN}"
        self.pixel = f"{public_url}/i/{_TOKEN}"
        self.place = f"{public_url}/e/{_TOKEN}"
        self.image = f"{public_url}/assets/{self.creative.image}" if self.creative.image else None
        self.still = f"{public_url}/assets/{self.creative.still}" if self.creative.still else None
        self.loading = "" if eager or not self.slot.lazy else ' loading="lazy"'
        self.label = _political_label(ad.creative.political) if ad.creative.political else ad.slot.label
        self.preview = preview
        if preview:
            self.click = self.place = ad.creative.click_url or ""
            self.label = f"{_PREVIEW} {self.label}"

    def attributes(self, kind: str) -> str:
        name = f"{self.label}: {self.advertiser}"
        return (
            f'class="adserver adserver-{kind}" data-slot="{self.slot.id}"'
            f' data-line-item="{_attribute(self.line_item.id)}" data-creative="{_attribute(self.creative.id)}"'
            f' data-version="{self.version}"{_box(self.creative.size)} aria-label="{_attribute(name)}"'
            f"{' data-preview' if self.preview else ''}"
        )


def _html(scene: _Scene) -> str:
    kind = scene.creative.kind
    body = _BODIES[kind](scene)
    return f"<aside {scene.attributes(kind.value)}>{_label(scene)}{body}{_pixel(scene)}</aside>"


def _native(scene: _Scene) -> str:
    """For a page that wears the ad in its own style: the same parts without a box of their own size."""
    body = _BODIES[scene.creative.kind](scene)
    return f'<div {scene.attributes("native")} role="complementary">{_label(scene)}{body}{_pixel(scene)}</div>'


def _email(scene: _Scene) -> str:
    """A link and a picture or words, with the absolute addresses of their place in an issue, which stay when the ad's
    own do not, and without a pixel: a mail's image loads are no impressions.
    """
    creative = scene.creative
    if creative.kind is Kind.IMAGE:
        source = _attribute((scene.image or "") if scene.preview else f"{scene.place}.img")
        alt = _attribute(creative.alt)
        inner = f'<img src="{source}"{_measures(creative.size)} alt="{alt}" border="0">'
    else:
        inner = f"<strong>{_text(creative.title)}</strong>{' ' if creative.text else ''}{_text(creative.text)}"
    small = f"<small>{_text(scene.label)}</small><br>"
    return f'{small}<a href="{_attribute(scene.place)}" rel="{_REL}">{inner}</a>{_political(creative.political)}'


def _amp(scene: _Scene) -> str:
    """What an AMP page may hold: its own elements for pictures and pixels, with their sizes, and nothing that runs."""
    creative = scene.creative
    inner = "" if creative.kind is Kind.IMAGE else _words(creative)
    if scene.image and (size := creative.size or creative.image_size):
        rest = f'{_measures(size)} alt="{_attribute(creative.alt)}" layout="intrinsic"'
        pictures = [(scene.image, "")]
        if scene.still:
            pictures = [(scene.image, f' media="not all and {LESS_MOTION}"'), (scene.still, f' media="{LESS_MOTION}"')]
        shown = (f'<amp-img src="{_attribute(source)}"{rest}{media}></amp-img>' for source, media in pictures)
        inner = "".join(shown) + inner
    return (
        f"<aside {scene.attributes(creative.kind.value)}>{_label(scene)}"
        f'<a class="adserver-link" href="{_attribute(scene.click)}" target="_blank" rel="{_REL}">{inner}</a>'
        f"{'' if scene.preview else _amp_pixel(scene)}"
        f"{_political(creative.political)}</aside>"
    )


def _amp_pixel(scene: _Scene) -> str:
    """AMP takes no pixel by plain HTTP: where the service is asked by that, the page's own scheme is taken."""
    source = scene.pixel.removeprefix("http:")
    return f'<amp-pixel src="{_attribute(source)}" layout="nodisplay"></amp-pixel>'


def _image_body(scene: _Scene) -> str:
    return _link(scene, _picture(scene)) + _political(scene.creative.political)


def _text_body(scene: _Scene) -> str:
    return _link(scene, _words(scene.creative)) + _political(scene.creative.political)


def _native_body(scene: _Scene) -> str:
    picture = _picture(scene) if scene.image else ""
    return _link(scene, picture + _words(scene.creative)) + _political(scene.creative.political)


def _html_body(scene: _Scene) -> str:
    markup = sanitise(scene.creative.html.replace(CLICK_MACRO, scene.click))
    return f'<div class="adserver-html">{markup}</div>' + _political(scene.creative.political)


def _tag_body(scene: _Scene) -> str:
    markup = scene.creative.html.replace(CLICK_MACRO, _attribute(scene.click))
    frame = _frame(markup, scene.creative.size, f"{scene.label}: {scene.advertiser}", scene.loading)
    return frame + _political(scene.creative.political)


def _pixel(scene: _Scene) -> str:
    """As lazy as the ad itself, so that an ad nobody scrolls to is no impression."""
    if scene.preview:
        return ""
    source = _attribute(scene.pixel)
    return f'<img class="adserver-pixel" src="{source}" width="1" height="1" alt=""{scene.loading}>'


def _link(scene: _Scene, inner: str) -> str:
    return f'<a class="adserver-link" href="{_attribute(scene.click)}" target="_blank" rel="{_REL}">{inner}</a>'


def _picture(scene: _Scene) -> str:
    """An image; of one that moves, its still for readers who want less motion, which the browser chooses by itself."""
    image = (
        f'<img src="{_attribute(scene.image or "")}"{_measures(scene.creative.size or scene.creative.image_size)}'
        f' alt="{_attribute(scene.creative.alt)}"{scene.loading} decoding="async">'
    )
    if scene.still is None:
        return image
    return f'<picture><source media="{LESS_MOTION}" srcset="{_attribute(scene.still)}">{image}</picture>'


def _words(creative: Creative) -> str:
    parts = [
        ("strong", "title", creative.title),
        ("span", "text", creative.text),
        ("span", "sponsor", creative.sponsor),
    ]
    return "".join(f'<{tag} class="adserver-{name}">{_text(words)}</{tag}>' for tag, name, words in parts if words)


def _frame(markup: str, size: Size | None, title: str, loading: str = "") -> str:
    return (
        f'<iframe class="adserver-frame"{_measures(size)} title="{_attribute(title)}"{loading}'
        f' sandbox="allow-scripts allow-popups" srcdoc="{_attribute(markup)}"></iframe>'
    )


def _label(scene: _Scene) -> str:
    return f'<span class="adserver-label">{_text(scene.label)}</span>'


def _political_label(_: Political) -> str:
    return "Political advertisement"


def _political(facts: Political | None) -> str:
    """What Regulation (EU) 2024/900, article 11, wants to stand on each political advertisement."""
    if facts is None:
        return ""
    targeted = "It was shown to a chosen audience. " if facts.targeted else ""
    return (
        f'<small class="adserver-political">Sponsored by {_text(facts.sponsor)}, controlled by'
        f" {_text(facts.controlled_by)}, paid for by {_text(facts.paid_by)}. Concerns: {_text(facts.election)}."
        f' {targeted}<a href="{_attribute(facts.notice_url)}" rel="{_REL}">Transparency notice</a></small>'
    )


def render_empty(slot: Slot, form: Format, *, own: bool = False) -> bytes:
    """What stands in *slot* when nothing fills it: nothing, its empty box, or the passback in a sandboxed frame.

    *own* is for readers who have not consented to third parties: nothing stands in for the passback.
    """
    if form is not Format.HTML or slot.when_empty is WhenEmpty.COLLAPSE or (own and slot.passback):
        return b""
    inner = _frame(slot.passback, slot.sizes[0], slot.label) if slot.passback else ""
    kind = "passback" if inner else "empty"
    hidden = "" if inner else ' aria-hidden="true"'
    return (
        f'<aside class="adserver adserver-{kind}" data-slot="{slot.id}"{_box(slot.sizes[0])}{hidden}>'
        f"{inner or _space(slot.label, slot.sizes)}</aside>"
    ).encode()


def render_placeholder(ask: Slot | Group, slots: Mapping[int, Slot] | None = None) -> bytes:
    """A box for the page-side script to fill, safe to keep in any cache: it holds no ad and no token.

    Its space is kept by what is in it, so that it needs no script and no style of its own. *slots* are a group's, by
    id: any of them may answer.
    """
    if isinstance(ask, Group):
        members = [slots[one.slot] for one in ask.slots] if slots else []
        name, refresh = f'data-adserver-group="{_attribute(ask.id)}"', None
    else:
        members, name, refresh = [ask], f'data-adserver-slot="{ask.id}"', ask.refresh_s
    sizes = [size for slot in members for size in slot.sizes]
    box = _box(sizes[0]) if sizes else ""
    often = f' data-refresh="{refresh}"' if refresh else ""
    space = _space(members[0].label, sizes) if members else ""
    return f'<div class="adserver adserver-placeholder" {name}{box}{often}>{space}</div>'.encode()


def _space(label: str, sizes: Sequence[Size]) -> str:
    """As much room as an ad of any of these sizes takes, with its label: a drawing of nothing for each size, which
    `loader.css` lays over each other. Where that is missing only the first takes room, and the label none: no words
    may stand over an empty room that no script fills.
    """
    drawings = (
        f'<svg class="adserver-space" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' aria-hidden="true"{_ALONE if number else ""}></svg>'
        for number, (width, height) in enumerate(_outermost(sizes))
    )
    return (
        f'<span class="adserver-label" data-label="{_attribute(label)}" aria-hidden="true"></span>{"".join(drawings)}'
    )


def _outermost(sizes: Sequence[Size]) -> list[Size]:
    """The first, and those that are the highest at some width of the page, to which each is scaled down."""
    found = list(dict.fromkeys(sizes))
    return [
        one
        for one in found
        if one is found[0]
        or not any(other != one and other[1] >= one[1] and other[1] * one[0] >= one[1] * other[0] for other in found)
    ]


def _box(size: Size | None) -> str:
    return f' data-width="{size[0]}" data-height="{size[1]}"' if size else ""


def _measures(size: Size | None) -> str:
    return f' width="{size[0]}" height="{size[1]}"' if size else ""


def _attribute(value: str) -> str:
    """Safe between double quotes; a grave accent is escaped too, which old parsers took for a quote."""
    return escape(value, quote=True).replace("`", "&#96;")


def _text(value: str) -> str:
    return escape(value, quote=True)


_BODIES: Mapping[Kind, Callable[[_Scene], str]] = {
    Kind.IMAGE: _image_body,
    Kind.TEXT: _text_body,
    Kind.NATIVE: _native_body,
    Kind.HTML: _html_body,
    Kind.TAG: _tag_body,
}

_MAKERS: Mapping[Format, Callable[[_Scene], str]] = {
    Format.HTML: _html,
    Format.NATIVE: _native,
    Format.EMAIL: _email,
    Format.AMP: _amp,
}
