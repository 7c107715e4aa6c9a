"""What the sanitiser makes of bought HTML, told as sentences and shown side by side.

`render.sanitise` alone decides; here it is only told what it did. The source is read as browsers' tokenisers read it
(HTML, 13.2.5), in linear time: `html.parser` takes minutes over some texts of 64 kB.
"""

import re
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from functools import lru_cache
from html import escape, unescape
from itertools import zip_longest

from msgspec import Struct

from adserver.fields import parse_markup
from adserver.render import ATTRIBUTES, CLICK_MACRO, TAGS, WHOLLY_REMOVED, sanitise

_MOST_TOLD = 200
_MOST_ALIGNED = 400
_LONG_LINE = 120
_CLICK = "https://click.example/adserver-click-goes-here"
_NAME = re.compile(r"[a-z][^\s/>]*+", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"[\s/]*+(=?[^\s/>=]*+)(?:\s*+=\s*+(\"[^\"]*+\"|'[^']*+'|[\"']|[^\s>]*+))?")
_RAW = ("script", "style", "textarea", "title", "iframe", "noembed", "noframes", "noscript", "xmp")
_FOREIGN = ("svg", "math")
_EMPTY = ("area", "base", "embed", "frame", "input", "link", "meta", "param", "source", "track", "basefont", "keygen")
_REWRITTEN = "puts the rest in order, as browsers would: compare the two side by side"


class Cleaned(Struct, frozen=True):
    """*html* is what pages get, with the click macro still in it; *removed* are sentences; *pairs* are lines before and
    after, "" where there is none.
    """

    html: str
    removed: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]


def clean(html: str) -> Cleaned:
    """Raises ValueError with the rest of a sentence for what is no markup at all: too long, or not text."""
    source = parse_markup(html)
    cleaned = sanitise(source.replace(CLICK_MACRO, _CLICK)).replace(_CLICK, CLICK_MACRO)
    tokens = list(_tokens(source))
    removed = list(_removed(tokens))
    if _counts(_tokens(cleaned)) != _counts(_kept(tokens)):
        removed.append(_REWRITTEN)
    if len(removed) > _MOST_TOLD:
        removed[_MOST_TOLD:] = [f"and {len(removed) - _MOST_TOLD:,} more"]
    return Cleaned(cleaned, tuple(removed), tuple(_pairs(source, cleaned)))


class _Token(Struct, frozen=True):
    """A start tag; or, with *kind*, a comment or a declaration. *inside* is what it lies in that goes as a whole."""

    kind: str
    name: str
    line: int
    attributes: tuple[tuple[str, str], ...] = ()
    inside: bool = False


def _tokens(html: str) -> Iterator[_Token]:
    at, line, counted = 0, 1, 0
    within: list[str] = []
    while (at := html.find("<", at)) >= 0:
        line, counted = line + html.count("\n", counted, at), at
        inside = bool(within)
        if html.startswith("<!--", at):
            yield _Token("comment", "", line, inside=inside)
            end = html.find("-->", at + 2)
            at = len(html) if end < 0 else end + 3
        elif html.startswith(("<!", "<?"), at):
            yield _Token("declaration", "", line, inside=inside)
            end = html.find(">", at)
            at = len(html) if end < 0 else end + 1
        elif (closing := html.startswith("</", at)) or _NAME.match(html, at + 1):
            match = _NAME.match(html, at + 1 + closing)
            if not match:
                at += 1
                continue
            name = match[0].lower()
            attributes, end = _attributes(html, match.end())
            if end < 0:
                return
            at = end
            if closing:
                if name in within:
                    del within[within.index(name) :]
                continue
            yield _Token("tag", name, line, attributes, inside)
            if name in ("template", *_FOREIGN) and not html.startswith("/>", end - 2):
                within.append(name)
            elif name == "plaintext":
                return
            elif name in _RAW and not inside:
                close = _end_of(name).search(html, at)
                at = len(html) if close is None else close.start()
        else:
            at += 1


@lru_cache(len(_RAW))
def _end_of(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE)


def _attributes(html: str, at: int) -> tuple[tuple[tuple[str, str], ...], int]:
    """What stands in a tag after its name, and where the tag ends; -1 where it does not, so that it is none."""
    found: dict[str, str] = {}
    while True:
        match = _ATTRIBUTE.match(html, at)
        if match is None or match[2] in ('"', "'"):
            return (), -1
        at = match.end()
        if match[1]:
            value = match[2] or ""
            found.setdefault(match[1].lower(), value[1:-1] if value[:1] in ('"', "'") else value)
        if html.startswith(">", at):
            return tuple(found.items()), at + 1
        if at >= len(html):
            return (), -1


def _removed(tokens: list[_Token]) -> Iterator[str]:
    for token in tokens:
        where = f"at line {token.line}"
        if token.inside:
            continue
        if token.kind != "tag":
            yield f"removes the {token.kind} {where}"
        elif token.name in WHOLLY_REMOVED:
            yield f"removes the {token.name}{' and what is in it' if token.name == 'template' else ''} {where}"
        elif token.name in _FOREIGN:
            yield f"removes the <{token.name}> {where} and what is in it"
        elif _spelled(token.name) not in TAGS:
            words = "" if token.name in _EMPTY else "; the words in it stay"
            yield f"removes the tag <{token.name:.40}> {where}{words}"
        else:
            yield from _removed_attributes(token, where)


def _removed_attributes(token: _Token, where: str) -> Iterator[str]:
    kept = dict(_kept_attributes(token))
    for name, value in token.attributes:
        if name in kept or (token.name == "a" and name == "rel"):
            continue
        if _is_allowed(token.name, name):
            yield f"removes the address {unescape(value)!r:.60} in {name} of <{token.name}> {where}"
        else:
            yield f"removes the attribute {name:.40} of <{token.name}> {where}"


def _spelled(name: str) -> str:
    return "img" if name == "image" else name


def _is_allowed(tag: str, name: str) -> bool:
    return name in ATTRIBUTES["*"] or name in ATTRIBUTES.get(_spelled(tag), ())


def _kept_attributes(token: _Token) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, value in token.attributes
        if _is_allowed(token.name, name) and (name not in ("href", "src") or _keeps(_spelled(token.name), name, value))
    ]


@lru_cache(512)
def _keeps(tag: str, name: str, address: str) -> bool:
    """Whether the sanitiser itself leaves such an address where it is."""
    address = unescape(address).replace(CLICK_MACRO, _CLICK)
    return f" {name}=" in sanitise(f'<{tag} {name}="{escape(address)}">')


def _kept(tokens: list[_Token]) -> Iterator[_Token]:
    for token in tokens:
        if token.kind == "tag" and not token.inside and _spelled(token.name) in TAGS:
            rel = (("rel", ""),) if token.name == "a" else ()
            kept = tuple((name, "") for name, _ in _kept_attributes(token))
            yield _Token("tag", _spelled(token.name), 0, kept + rel)


def _counts(tokens: Iterator[_Token]) -> Counter[str]:
    """How often each tag and each of its attributes is there."""
    found: Counter[str] = Counter()
    for token in tokens:
        found[token.name] += 1
        found.update(f"{token.name} {name}" for name, _ in token.attributes)
    return found


def _pairs(before: str, after: str) -> Iterator[tuple[str, str]]:
    old, new = _lines(before), _lines(after)
    if max(len(old), len(new)) > _MOST_ALIGNED:  # aligning takes the square of their number
        yield from zip_longest(old, new, fillvalue="")
        return
    for _, a, a_end, b, b_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        yield from zip_longest(old[a:a_end], new[b:b_end], fillvalue="")


def _lines(html: str) -> list[str]:
    """Lines as they are; long ones are cut before their tags."""
    found: list[str] = []
    for line in html.splitlines():
        found += [line] if len(line) <= _LONG_LINE else re.split(r"(?=<)(?!^)", line)
    return found
