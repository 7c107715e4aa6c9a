"""What an ad of Advanced Ads shows, as a creative: its markup, its picture, its size and where it leads."""

import re
from collections.abc import Callable
from html import escape, unescape
from typing import Any

from msgspec import Struct

from adserver.advanced_ads.kept import OldAd
from adserver.config_files import measure_image
from adserver.fields import parse_click_url
from adserver.model import Creative, Kind
from adserver.stills import asset_name

ASSUMED = (300, 250)
_RUNS = re.compile(
    r"<\s*(?:script|iframe|style|link|form|object|embed|svg|video|audio|canvas|ins|amp-)|<[^>]*\son[a-z]+\s*=", re.I
)
_LONGEST = 65_536
_PHP = re.compile(r"<\?(?:php|=)", re.I)
_SHORTCODE = re.compile(r"\[/?[a-z][a-z0-9_-]*(?:\s[^\]]*)?\]", re.I)
_LINK = re.compile(r"""(<a\s[^>]*?href\s*=\s*)(["'])(.*?)\2""", re.I | re.S)
_MEASURED = re.compile(r"<(?:img|iframe)\s[^>]*>", re.I)
_SIDE = r"""\s{}\s*=\s*["']?([1-9][0-9]{{0,3}})(?:px)?\b"""
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
    if ad.kind != "image" and _SHORTCODE.search(_without_scripts(ad.content)):
        raise NotMoved("holds shortcodes of WordPress, which would show as they are written")
    notes: list[str] = []
    click_url = _click_url(ad, notes)
    if ad.kind == "image":
        return _picture(ad, click_url, read, notes)
    return _markup(ad, click_url, notes)


def _without_scripts(content: str) -> str:
    """Brackets are no shortcodes where they are code."""
    return re.sub(r"<script\b.*?</script\s*>|<[^>]*>", "", content, flags=re.I | re.S)


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
    alt = ad.picture_alt or ad.title or "Advertisement"
    size = (ad.width, ad.height) if ad.width and ad.height else None
    data = read(ad.picture)
    if data is not None and click_url:
        try:
            found = measure_image(Creative(id="", advertiser="", kind=Kind.IMAGE, image=ad.picture), data)
            fits = size in (found.size, (found.size[0] / 2, found.size[1] / 2))
            size = size if size and fits else found.size
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
    if click_url and _TRACKED in content:
        content = content.replace(_TRACKED, "{click_url}")
    elif click_url and kind == "html" and "<a" not in content.lower():
        content = f'<a href="{{click_url}}">{content}</a>'
    elif kind == "html":
        click_url, content = _own_link(content)
    size = (ad.width, ad.height) if ad.width and ad.height else _size_in(content) or _assume(notes)
    if kind == "html" and re.search(r"<[^>]*\sstyle\s*=", content, re.I):
        notes.append("its own styles are taken out, as of all bought markup; make it a tag to keep them")
    if kind == "tag":
        notes.append(
            "it runs code, so it became a third-party tag: in a sandboxed frame, and only for readers who consented"
        )
    return _html(content, kind, size, click_url, notes)


def _own_link(content: str) -> tuple[str | None, str]:
    """Where all of the ad's links lead, if that is one place, and its markup with the counted link instead."""
    links = {unescape(match[3]) for match in _LINK.finditer(content)}
    try:
        [link] = links
        click_url = parse_click_url(link.strip())
    except ValueError:
        return None, content
    return click_url, _LINK.sub(lambda match: f"{match[1]}{match[2]}{{click_url}}{match[2]}", content)


def _html(html: str, kind: str, size: tuple[int, int], click_url: str | None, notes: list[str]) -> Made:
    fields = {"kind": kind, "html": html, **({"click_url": click_url} if click_url else {})}
    return Made(fields=fields, size=_say(size), pictures={}, notes=tuple(notes))


def _size_in(content: str) -> tuple[int, int] | None:
    """What the markup's first picture or frame says of itself."""
    first = _MEASURED.search(content)
    sides = [re.search(_SIDE.format(name), first[0], re.I) if first else None for name in ("width", "height")]
    return (int(sides[0][1]), int(sides[1][1])) if sides[0] and sides[1] else None


def _assume(notes: list[str]) -> tuple[int, int]:
    notes.append(f"its size is not known; {_say(ASSUMED)} is assumed, in its slot and its creative")
    return ASSUMED


def _say(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
