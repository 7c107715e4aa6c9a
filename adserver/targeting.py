"""Which pages a booking is for: what is known of a page, and what line items ask of it.

What is known of a page is a set of facts (`section=business`, `lang=de`) and its address. What is not known never
satisfies anybody who asks for it, and never offends anybody who avoids it. Words are compared without regard to case.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from unicodedata import normalize
from urllib.parse import urlsplit, urlunsplit

from msgspec import Struct

from adserver.model import DEVICES, Targeting, Terms

KINDS = ("section", "tag", "url", "lang", "country", "device")
PREFERRED = 3.0
"""A line item that prefers a page has so many times its weight there."""


class Context(Struct, frozen=True, cache_hash=True):
    """What is known of a page view. *facts* are `kind=value`, lowercase; *path* and *address* are its URL's, without
    what may name a reader: its query and fragment.
    """

    facts: frozenset[str] = frozenset()
    path: str = ""
    address: str = ""


UNKNOWN = Context()
NO_CONSENT = "consent=0"
"""Of a page whose reader has not consented to third parties."""
NO_READER = "reader=0"
"""Of a sampled page that named no reader, or one who may not be told apart: nothing with a frequency cap shows there.
Serving decides by what is known of the reader instead, see `Page.held`.
"""


def withhold(context: Context) -> Context:
    """*context* with the fact that its reader has not consented to third parties."""
    return Context(context.facts | {NO_CONSENT}, context.path, context.address)


def withheld(context: Context) -> bool:
    """Whether third-party markup must stay away. A page of which nothing is said is decided as with consent: that is
    what forecasts and older receipts are about; serving says of each page which it is.
    """
    return NO_CONSENT in context.facts


def know(
    *,
    section: str = "",
    tags: Iterable[str] = (),
    url: str = "",
    lang: str = "",
    country: str = "",
    device: str = "",
    keys: Mapping[str, Iterable[str]] | None = None,
) -> Context:
    """The context of a page; what is empty, or no device there is, stays unknown.

    The site's own words are made NFC, as those of the catalog are: some machines write an accent as a character apart.
    """
    facts = [f"section={normalize('NFC', section)}"] if section else []
    facts += [f"tag={normalize('NFC', tag)}" for tag in tags if tag]
    if lang:  # de-AT is German, too
        parts = lang.replace("_", "-").split("-")
        facts += [f"lang={'-'.join(parts[:n])}" for n in range(1, len(parts) + 1)]
    if country:
        facts.append(f"country={country}")
    if device.lower() in DEVICES:
        facts.append(f"device={device}")
    own = ((name, value) for name, values in (keys or {}).items() for value in values)
    facts += [f"key.{name}={normalize('NFC', value)}" for name, value in own]
    if not facts and not url:
        return UNKNOWN
    try:
        split = urlsplit(url)
        path, address = split.path, urlunsplit((*split[:3], "", ""))
    except ValueError:
        path = address = ""
    return Context(frozenset(map(str.lower, facts)), path.lower(), address.lower())


def _implied(fact: str) -> set[str]:
    """What a page that is *fact* is as well: German where it is Austrian German."""
    kind, _, value = fact.partition("=")
    parts = value.split("-") if kind == "lang" else [value]
    return {f"{kind}={'-'.join(parts[:n])}" for n in range(1, len(parts) + 1)}


def _exclude(one: str, other: str) -> bool:
    """Whether no page is both."""
    kind, _, value = one.partition("=")
    also, _, wanted = other.partition("=")
    if kind != also or kind not in _SINGLE:
        return False
    if kind == "url":  # a path and a whole address may be of one page
        return value.startswith("/") == wanted.startswith("/") and not _begin_alike(value, wanted)
    return not _begin_alike(f"{value}-", f"{wanted}-") if kind == "lang" else value != wanted


def _begin_alike(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


_SINGLE = ("section", "url", "lang", "country", "device")
"""What a page has one of."""
_FEW = 5


def why_never(targeting: Targeting) -> str | None:
    """Why no page can be what it asks for, as the rest of a sentence about it; None when one can."""
    any_, all_, none = (_ready(terms) for terms in (targeting.any, targeting.all, targeting.none))
    wanted = all_.everything()
    single = [one for one in wanted if one.partition("=")[0] in _SINGLE]
    if both := next(((one, other) for one, other in combinations(single, 2) if _exclude(one, other)), None):
        return f"'all' asks for {_listed(list(both), 'and')}, and no page is both"
    if avoided := next((one for one in wanted if none.covers(one)), None):
        return f"'all' asks for {_listed([avoided], 'and')}, which 'none' avoids"
    choices = any_.everything()
    if choices and all(none.covers(one) or any(_exclude(one, other) for other in single) for one in choices):
        what = "'none'" if all(map(none.covers, choices)) else "'all' or 'none'"
        more = f" and {len(choices) - _FEW} more" if len(choices) > _FEW else ""
        return f"'any' asks for {_listed(choices[:_FEW], 'or')}{more}, all of which {what} rules out"
    return None


class _Asked(Struct, frozen=True):
    """Terms made ready: facts, beginnings of paths, beginnings of whole addresses."""

    facts: frozenset[str]
    paths: tuple[str, ...]
    addresses: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.facts or self.paths or self.addresses)

    def any_of(self, context: Context) -> bool:
        if not self.facts.isdisjoint(context.facts):
            return True
        return bool(
            (self.paths and context.path.startswith(self.paths))
            or (self.addresses and context.address.startswith(self.addresses))
        )

    def missing(self, context: Context) -> list[str]:
        """What of it the page is not."""
        missing = sorted(self.facts - context.facts)
        missing += [f"url={one}" for one in self.paths if not context.path.startswith(one)]
        missing += [f"url={one}" for one in self.addresses if not context.address.startswith(one)]
        return missing

    def found(self, context: Context) -> list[str]:
        """What of it the page is."""
        everything = sorted(self.facts) + [f"url={one}" for one in (*self.paths, *self.addresses)]
        missing = set(self.missing(context))
        return [one for one in everything if one not in missing]

    def everything(self) -> list[str]:
        return self.missing(UNKNOWN)

    def covers(self, fact: str) -> bool:
        """Whether each page that is *fact* is some of it."""
        if fact.startswith("url="):
            value = fact.removeprefix("url=")
            return value.startswith(self.paths if value.startswith("/") else self.addresses)
        return not self.facts.isdisjoint(_implied(fact))


def _ready(terms: Terms | None) -> _Asked:
    if terms is None:
        return _NOTHING
    facts = {f"{kind}={value}" for kind in KINDS if kind != "url" for value in getattr(terms, kind)}
    facts |= {f"key.{name}={value}" for name, values in terms.keys.items() for value in values}
    urls = [url.lower() for url in terms.url]
    return _Asked(
        frozenset(map(str.lower, facts)),
        tuple(url for url in urls if url.startswith("/")),
        tuple(url for url in urls if not url.startswith("/")),
    )


_NOTHING = _Asked(frozenset(), (), ())


class Target:
    """A line item's targeting, made ready."""

    __slots__ = ("_all", "_any", "_none", "_prefer")

    def __init__(self, targeting: Targeting) -> None:
        self._any = _ready(targeting.any)
        self._all = _ready(targeting.all)
        self._none = _ready(targeting.none)
        self._prefer = _ready(targeting.prefer)

    @property
    def asked(self) -> "tuple[_Asked, ...]":
        """All that it looks at."""
        return self._any, self._all, self._none, self._prefer

    def admits(self, context: Context) -> bool:
        if self._none.any_of(context) or (self._any and not self._any.any_of(context)):
            return False
        return not self._all or not self._all.missing(context)

    def prefers(self, context: Context) -> bool:
        return self._prefer.any_of(context)

    def why_not(self, context: Context) -> str:
        """Why it does not admit the page, as the rest of a sentence about the line item."""
        if found := self._none.found(context):
            return f"it avoids pages with {_listed(found, 'or')}"
        if self._all and (missing := self._all.missing(context)):
            asked = _listed(self._all.everything(), "and")
            return f"it is for pages with {asked}; this one lacks {_listed(missing, 'and')}"
        return f"it is for pages with {_listed(self._any.everything(), 'or')}, and this one has none of these"


class Interest(Struct, frozen=True):
    """What some bookings tell one page from another by: facts, beginnings of paths and of whole addresses."""

    facts: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    def of(self, context: Context) -> Context:
        """As much of *context* as is looked at, in the bookings' own words: they do the same with it, and say the same.

        Of an address it is the longest beginning that is asked for; the shorter ones are beginnings of that one.
        """
        path, address = _longest(self.paths, context.path), _longest(self.addresses, context.address)
        return Context(self.facts & context.facts, path, address)


def _longest(beginnings: Iterable[str], text: str) -> str:
    return max((one for one in beginnings if text.startswith(one)), key=len, default="")


def interest_of(targets: Iterable[Target]) -> Interest:
    """What *targets* together look at."""
    asked = [terms for target in targets for terms in target.asked]
    return Interest(
        frozenset(one for terms in asked for one in terms.facts),
        frozenset(one for terms in asked for one in terms.paths),
        frozenset(one for terms in asked for one in terms.addresses),
    )


def _listed(facts: list[str], joint: str) -> str:
    """`section business, section markets and tag banks`."""
    words = [fact.removeprefix("key.").replace("=", " ", 1) for fact in facts]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"
