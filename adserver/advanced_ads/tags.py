"""What a piece of HTML holds, read once from its beginning to its end, whatever somebody has typed into it.

No tree is built and nothing is repaired: an ad is half a page's markup, and what it shows is made safe elsewhere. Each
expression looks at every character a few times at most, also where quotes and brackets never close: a tag that begins
within another's quotes is read in another state than that one at every bracket, and there are three states.
"""

import re
from collections.abc import Callable, Iterator
from html import escape, unescape

from msgspec import Struct

_TOKEN = re.compile(
    r"""<!--.*?(?:-->|\Z)|<(?P<name>[a-z][^\s/<>]*+)(?P<rest>(?:[^"'<>]++|"[^"]*+"|'[^']*+')*+)>""", re.I | re.S
)
_ATTRIBUTE = re.compile(
    r"""(?P<name>[^\s"'<>/=]++)(?:\s*+=\s*+(?:"(?P<two>[^"]*+)"|'(?P<one>[^']*+)'|(?P<bare>[^\s"'<>]++)))?"""
)
_NO_WORDS = re.compile(r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)|<[^<>]*+>", re.I | re.S)
_LEADS = ("a", "area")


class Tag(Struct, frozen=True):
    """One that begins an element. Names are in lower case, values as a browser understands them."""

    name: str
    attributes: dict[str, str]


def read_tags(html: str) -> Iterator[Tag]:
    """The tags of *html* in their order, without those in comments."""
    for token in _TOKEN.finditer(html):
        if token["name"]:
            values: dict[str, str] = {}
            for one in _ATTRIBUTE.finditer(token["rest"]):
                values.setdefault(one["name"].lower(), _value(one))
            yield Tag(token["name"].lower(), values)


def read_words(html: str) -> str:
    """What is text in it, without tags, comments, scripts and styles."""
    return _NO_WORDS.sub("", html)


def read_links(html: str) -> list[str]:
    """Where its links lead, each once."""
    found = (tag.attributes.get("href") for tag in read_tags(html) if tag.name in _LEADS)
    return list(dict.fromkeys(href.strip() for href in found if href is not None))


def set_links(html: str, to: Callable[[str], str | None]) -> str:
    """*html* with each link leading where *to* says of where it led; None takes its address away."""

    def change(token: re.Match[str]) -> str:
        if not token["name"] or token["name"].lower() not in _LEADS:
            return token[0]
        return f"<{token['name']}{_ATTRIBUTE.sub(change_href, token['rest'])}>"

    def change_href(one: re.Match[str]) -> str:
        if one["name"].lower() != "href":
            return one[0]
        href = to(_value(one).strip())
        return "" if href is None else f'href="{escape(href)}"'

    return _TOKEN.sub(change, html)


def _value(one: re.Match[str]) -> str:
    return unescape(next((value for value in one.group("two", "one", "bare") if value is not None), ""))
