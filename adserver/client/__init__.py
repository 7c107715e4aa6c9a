"""For Python sites: the ads of a page by one call, within a time budget, and never an exception into a template.

    ads = Client("http://127.0.0.1:8000")
    html = ads.render(article, section="sport", tags=["football"])

`Client` is for code that waits, `AsyncClient` for coroutines; both may be shared by all threads. Jinja2 and Django have
tags: see `adserver.client.jinja` and `adserver.client.django`. Any other template engine writes `ad(889990)` and
`body(article)` where ads go and gives the finished page to `complete`.

Rules: one call for a page, whatever the number of its ads; a page waits at most the budget (0.3 s) and, after a
failure, not at all for 30 s, when one page tries again; meanwhile pages show their last good ads as long as these may
be shown, or none; a shortcode never reaches a reader; what goes wrong is logged once per outage, as `adserver.client`.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup, escape

from adserver.client import marks
from adserver.client.about import FORMATS, About, say
from adserver.client.line import Line

__all__ = ["AsyncClient", "Client", "ad", "ad_group", "ad_placement", "body"]

log = logging.getLogger("adserver.client")
_failures: set[str] = set()


class _Base:
    """What both clients have. *url* is the service's, *form* the format of snippets where a page names none.

    *budget_s* and *pause_s* are seconds. Raises ValueError for an address or number that cannot be meant.
    """

    def __init__(self, url: str, *, budget_s: float = 0.3, pause_s: float = 30.0, form: str = "html") -> None:
        self.line = Line(url, budget_s, pause_s)
        if form not in FORMATS:
            raise ValueError(f"form {form!r} is none of {', '.join(FORMATS)}")
        self.form = form

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {self.line!r}>"

    def fill(self, page: str, facts: Mapping[str, Any]) -> str:
        """A finished *page* with its marks filled, by one call; *facts* are what `adserver.client.about` lists."""
        if not marks.has_marks(page):
            return page
        asks = marks.find_asks(page)
        return marks.fill(page, self.line.ask(asks, self._say(facts)) if asks else ())

    async def fill_async(self, page: str, facts: Mapping[str, Any]) -> str:
        """As `fill`, without blocking the event loop."""
        if not marks.has_marks(page):
            return page
        asks = marks.find_asks(page)
        return marks.fill(page, await self.line.ask_async(asks, self._say(facts)) if asks else ())

    def _say(self, facts: Mapping[str, Any]) -> About:
        try:
            about = say(facts, self.form)
        except Exception as error:
            tell_once(f"what is said of a page: {type(error).__name__}: {error}")
            return say({}, self.form)
        if about.unknown:
            tell_once(f"what is said of a page has no {', '.join(about.unknown):.200}; see adserver.client.about")
        return about

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""
        self.line.close()


class Client(_Base):
    """For code that waits for its answers; any thread may use it."""

    def complete(self, page: str, **about: Any) -> str:
        """A finished *page* with its marks filled, by one call. *about* is what `adserver.client.about` lists."""
        return self.fill(page, about)

    def render(self, article: object, **about: Any) -> Markup:
        """An *article* with its shortcodes replaced, by one call. Text that is not marked safe is escaped."""
        return Markup(self.complete(body(article), **about))  # noqa: S704 - escaped, or marked safe by the caller

    def ads(self, ids: Iterable[int | str], **about: Any) -> dict[str, Markup]:
        """The snippet for each ad id of *ids*, as text, by one call; an empty one where nothing is to be shown."""
        asks = _asks(ids)
        return _by_id(asks, self.line.ask(asks, self._say(about)) if asks else ())


class AsyncClient(_Base):
    """The same for coroutines, of any event loop; it never blocks one."""

    async def complete(self, page: str, **about: Any) -> str:
        """As `Client.complete`."""
        return await self.fill_async(page, about)

    async def render(self, article: object, **about: Any) -> Markup:
        """As `Client.render`."""
        return Markup(await self.complete(body(article), **about))  # noqa: S704

    async def ads(self, ids: Iterable[int | str], **about: Any) -> dict[str, Markup]:
        """As `Client.ads`."""
        asks = _asks(ids)
        return _by_id(asks, await self.line.ask_async(asks, self._say(about)) if asks else ())


def ad(ask: object) -> Markup:
    """A mark for the ad id *ask*, to be filled when the page is complete; nothing where it is no id."""
    return _mark("the_ad", ask)


def ad_group(ask: object) -> Markup:
    """A mark for a group of slots, of which one answers."""
    return _mark("the_ad_group", ask)


def ad_placement(ask: object) -> Markup:
    """A mark for a slot or group by the name of its placement."""
    return _mark("the_ad_placement", ask)


def body(article: object, *, escaping: bool = True) -> Markup:
    """An article with marks in the places of its shortcodes.

    Text that is not marked safe (by `Markup`, `| safe` or `mark_safe`) is escaped, unless *escaping* is off.
    """
    try:
        if article is None:
            return Markup()
        safe = hasattr(article, "__html__")
        text = str(article.__html__() if safe else article)  # type: ignore[attr-defined]
        wanted = escaping and not safe
    except Exception as error:
        tell_once(f"an article is no text: {type(error).__name__}: {error}")
        return Markup()
    try:
        marked = marks.mark_text(text, (lambda piece: str(escape(piece))) if wanted else str)
    except Exception as error:
        tell_once(f"an article could not be read: {type(error).__name__}: {error}")
        text = marks.without_shortcodes(text)
        marked = str(escape(text)) if wanted else text
    return Markup(marked)  # noqa: S704


def _mark(name: str, ask: object) -> Markup:
    return Markup(marks.mark(name, ask))  # noqa: S704 - letters, digits and dashes


def _asks(ids: Iterable[int | str]) -> tuple[marks.Ask, ...]:
    return marks.find_asks("".join(dict.fromkeys(ad(one) for one in ids)))


def _by_id(asks: tuple[marks.Ask, ...], answers: Iterable[str]) -> dict[str, Markup]:
    found = {one: Markup() for _, one in asks}
    return found | {one: Markup(html) for (_, one), html in zip(asks, answers, strict=False)}  # noqa: S704


def tell_once(what: str) -> None:
    """Log a mistake of the site's own, which would otherwise be made on every page."""
    if what not in _failures and len(_failures) < 100:
        _failures.add(what)
        log.warning("%s", what)
