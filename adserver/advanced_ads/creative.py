"""What an ad of Advanced Ads shows, as a creative: its markup, its picture, its size and where it leads."""

import re
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from adserver.advanced_ads.kept import OldAd
from adserver.advanced_ads.tags import read_links, read_tags, read_words, set_links
from adserver.config_files import measure_image
from adserver.fields import parse_click_url
from adserver.model import Creative, Kind
from adserver.stills import asset_name

ASSUMED = (300, 250)
_RUNS = re.compile(
    r"<\s*(?:script|iframe|style|link|form|object|embed|svg|video|audio|canvas|ins|amp-)|<[^<>]*\son[a-z]+\s*=", re.I
)
_LONGEST = 65_536
_PHP = re.compile(r"<\?(?:php|=)", re.I)
_SHORTCODE = re.compile(r"\[(?:/[A-Za-z][\w-]*|[a-z][a-z0-9_-]*/?|[A-Za-z][\w-]*\s[^\[\]]*)\]", re.ASCII)
_SIDE = re.compile(r"\s*([1-9][0-9]{0,3})(?:px)?\s*/?", re.ASCII)
_PARAGRAPHS = re.compile(r"<(?:p|div|table|ul|ol|h[1-6]|section|script|iframe)\b", re.I)
_PLACEHOLDER = re.compile(r"\[[A-Z_]{3,}\]")
_TRACKED = "%link%"

Read = Callable[[str], bytes | None]
"""A picture by its address, None where its file is not at hand."""

FOREIGN = {
    "adsense": "an AdSense unit: AdSense's own code can be booked as a tag, or be a slot's passback",
    "gam": "an ad unit of Google Ad Manager: its code can be booked as a tag, or be a slot's passback",
    "amp": "AMP markup of another network",
    "dummy": "a test ad",
    "group": "a group shown as an ad: put [the_ad_group] in its place",
}


class NotMoved(ValueError):
    """The ad cannot be moved; the text is why."""


class Made(Struct, frozen=True, kw_only=True):
    """A creative's own fields, its picture by its name, and what of the ad is different now."""

    fields: dict[str, Any]
    size: str
    pictures: dict[str, bytes]
    notes: tuple[str, ...]


def make_creative(ad: OldAd, read: Read) -> Made:
    """Raises NotMoved."""
    if ad.kind in FOREIGN:
        raise NotMoved(f"is {FOREIGN[ad.kind]}")
    if ad.kind not in ("plain", "content", "image"):
        raise NotMoved(f"is of the type {ad.kind!r:.60}, which is not known here")
    if len(ad.content) > _LONGEST:
        raise NotMoved(f"has {len(ad.content):,} characters of HTML; at most {_LONGEST:,} are shown")
    if _PHP.search(ad.content):
        raise NotMoved("runs PHP when it is shown")
    shortcode = _SHORTCODE.search(read_words(ad.content)) if ad.kind != "image" else None
    if shortcode:
        raise NotMoved(f"holds {shortcode[0]!r:.80}: as a shortcode of WordPress it would show as it is written here")
    notes: list[str] = []
    if _is_set(ad.options.get("output"), "custom-code"):
        notes.append("the code that is to follow it is left out: put it into the theme, or book it as a tag")
    click_url = _click_url(ad, notes)
    if ad.kind == "image":
        return _picture(ad, click_url, read, notes)
    return _markup(ad, click_url, notes)


def _is_set(options: Any, name: str) -> bool:
    value = options.get(name) if isinstance(options, dict) else None
    return isinstance(value, str) and bool(value.strip())


def _click_url(ad: OldAd, notes: list[str]) -> str | None:
    if not ad.url:
        return None
    try:
        if not _PLACEHOLDER.search(ad.url):
            return parse_click_url(ad.url)
        notes.append(f"its link {ad.url!r:.120} has placeholders, which nothing fills in here; it leads nowhere now")
    except ValueError as error:
        notes.append(f"its link {error}; it leads nowhere now")
    return None


def _picture(ad: OldAd, click_url: str | None, read: Read, notes: list[str]) -> Made:
    """A picture of ours where its file is at hand and it leads somewhere; else markup that names it where it is."""
    if not re.match(r"https?://", ad.picture):
        raise NotMoved("is a picture whose file Advanced Ads does not name; upload it in the console")
    try:
        urlsplit(ad.picture)
    except ValueError as error:
        raise NotMoved(
            f"is a picture at {ad.picture!r:.120}, which is no address ({error}); upload it in the console"
        ) from None
    alt = ad.picture_alt or ad.title or "Advertisement"
    size, data = ad.size, read(ad.picture)
    if data is not None and click_url:
        try:
            found = measure_image(Creative(id="", advertiser="", kind=Kind.IMAGE, image=ad.picture), data)
            size = size or found.size
            if size not in (found.size, (found.size[0] / 2, found.size[1] / 2)):
                raise ValueError(f"has {_say(found.size)} pixels; expected {_say(size)}, or twice as many each way")
            name = asset_name(data, found.extension)
            fields = {"kind": "image", "image": f"assets/{name}", "alt": alt, "click_url": click_url}
            return Made(fields=fields, size=_say(size), pictures={name: data}, notes=tuple(notes))
        except ValueError as error:
            notes.append(f"its picture {error}; it is shown from the site instead")
    if size is None:
        size = _assume(notes)
    image = f'<img src="{escape(ad.picture)}" width="{size[0]}" height="{size[1]}" alt="{escape(alt)}">'
    html = f'<a href="{{click_url}}">{image}</a>' if click_url else image
    return _html(html, "html", size, click_url, notes)


def _markup(ad: OldAd, click_url: str | None, notes: list[str]) -> Made:
    content = ad.content.strip()
    if not content:
        raise NotMoved("is empty")
    kind = "tag" if _RUNS.search(content) else "html"
    if ad.kind == "content" and not _PARAGRAPHS.search(content):
        content = "\n".join(f"<p>{one}</p>" for one in re.split(r"\n\s*\n", content))
    click_url, content = _linked(content, kind, click_url, notes)
    size = ad.size or _size_in(content) or _assume(notes)
    if kind == "html" and any("style" in tag.attributes for tag in read_tags(content)):
        notes.append("its own styles are taken out, as of all bought markup; make it a tag to keep them")
    if kind == "tag":
        notes.append(
            "it runs code, so it became a third-party tag: in a sandboxed frame, and only for readers who consented"
        )
    return _html(content, kind, size, click_url, notes)


def _linked(content: str, kind: str, click_url: str | None, notes: list[str]) -> tuple[str | None, str]:
    """Where it leads, and its markup with the counted link in that place. What is not counted then is said."""
    if _TRACKED in content:
        if click_url:
            return click_url, content.replace(_TRACKED, "{click_url}")
        notes.append(f"{_TRACKED} in it has no link to stand for, and is taken out")
        content = set_links(content, lambda href: None if href == _TRACKED else href).replace(_TRACKED, "")
    if kind == "tag":
        if click_url:
            notes.append("its link is counted only where its code uses {click_url}")
        return click_url, content
    links = read_links(content)
    if not links:
        if click_url and not any(tag.name == "a" for tag in read_tags(content)):
            content = f'<a href="{{click_url}}">{content}</a>'
        return click_url, content
    if len(links) > 1:
        notes.append(f"has {len(links)} links, and one is counted: clicks on these are not")
        return None, content
    try:
        return parse_click_url(links[0]), set_links(content, lambda _: "{click_url}")
    except ValueError as error:
        notes.append(f"its link {error}; clicks on it are not counted")
        return None, content


def _html(html: str, kind: str, size: tuple[int, int], click_url: str | None, notes: list[str]) -> Made:
    fields = {"kind": kind, "html": html, **({"click_url": click_url} if click_url else {})}
    return Made(fields=fields, size=_say(size), pictures={}, notes=tuple(notes))


def _size_in(content: str) -> tuple[int, int] | None:
    """What the markup's first picture or frame says of itself."""
    for tag in read_tags(content):
        if tag.name in ("img", "iframe"):
            sides = [_SIDE.fullmatch(tag.attributes.get(name, "")) for name in ("width", "height")]
            return (int(sides[0][1]), int(sides[1][1])) if sides[0] and sides[1] else None
    return None


def _assume(notes: list[str]) -> tuple[int, int]:
    notes.append(f"its size is not known; {_say(ASSUMED)} is assumed, in its slot and its creative")
    return ASSUMED


def _say(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
