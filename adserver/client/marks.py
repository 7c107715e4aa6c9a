"""Marks: what a template writes where an ad goes, until the whole page is there and all its ads are asked for at once.

A mark is an HTML comment that names what is asked for and nothing else. So one that nobody fills shows nothing, a
fragment kept in a cache of the site's own is filled on whichever page it lands, by whichever process, and text that was
escaped holds none. For the same reason it carries no secret: who may write comments into a page may place ads there.
Rules: of an article's text, what the service would take for a shortcode is taken here, by the same reading; whatever
cannot be asked for becomes nothing, never text that a reader would see; a mark that a filter has cut (`truncate`) goes,
too, because a comment without an end hides the rest of the page.
"""

import re
from collections.abc import Callable, Sequence
from itertools import islice

from adserver import repair
from adserver.shortcode import Shortcode

Ask = tuple[str, str]
"""A shortcode's name and its id."""

MOST = 100
"""Asks that one call answers; the marks behind these become nothing."""

_BEGINS = "<!--adserver "
_NAMES = ("the_ad", "the_ad_group", "the_ad_placement")


def _beginnings(of: tuple[str, ...], least: int) -> str:
    """An expression for all beginnings of texts, of at least so many characters, the longest first."""
    found = {text[:end] for text in of for end in range(least, len(text) + 1)}
    return "|".join(sorted(map(re.escape, found), key=len, reverse=True))


# A whole mark; what is left of a cut one, by its name; and the first characters of a comment, which are a mark's only
# beside what stands where a text was cut.
_MARK = re.compile(
    rf"<!--adserver ({'|'.join(_NAMES)}) ([\w-]{{1,64}})-->"
    rf"|(?P<cut><!--adserver (?:{'|'.join(_NAMES)}) [\w-]{{0,66}}"
    rf"|{_beginnings(tuple(_BEGINS + name for name in _NAMES), len(_BEGINS) - 1)})"
    rf"|(?P<begun>(?:{_beginnings((_BEGINS[:-2],), 2)})(?=\s?(?:\u2026|\.\.\.|&hellip;))"
    rf"|(?:{_beginnings((_BEGINS[:-2],), 5)})(?=<|\Z))",
    re.ASCII,
)
_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
_SHORTCODE_BY_SIGHT = re.compile(r"\[/?the\\?_ad[^\[\]]*\]?")
_BLANKS = " \t\n\v\f\r"


def mark(name: str, ask: object) -> str:
    """The mark of what *ask* names, a number or text; "" where that can be no id."""
    text = str(ask).strip(_BLANKS) if isinstance(ask, str | int) and not isinstance(ask, bool) else ""
    return f"{_BEGINS}{name} {text}-->" if _ID.fullmatch(text) else ""


def mark_text(text: str, escape: Callable[[str], str] = str) -> str:
    """An article's *text* with a mark for each of its ad shortcodes; *escape* is applied to everything else."""
    article = repair.read(text, len(text))
    return "".join(
        mark(piece.name, piece.attrs.get("id", "")) if isinstance(piece, Shortcode) else escape(piece)
        for piece in article.pieces
    )


def without_shortcodes(text: str) -> str:
    """*text* without anything that looks like an ad shortcode: what is left to do when `mark_text` has failed."""
    return _SHORTCODE_BY_SIGHT.sub("", text)


def has_marks(page: str) -> bool:
    """Whether *page* has marks to be filled, or what is left of cut ones."""
    return _MARK.search(page) is not None


def find_asks(page: str) -> tuple[Ask, ...]:
    """What the marks of *page* ask for, in its order, at most `MOST`."""
    whole = ((found[1], found[2]) for found in _MARK.finditer(page) if found[1])
    return tuple(islice(whole, MOST))


def fill(page: str, answers: Sequence[str]) -> str:
    """*page* with *answers* in the places of its marks; where there are too few of them, with nothing."""
    left = iter(answers)

    def answer(found: re.Match[str]) -> str:
        if found[1]:
            return next(left, "")
        return found[0] if _is_closed(found) else ""

    return _MARK.sub(answer, page)


def _is_closed(found: re.Match[str]) -> bool:
    """Whether it is a comment of the page's own, that ends: before the next tag, or the next comment's beginning."""
    page = found.string
    until = page.find("<" if found["cut"] else "<!--", found.end())
    return page.find("-->", found.start() + 2, len(page) if until < 0 else until) >= 0
