"""Marks: what a template writes where an ad goes, until the whole page is there and all its ads are asked for at once.

A mark is an HTML comment that names what is asked for and nothing else. So one that nobody fills shows nothing, a
fragment kept in a cache of the site's own is filled on whichever page it lands, and text that was escaped holds none.
Rules: of an article's text, what the service would take for a shortcode is taken here, by the same reading; whatever
cannot be asked for becomes nothing, never text that a reader would see.
"""

import re
from collections.abc import Callable, Sequence

from adserver import repair
from adserver.shortcode import Shortcode

Ask = tuple[str, str]
"""A shortcode's name and its id."""

MOST = 100
"""Asks that one call answers; the marks behind these become nothing."""

_BEGINS = "<!--adserver "
_MARK = re.compile(r"<!--adserver (the_ad|the_ad_group|the_ad_placement) ([\w-]{1,64})-->", re.ASCII)
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
    return _BEGINS in page


def find_asks(page: str) -> tuple[Ask, ...]:
    """What the marks of *page* ask for, in its order, at most `MOST`."""
    return tuple((found[1], found[2]) for found, _ in zip(_MARK.finditer(page), range(MOST), strict=False))


def fill(page: str, answers: Sequence[str]) -> str:
    """*page* with *answers* in the places of its marks; where there are too few of them, with nothing."""
    left = iter(answers)
    return _MARK.sub(lambda _: next(left, ""), page)
