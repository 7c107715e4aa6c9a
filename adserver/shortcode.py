"""Finds a page's ad shortcodes the way WordPress 6.1 does, and puts answers in their place.

Rules that hold here:
  1. What WordPress leaves alone is left alone byte for byte, and what it makes of odd input is made here too.
     The one exception: where WordPress runs out of stack and empties the article, this module goes on.
  2. Time is linear in the text, whatever the text. No pattern nests a quantifier it can re-enter, every loop is
     possessive, and nothing searches ahead twice for the same bracket or closing tag.
  3. Character classes are ASCII. A byte that is not UTF-8 stands in a string as its surrogate escape.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache
from html.entities import name2codepoint

from msgspec import Struct

NAMES = ("the_ad", "the_ad_group", "the_ad_placement")


class Shortcode(Struct, frozen=True):
    """One `[name attrs]`. A positional value stands under its number; *content* is "" when nothing is enclosed."""

    name: str
    attrs: dict[int | str, str]
    content: str


Part = str | Shortcode
Answer = Callable[[Shortcode], str]


def replace(text: str, answer: Answer) -> str:
    """*text* as WordPress would show it if *answer* were the handler of the ad shortcodes."""
    names = _live_names(text)
    if not names:
        return text
    masked = "".join(part if isinstance(part, str) else _mask(answer(part)) for part in _mask_tags(text, names, answer))
    shown = []
    done = 0
    for start, stop, code in _edits(masked, names):
        shown.append(masked[done:start])
        if code is not None:
            shown.append(answer(code))
        done = stop
    shown.append(masked[done:])
    return _unmask("".join(shown))


def split(text: str, in_attribute: Answer, limit: int) -> Iterator[Part]:
    """Yield what `replace` would show as literal strings and shortcodes, in page order.

    A shortcode whose answer WordPress would sanitise, because it stands inside a quoted HTML attribute, is not
    yielded; *in_attribute* answers it at once. An answer put in later is not unmasked, as `replace` would do.
    A caller that refuses a text of more than *limit* shortcodes gets one more than that, and then perhaps no more.
    """
    names = _live_names(text)
    if not names:
        yield text
        return
    literals: list[str] = []
    length = 0
    bare: list[tuple[int, int, Shortcode | None]] = []
    for part in _mask_tags(text, names, in_attribute):
        if isinstance(part, str):
            literals.append(part)
            length += len(part)
        else:
            bare.append((length, length, part))
            if len(bare) > limit:
                break
    masked = "".join(literals)
    # Of two edits at one place the empty one, in a tag that ends there, comes first.
    edits = sorted([*bare, *_edits(masked, names)], key=lambda edit: edit[:2]) if bare else _edits(masked, names)
    done = 0
    for start, stop, code in edits:
        if start < done:  # inside what an earlier shortcode swallowed
            continue
        yield _unmask(masked[done:start])
        if code is not None:
            yield code
        done = stop
    yield _unmask(masked[done:])


# ---------------------------------------------------------------------------------------------------------------
# Which names take part. A name does once `[name` is followed by one of these somewhere in the text, and then also
# where it is not: `[the_ad"1"]` is dead on its own and runs beside a clean `[the_ad]`.

_LIVE = {name: re.compile(rf"\[{name}(?=[<>&/\[\]=\x00-\x20]|\Z)") for name in NAMES}


def _live_names(text: str) -> tuple[str, ...]:
    if "[the_ad" not in text:
        return ()
    return tuple(name for name, pattern in _LIVE.items() if pattern.search(text))


# ---------------------------------------------------------------------------------------------------------------
# The match.


@cache
def _opening(names: tuple[str, ...]) -> re.Pattern[str]:
    # Begins with letters, not `[`, because a long literal prefix is what makes the search fast: 2 MiB of `[` take
    # 2 ms instead of 60.
    rest = "|".join(name.removeprefix("the_ad") for name in names)
    return re.compile(rf"the_ad(?<=\[the_ad)((?:{rest}))(?![\w-])([^\]]*+)\]", re.ASCII)


def _edits(text: str, names: tuple[str, ...]) -> Iterator[tuple[int, int, Shortcode | None]]:
    """Yield the spans to replace, left to right: by the answer to a shortcode, or by nothing."""
    search = _opening(names).search
    last = text.rfind("]") + 1  # up to here every opening finds its `]`, so no search is in vain
    closing_at = dict.fromkeys(names, 0)
    done = 0
    while found := search(text, done, last):
        suffix, attributes = found.groups()
        start, stop = found.start() - 1, found.end()
        name, content = "the_ad" + suffix, ""
        if attributes.endswith("/"):
            attributes = attributes[:-1]
        else:
            closing = f"[/{name}]"
            if 0 <= closing_at[name] < stop:
                closing_at[name] = text.find(closing, stop)
            if closing_at[name] >= 0:
                content = text[stop : closing_at[name]]
                stop = closing_at[name] + len(closing)
        if done < start and text[start - 1] == "[" and text.startswith("]", stop):
            yield start - 1, start, None
            yield stop, stop + 1, None
            stop += 1
        else:
            yield start, stop, Shortcode(name, parse_attributes(attributes), content)
        done = stop


# ---------------------------------------------------------------------------------------------------------------
# Attributes.

_BLANKS = re.compile("[\u00a0\u200b]+")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_PLAIN = re.compile(r'(?:\s*+[a-z_][a-z0-9_-]*+="[^"\\<]*+"(?!\S))++\s*+', re.ASCII)
_PLAIN_ATTRIBUTE = re.compile(r'([a-z_][a-z0-9_-]*+)="([^"]*+)"')
_ATTRIBUTE = re.compile(
    r"""([\w-]++)\s*+=\s*+("[^"]*+"|'[^']*+'|[^\s"']++)(?!\S)|("[^"]*+"|'[^']*+')(?!\S)|(\S++)""", re.ASCII
)
_ARRAY_INDEX = re.compile(r"0|-?[1-9][0-9]{0,18}")
_C_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|([\s\S]))")
_C_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def parse_attributes(text: str) -> dict[int | str, str]:
    """Read what stands between a shortcode's name and its closing bracket."""
    if not text.isascii():
        if _NOT_UTF8.search(text):
            return {}
        text = _BLANKS.sub(" ", text)
    if _PLAIN.fullmatch(text):  # nearly every shortcode there is, in half the time
        return dict(_PLAIN_ATTRIBUTE.findall(text))
    attrs: dict[int | str, str] = {}
    index = 0
    for name, value, quoted, bare in _ATTRIBUTE.findall(text):
        key: int | str
        if name:
            if name == "0":
                continue
            key = _key(name.lower())
            if isinstance(key, int):
                index = max(index, key + 1)
            value = value[1:-1] if value[0] in "\"'" else value
        else:
            value = bare or quoted[1:-1]
            if not value:
                continue
            key, index = index, index + 1
        if "\\" in value:
            value = _c_unescape(value)
        if "<" in value and value.rfind(">") < value.rfind("<"):
            value = ""
        attrs[key] = value
    return attrs


def _key(name: str) -> int | str:
    """PHP's array key: a name that reads as a 64-bit integer is one."""
    if _ARRAY_INDEX.fullmatch(name) and -(2**63) <= int(name) < 2**63:
        return int(name)
    return name


def _c_unescape(value: str) -> str:
    raw = _C_ESCAPE.sub(_c_character, value)
    # Bytes above 127 may spell a character together, so they are joined before they are read as UTF-8.
    return raw if raw.isascii() else raw.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def _c_character(escape: re.Match[str]) -> str:
    hexadecimal, octal, character = escape.groups()
    if character is not None:
        return _C_LETTERS.get(character, character)
    byte = int(hexadecimal, 16) if hexadecimal else int(octal, 8) & 0xFF
    return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)


# ---------------------------------------------------------------------------------------------------------------
# Inside HTML tags. A bracket to be left alone is masked as an entity until the end; an entity that was there
# before is first given another spelling, and keeps it.


def _mask(text: str) -> str:
    return text.replace("[", "&#91;").replace("]", "&#93;")


def _unmask(text: str) -> str:
    return text.replace("&#91;", "[").replace("&#93;", "]") if "&#9" in text else text


_TOKEN = re.compile(
    r"""
    # Tags and comments without brackets: one match for a run of them.
    (?: < (?: !--[^>\[\]]*+(?<=--) | (?!!--|!\[CDATA\[)[^>\[\]]*+ ) > [^<]*+ )++
    # Tags in which nothing can run: likewise. A tag of more brackets is quicker read by str methods than by a loop.
    | (?P<inert> (?: <
        (?: !-- (?: -?> | .*?--> | .*+ )
        |   !\[CDATA\[ (?: .*?\]\]> | .*+ )
        |   (?![ \t\n\v\f\r]*+[a-zA-Z0-9\[]) [^>]*+ (?:>|\Z)
        |   (?:[^>\[]*+\[(?!the_ad)){0,50}+ [^>\[]*+ (?:>|\Z)
        ) [^<\[\]]*+ )++ )
    | (?P<tag> < [^>]*+ >? )
    """,
    re.VERBOSE | re.DOTALL,
)
_TAG_HEAD = re.compile(r"<\s*+([a-zA-Z0-9]++)\s*+", re.ASCII)
_TAG_ATTRIBUTE = re.compile(
    r"""(?:[_a-zA-Z][-\w:.]*+|\[\[?[^\[\]]++\]\]?)"""
    r"""(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s"']++(?:\s|\Z))|(?:\s|\Z))\s*+""",
    re.ASCII,
)
_TAG_ATTRIBUTES = re.compile(rf"(?:{_TAG_ATTRIBUTE.pattern})*+", re.ASCII)
_BARE_IN_TAG = re.compile(r"<\s*+\[\[?[^\[\]]++\]", re.ASCII)
_QUOTED = re.compile(r"""[^\["']*+["']""")


def _mask_tags(text: str, names: tuple[str, ...], in_attribute: Answer) -> Iterator[Part]:
    """Yield *text* with the brackets in its tags masked, and the shortcodes that stand in a tag outside quotes."""
    text = text.replace("&#91;", "&#091;").replace("&#93;", "&#093;")
    done = 0
    if "<" in text:
        for token in _TOKEN.finditer(text):
            if token.lastgroup is None:
                continue
            yield text[done : token.start()]
            if token["inert"] or "]" not in token[0] or "[the_ad" not in token[0]:
                yield _mask(token[0])
            else:
                yield from _run_in_tag(token[0], names, in_attribute)
            done = token.end()
    yield text[done:]


def _run_in_tag(token: str, names: tuple[str, ...], in_attribute: Answer) -> Iterator[Part]:
    tag = _split_tag(token)
    if tag is None:
        if _BARE_IN_TAG.match(token):  # such as `name <[email]>`
            yield from _run_bare(token, names)
        else:
            yield _mask(token)
        return
    front, element, attributes, back = tag
    yield front
    for found in _TAG_ATTRIBUTE.finditer(attributes):
        attribute = found[0]
        if "[the_ad" not in attribute or "]" not in attribute:
            yield _mask(attribute)
        elif _QUOTED.match(attribute):
            yield _mask(_run_quoted(attribute, element, names, in_attribute))
        else:
            yield from _run_bare(attribute, names)
    yield back


def _split_tag(token: str) -> tuple[str, str, str, str] | None:
    """Cut a well-formed opening tag into front, element, attributes and back."""
    head = _TAG_HEAD.match(token)
    if head is None:
        return None
    end = len(token) - token.endswith(">")
    attributes = token[head.end() : end]
    trimmed = attributes.rstrip(_SPACE)
    if trimmed.endswith("/"):
        attributes = trimmed[:-1].rstrip(_SPACE)
    if not _TAG_ATTRIBUTES.fullmatch(attributes):
        return None
    return head[0], head[1], attributes, token[head.end() + len(attributes) :]


def _run_bare(text: str, names: tuple[str, ...]) -> Iterator[Part]:
    done = 0
    for start, stop, code in _edits(text, names):
        yield _mask(text[done:start])
        if code is not None:
            yield code
        done = stop
    yield _mask(text[done:])


def _run_quoted(attribute: str, element: str, names: tuple[str, ...], answer: Answer) -> str:
    ran = []
    done = 0
    for start, stop, code in _edits(attribute, names):
        ran.append(attribute[done:start])
        if code is not None:
            ran.append(answer(code))
        done = stop
    if not done:
        return attribute
    clean = _sanitise("".join(ran) + attribute[done:], element)
    return clean if clean.strip(_SPACE + "\0") else attribute


# ---------------------------------------------------------------------------------------------------------------
# The sanitiser of one HTML attribute, with the allow-list for posts: facts about WordPress 6.1 in our own words.


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EVERYWHERE = _words(
    """
    aria-controls aria-current aria-describedby aria-details aria-expanded aria-hidden aria-label aria-labelledby
    aria-live class dir hidden id lang role style title xml:lang
    """
)
_CELLS = "abbr align axis bgcolor char charoff colspan headers height nowrap rowspan scope valign width"
_ROWS = "align char charoff valign"
_ELEMENTS: dict[str, frozenset[str]] = {
    element: _words(attributes)
    for elements, attributes in {
        "address abbr acronym b bdo big br cite code dd dfn dl dt em fieldset i kbd mark rb rp rt rtc ruby s samp "
        "small strike strong sub sup title tt u var": "",
        "article aside caption details div figure figcaption footer h1 h2 h3 h4 h5 h6 header hgroup legend main nav p "
        "section span summary": "align",
        "a": "href name rel rev target",
        "area": "alt coords href nohref shape target",
        "audio": "autoplay controls loop muted preload src",
        "blockquote q": "cite",
        "button": "disabled name type value",
        "col colgroup": f"{_ROWS} span width",
        "del ins": "cite datetime",
        "details": "align open",
        "font": "color face size",
        "hr": "align noshade size width",
        "img": "align alt border height hspace loading longdesc src usemap vspace width",
        "label": "for",
        "li": "align value",
        "map": "name",
        "menu ul": "type",
        "object": "",
        "ol": "reversed start type",
        "pre": "width",
        "table": "align bgcolor border cellpadding cellspacing rules summary width",
        "tbody tfoot thead": _ROWS,
        "td th": _CELLS,
        "textarea": "cols disabled name readonly rows",
        "tr": f"{_ROWS} bgcolor",
        "track": "default kind label src srclang",
        "video": "autoplay controls height loop muted playsinline poster preload src width",
    }.items()
    for element in elements.split()
}
_DATA = re.compile(r"data(?:-[a-z0-9_]++)++")
_URIS = _words(
    """
    action archive background cite classid codebase data formaction href icon longdesc manifest poster profile src
    usemap xmlns
    """
)
_PROTOCOLS = _words(
    """
    http https ftp ftps mailto news irc irc6 ircs gopher nntp feed telnet mms rtsp sms svn tel fax xmpp webcal urn
    """
)
_STYLES = re.compile(
    r"(?:background|border|columns?|flex|font|grid|justify|letter|line|list-style|margin|min|max|padding|text)"
    r"(?:-[a-z]+)*|align-(?:content|items|self)|caption-side|clear|color|cursor|direction|display|filter|float|gap"
    r"|height|object-position|order|overflow|row-gap|vertical-align|width|word-spacing|writing-mode|z-index"
)
_SPACE = " \t\n\v\f\r"
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]++")
_EQUALS = re.compile(r"\s*+=\s*+", re.ASCII)
_AMPERSAND = re.compile(r"&(?:([A-Za-z]{2,8}[0-9]{0,2})|#(0*+[0-9]{0,7})|#[Xx](0*+[0-9A-Fa-f]{0,6}));|&")
_COLON = re.compile(r":|&#0*+58(?:;|(?![0-9]))|&#x0*+3a(?:;|(?![0-9a-f]))|&colon;", re.IGNORECASE)
_NUMERIC_ENTITY = re.compile(r"&#(?:([0-9]{1,7})|[Xx]([0-9A-Fa-f]{1,6}));")


def _sanitise(attribute: str, element: str) -> str:
    """*attribute* (`name="value"`) made safe for *element*, or "" where it may not stand."""
    attribute = _CONTROLS.sub("", attribute)
    trimmed = attribute.lstrip(_SPACE)
    lead, trimmed = attribute[: len(attribute) - len(trimmed)], trimmed.rstrip(_SPACE)
    trail = attribute[len(lead) + len(trimmed) :]
    name, value = _EQUALS.split(trimmed, 1)  # it has both: only a quoted value is ever sanitised
    quote = value[:1]
    if quote not in ('"', "'") or len(value) < 2 or not value.endswith(quote):
        return ""
    value = _escape(value[1:-1])
    key = name.lower()
    if key in _URIS:
        value = _without_bad_protocol(value)
    allowed = _ELEMENTS.get(element.lower())
    if allowed is None or not (key in allowed or key in _EVERYWHERE or _DATA.fullmatch(key)):
        return ""
    if key == "style":
        value = _safe_style(value)
        if not value:
            return ""
    return f"{lead}{name}={quote}{value}{quote}{trail}"


def _escape(value: str) -> str:
    if _NOT_UTF8.search(value):
        return ""
    value = _AMPERSAND.sub(_entity, value)
    return value.replace('"', "&quot;").replace("'", "&#039;").replace("<", "&lt;").replace(">", "&gt;")


def _entity(found: re.Match[str]) -> str:
    """A well-formed entity in WordPress's spelling; anything else has its ampersand escaped."""
    name, decimal, hexadecimal = found.groups()
    if name in name2codepoint:
        return found[0]
    digits = (decimal or hexadecimal or "").lstrip("0")
    if digits and _is_character(int(digits, 10 if decimal else 16)):
        return f"&#{digits.zfill(3)};" if decimal else f"&#x{digits};"
    return "&amp;" + found[0][1:]


def _is_character(code: int) -> bool:
    return code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF


def _without_bad_protocol(value: str) -> str:
    for _ in range(6):
        before, colon, after = _cut_at_colon(value)
        if not colon or "/?" in before:
            return value
        protocol = _NUMERIC_ENTITY.sub(_decoded, before)
        protocol = _CONTROLS.sub("", "".join(protocol.split())).lower()
        cleaned = after.strip(_SPACE + "\0")
        if protocol in _PROTOCOLS:
            cleaned = f"{protocol}:{cleaned}"
        if cleaned == value:
            return value
        value = cleaned
    return ""


def _cut_at_colon(value: str) -> tuple[str, bool, str]:
    colon = _COLON.search(value)
    return (value[: colon.start()], True, value[colon.end() :]) if colon else (value, False, "")


def _decoded(entity: re.Match[str]) -> str:
    return chr((int(entity[1]) if entity[1] else int(entity[2], 16)) & 0xFF)


def _safe_style(value: str) -> str:
    """The declarations of *value* that name a harmless property and hold nothing that could call or break out."""
    declarations = [part.strip(_SPACE) for part in re.sub(r"[\n\r\t]", "", value).split(";")]
    return ";".join(part for part in declarations if part and _is_harmless(part))


def _is_harmless(declaration: str) -> bool:
    name, colon, _ = declaration.partition(":")
    if colon and not _STYLES.fullmatch(name.strip(_SPACE)):
        return False
    return not re.search(r"[\\(&=}]|/\*", declaration)
