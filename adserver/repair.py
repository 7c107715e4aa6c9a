"""The lenient reading of an article: mends what editors, caches and exports do to shortcodes, and counts it.

Rules that hold here:
  1. No word of the article is lost. With every answer empty, a page is its article less the shortcodes.
  2. Comments, CDATA sections and tags are left exactly as they are; any other `<` is just a character.
  3. No shortcode encloses. The text between a pair stays, and what stands in it is answered.
  4. A shortcode that WordPress reads to a clean id is no repair.
  5. Time is linear in the text, and the work after *max_shortcodes* is none.
"""

import re
from html import unescape

from msgspec import Struct

from adserver.shortcode import Part, Shortcode, parse_attributes, split

# A closed list: it labels a metric.
KINDS = (
    "curly-quotes",
    "entities",
    "blank",
    "line-break",
    "backslash",
    "markup",
    "positional-id",
    "unclosed",
    "stray-closing-tag",
    "stray-angle-bracket",
)


class Article(Struct, frozen=True):
    """A page cut at its shortcodes: literal, shortcode, literal, … always beginning and ending with a literal.

    *repairs* says how many shortcodes needed each of `KINDS`; a kind that no one needed is absent.
    """

    pieces: tuple[Part, ...]
    repairs: dict[str, int]

    def shortcodes(self) -> list[Shortcode]:
        return [piece for piece in self.pieces if isinstance(piece, Shortcode)]


class TooManyShortcodes(Exception):
    """The article has more than *limit* ad shortcodes. Reading stopped at *found*; there may be more."""

    def __init__(self, found: int, limit: int) -> None:
        super().__init__(f"the article has at least {found} ad shortcodes, at most {limit} are answered in one call")
        self.found = found
        self.limit = limit


def read_strict(text: str, max_shortcodes: int) -> Article:
    """*text* as WordPress reads it. A shortcode inside a quoted HTML attribute is answered with nothing."""
    draft = _Draft(max_shortcodes)

    def nothing(_: Shortcode) -> str:
        draft.count()
        return ""

    for part in split(text, nothing, max_shortcodes):
        if isinstance(part, str):
            draft.literal(part)
        else:
            draft.add(part)
    return draft.article()


def read(text: str, max_shortcodes: int) -> Article:
    """*text* as its author meant it."""
    if "[the" not in text and "[/the" not in text:
        return Article((text,), {})
    draft = _Draft(max_shortcodes)
    context = _Context(text)
    done = at = 0
    # Behind the last `]` only an unclosed shortcode can follow, and that names its id.
    last = text.rfind("]") + 1
    end = len(text) if text.find("id", last) >= 0 else last
    while found := _SHORTCODE.search(text, at, end):
        closes = found["suffix"] is None
        start, stop = found.start() - 1 - closes, found.end()
        at = context.after_markup(start)
        if at:
            continue
        raw = context.is_raw_in_wordpress(start)
        if start > done and text[start - 1] == "[" and text.startswith("]", stop):
            draft.literal(text[done : start - 1] + text[start:stop])
            stop += 1
        else:
            cut = _before_backslashes(text, done, start)
            draft.literal(text[done:cut])
            if closes:
                draft.drop_closing_tags(text.count("[/the", start, stop))
            else:
                stop = _add_opening(draft, found, escaped=cut < start, raw=raw)
        done = at = context.outside = stop
    draft.literal(text[done:])
    return draft.article()


class _Draft:
    """An article in the making."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found = 0
        self.literals: list[str] = []  # since the last shortcode
        self.pieces: list[Part] = []
        self.repairs: dict[str, int] = {}

    def literal(self, text: str) -> None:
        if text:
            self.literals.append(text)

    def count(self) -> None:
        self.found += 1
        if self.found > self.limit:
            raise TooManyShortcodes(self.found, self.limit)

    def add(self, code: Shortcode) -> None:
        self.count()
        for key, value in code.attrs.items():
            if not value.isascii():  # a C escape can spell a byte that is not UTF-8, which nothing could send or log
                code.attrs[key] = value.encode("utf-8", "replace").decode()
        self.pieces += "".join(self.literals), code
        self.literals.clear()

    def note(self, kind: str, times: int = 1) -> None:
        self.repairs[kind] = self.repairs.get(kind, 0) + times

    def drop_closing_tags(self, number: int) -> None:
        """Note *number* closing tags as stray, save one that directly follows its shortcode."""
        stray = number - (bool(self.pieces) and not self.literals)
        if stray:
            self.note("stray-closing-tag", stray)

    def article(self) -> Article:
        return Article((*self.pieces, "".join(self.literals)), self.repairs)


# ---------------------------------------------------------------------------------------------------------------
# Where shortcodes are.

# The pattern begins with three letters, not `[`, because a long literal prefix is what makes the search fast. The
# last two forms are for a shortcode whose `]` is lost or stands behind another `[`: the first of them takes no more
# than well-formed attributes, so that the words behind stay, and the second is what WordPress would take.
_OPEN_ENDED = r"""
    \s++ id \s*+=\s*+ (?:"[\w-]++"|'[\w-]++'|[0-9]++(?![\w-]))
    (?: \s++ [\w-]++ = (?:"[^"<\[\]]*+"|'[^'<\[\]]*+') )*+
"""
_NAME = r"\\?_ad(?:\\?_(?:group|placement))?+(?![\w-])"
_SHORTCODE = re.compile(
    rf"""
    the (?:
        (?<=\[the) (?P<suffix>{_NAME}) (?:
            (?P<closed>[^\[\]]*+) \]
          | (?P<open>{_OPEN_ENDED})
          | (?P<nested>(?:[^\[\]]*+\[(?!/?the\\?_ad)){{1,4}}+[^\[\]]*+) \]
        )
      | (?<=\[/the) {_NAME} \s*+ \\?\] (?:\[/the {_NAME} \s*+ \\?\])*+
    )
    """,
    re.VERBOSE | re.ASCII,
)
_WELL_FORMED_START = re.compile(_OPEN_ENDED, re.VERBOSE | re.ASCII)

_SECTION = r"<!--(?:[^>]*+(?<=--)>|.*?-->)|<!\[CDATA\[.*?\]\]>"
# A tag reaches no further than the next thing that could begin one, so no two attempts read the same text. It may
# hold a `>` in quotes, which WordPress would end it at.
_BEGINS_TAG = "<[a-zA-Z/!?]"
_TAG = rf"""
    < (?:
        /?[a-zA-Z][\w:.-]*+ (?=[\s/>])
        (?: [^<>"'=]++ | =\s*+ (?:"(?:[^"<]++|(?!{_BEGINS_TAG})<)*+"|'(?:[^'<]++|(?!{_BEGINS_TAG})<)*+') | ["'=] )*+ >
      | [!?] (?!--|\[CDATA\[) [^<>]*+ >
    )
"""
_FLAGS = re.VERBOSE | re.DOTALL | re.ASCII
_ONE_TAG = re.compile(_TAG, _FLAGS)
_LAST_TAG_START = re.compile(rf".*{_BEGINS_TAG}", _FLAGS)
_TO_OPEN_SECTION = re.compile(rf"(?: [^<]++ | {_SECTION} | {_TAG} | <(?!!--|!\[CDATA\[)[^<]*+ )*+", _FLAGS)
_TO_SHORTCODE = re.compile(
    rf"(?: [^<\[]++ | \[(?!/?the) | {_SECTION} | {_TAG} | <(?!!--|!\[CDATA\[)[^<\[]*+ )*+", _FLAGS
)


class _Context:
    """Answers what a place in the text is part of. Asked from left to right, it reads nothing twice."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.outside = 0  # a place known to be plain text, behind which nothing is asked again
        self._has_tags = "<" in text
        self._has_sections = "<!--" in text or "<![CDATA[" in text
        self._angle = -1  # of the `<…` that is open there for WordPress, which knows no stray one
        self._asked = 0

    def after_markup(self, at: int) -> int:
        """Where to go on when *at* is inside a comment, a CDATA section or a tag; 0 when it is plain text."""
        end = self._markup_end(at) if self._has_tags else 0
        if end and (plain := _TO_SHORTCODE.match(self.text, end)):
            self.outside = end = plain.end()
        return end

    def _markup_end(self, at: int) -> int:
        text, start = self.text, self.outside
        if self._has_sections:
            read = _TO_OPEN_SECTION.match(text, start, at)
            if read and read.end() < at:
                return self._section_end(read.end())
            start = max(start, text.rfind("-->", start, at) + 3)
        tag = _LAST_TAG_START.match(text, start, at)
        tag = tag and _ONE_TAG.match(text, tag.end() - 2)
        return tag.end() if tag and tag.end() > at else 0

    def _section_end(self, start: int) -> int:
        closing, minimum = ("]]>", 9) if self.text.startswith("[", start + 2) else ("-->", 2)
        end = self.text.find(closing, start + minimum)
        return end + 3 if end >= 0 else len(self.text)

    def is_raw_in_wordpress(self, at: int) -> bool:
        """Whether a `<` that begins no tag keeps WordPress from running what stands at *at*."""
        if not self._has_tags:
            return False
        text = self.text
        closed = text.rfind(">", self._asked, at)
        if closed >= 0 or self._angle < 0:
            self._angle = text.find("<", max(closed, self._asked), at)
        self._asked = at
        return self._angle >= 0 and text[self._angle + 1 : at].strip() not in ("", "[")


def _before_backslashes(text: str, done: int, start: int) -> int:
    for _ in range(2):  # an export may have escaped twice; more is no escape
        if start > done and text[start - 1] == "\\":
            start -= 1
    return start


def _add_opening(draft: _Draft, found: re.Match[str], *, escaped: bool, raw: bool) -> int:
    """Add the shortcode *found* to *draft* and return where the text goes on."""
    name = "the" + found["suffix"].replace("\\", "")
    kinds = set()
    if escaped or "\\" in found["suffix"]:
        kinds.add("backslash")
    if raw:
        kinds.add("stray-angle-bracket")
    stop = found.end()
    inside = found["closed"] or found["open"] or found["nested"] or ""
    attrs, markup = _attributes(name, inside, kinds)
    if found["open"]:
        kinds.add("unclosed")
    elif len(inside) > _LONGEST or len(attrs) > _MOST_WORDS < sum(isinstance(key, int) for key in attrs):
        start = _WELL_FORMED_START.match(inside)
        if start and inside[start.end() :].strip(" \t\r\n/"):
            attrs, markup = _attributes(name, start[0], set())
            kinds.add("unclosed")
            stop = found.end("suffix") + start.end()
    draft.add(Shortcode(name, attrs, ""))
    for kind in kinds:
        draft.note(kind)
    draft.literal(markup)
    return stop


# ---------------------------------------------------------------------------------------------------------------
# What they say.

_LONGEST = 1_000  # characters of attributes that are read; longer is an unclosed shortcode with an article in it,
_MOST_WORDS = 8  # as are more positional values than these

_QUOTES = "\"'`´“”„‟″‘’‚‛′‵‶«»‹›＂＇"
_BLANKS = "\u00a0\u00ad\u1680\u180e\u205f\u3000\ufeff" + "".join(
    map(chr, [*range(0x2000, 0x2010), *range(0x2028, 0x2030), *range(0x2060, 0x2065)])
)
_ODD = re.compile(rf"[\\&<{_QUOTES[2:]}{_BLANKS}]")
_MARK = re.compile(
    rf"""
    (?P<kept> = \s*+ (?:"[^"]*+"|'[^']*+') (?=[\s/]|\Z) )
  | (?P<curly>[{_QUOTES[2:]}])
  | (?P<blank>[{_BLANKS}]++)
  | & (?:amp;)? (?P<entity>\#?[0-9a-zA-Z]{{1,24}}+;)
  | (?P<line> <br\s*+/?> | </p>\s*+(?:<p(?:\s[^<>]*+)?>)? )
  | (?P<tag> </?[a-zA-Z][^<>]*+> )
  | (?P<backslash> \\++(?=[^\w\s]|\Z) )
    """,
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
_KINDS_OF_MARK = {
    "curly": "curly-quotes",
    "blank": "blank",
    "line": "line-break",
    "tag": "markup",
    "backslash": "backslash",
}
_USUAL = re.compile(r'\s++id="([\w-]{1,64})"\s*+/?', re.ASCII)
_GLUED = re.compile(r"""(=\s*+(?:"[^"]*+"|'[^']*+'))[,;]*+(?=[^\s/])""")
_POSITIONAL = {
    "number": re.compile(r"""["'=:>#,;＝]*+(?:id["'=:>#,;＝]++)?+([0-9]{1,10})(?!\w)""", re.IGNORECASE),
    "slug": re.compile(r"""["'=:>#,;＝]*+(?:id["'=:>#,;＝]++)?+(?!id\Z)([\w-]++)""", re.ASCII | re.IGNORECASE),
}
_AROUND_ID = (("blank", " \t\v\f" + _BLANKS), ("backslash", "\\"), ("curly-quotes", _QUOTES), ("blank", " " + _BLANKS))
_LINE_BREAK = re.compile(r"[ \t]*+[\r\n]\s*+|<br\s*+/?>", re.ASCII | re.IGNORECASE)


def _attributes(name: str, raw: str, kinds: set[str]) -> tuple[dict[int | str, str], str]:
    """The attributes of *raw*, mended, and the tags that stood between them; what it took is added to *kinds*."""
    if usual := _USUAL.fullmatch(raw):
        return {"id": usual[1]}, ""
    text = raw[:_LONGEST].removesuffix("/")
    tags: list[str] = []
    if _ODD.search(text):
        text = _mend(text, kinds, tags)
    attrs = parse_attributes(text)
    if "id" not in attrs:
        attrs = _with_lost_id(name, text, attrs, kinds)
    ad = attrs.get("id")
    if ad is not None and not ad.isalnum():
        attrs["id"] = _clean_id(ad, kinds)
    return attrs, "".join(tags)


def _mend(raw: str, kinds: set[str], tags: list[str]) -> str:
    """*raw* with straight quotes and plain blanks, save where a value in straight quotes holds another."""

    def mended(mark: re.Match[str]) -> str:
        what = mark.lastgroup or "kept"
        if what == "kept":
            return mark[0]
        if what == "entity":
            character = unescape(f"&{mark['entity']}")
            if character not in _QUOTES and character not in _BLANKS:
                return mark[0]
            kinds.add("entities" if character in _QUOTES else "blank")
            return '"' if character in _QUOTES else " "
        kinds.add(_KINDS_OF_MARK[what])
        if what == "tag":
            tags.append(mark[0])
        return {"curly": '"', "backslash": ""}.get(what, " ")

    return _MARK.sub(mended, raw)


def _with_lost_id(name: str, text: str, attrs: dict[int | str, str], kinds: set[str]) -> dict[int | str, str]:
    """*attrs* with the id that WordPress took for a positional value, if there is one."""
    apart = parse_attributes(_GLUED.sub(r"\1 ", text))
    if "id" in apart:
        kinds.add("positional-id")
        return apart
    pattern = _POSITIONAL["number" if name == "the_ad" else "slug"]
    for key, value in attrs.items():
        if isinstance(key, int) and (found := pattern.match(value)):
            kinds.add("positional-id")
            return {"id": found[1]} | {other: attrs[other] for other in attrs if other != key}
    return attrs


def _clean_id(value: str, kinds: set[str]) -> str:
    joined = _LINE_BREAK.sub("", value)
    if joined != value:
        kinds.add("line-break")
    decoded = unescape(joined) if "&" in joined else joined
    if decoded != joined:
        kinds.add("entities")
    for kind, characters in _AROUND_ID:
        bare = decoded.strip(characters)
        if bare != decoded:
            kinds.add(kind)
            decoded = bare
    return decoded
