"""`POST /render`: an article with each ad shortcode replaced by its snippet, all decided as one page."""

from collections.abc import Iterator
from functools import lru_cache

from msgspec import Struct

from adserver import metrics, repair
from adserver.answering import LONGEST_MAX_AGE_S, Answering, Asks, Edition, find_asks
from adserver.answers import (
    NO_STORE,
    NOSNIFF,
    Headers,
    Receive,
    Responses,
    Scope,
    Send,
    keep_for,
    length,
    read_body,
    wire,
)
from adserver.context import MOST_IDS, PLAIN, BadQuery, Query, parse_query
from adserver.decide import Filled, Page
from adserver.metrics import Meter
from adserver.model import Format, Group, SlotId
from adserver.previews import Moment, Previews
from adserver.render import render_placeholder
from adserver.shortcode import Shortcode
from adserver.targeting import Context

MOST_BYTES = 2 * 1024 * 1024
_REMEMBERED = 256
_MOST_REMEMBERED_BYTES = 65536
_MOST_UNKNOWN = 20


class Article(Struct):
    """An article taken apart: its text around and between its shortcodes, ready to be joined with answers.

    *plan* is what an edition made of its shortcodes, remembered while that edition is live.
    """

    texts: tuple[bytes, ...]
    codes: tuple[Shortcode, ...]
    repairs: dict[str, int]
    plan: "Plan | None" = None

    def plan_for(self, edition: Edition, form: Format) -> "Plan":
        plan = self.plan
        if plan is None or plan.edition is not edition or plan.page.format is not form:
            plan = self.plan = _plan(self, edition.asks, form, edition)
        return plan


class Plan(Struct, frozen=True):
    """What an article asks of an edition: the page, the place of each answer among its pieces, ids that are unknown."""

    edition: Edition | None
    page: Page
    places: tuple[int, ...]
    unknown: list[str]
    unknown_codes: int


def _plan(article: Article, known: Asks, form: Format, edition: Edition | None = None) -> Plan:
    asks = [known.get((code.name, _id(code))) for code in article.codes]
    unknown = [code for code, ask in zip(article.codes, asks, strict=True) if ask is None]
    return Plan(
        edition,
        Page(tuple(ask for ask in asks if ask is not None), form),
        tuple(2 * number + 1 for number, ask in enumerate(asks) if ask is not None),
        _presentable(unknown),
        len(unknown),
    )


def prepare(article: repair.Article) -> Article:
    texts, codes = article.pieces[::2], article.pieces[1::2]
    return Article(
        tuple(text.encode() for text in texts if isinstance(text, str)),
        tuple(code for code in codes if isinstance(code, Shortcode)),
        article.repairs,
    )


class Filling(Struct, frozen=True):
    """A filled article. *unknown* are ids nothing goes by here; *max_age* is for caches, in seconds."""

    body: bytes
    filled: int
    unknown: list[str]
    max_age: int


class Articles:
    """The article route of one worker."""

    def __init__(
        self, answering: Answering, responses: Responses, meter: Meter, previews: Previews | None = None
    ) -> None:
        self._previews = previews
        self._answering = answering
        self._responses = responses
        self._meter = meter
        self._read: dict[tuple[bytes, bool], Article] = {}
        self._repairs = {kind: metrics.REPAIRS.labels(kind) for kind in repair.KINDS}

    async def render(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._responses.method_not_allowed(send, "render", b"POST")
            return
        try:
            query = parse_query(scope["query_string"]) if scope["query_string"] else PLAIN
            media = _media_type(scope["headers"])
            article = self._parse(await read_body(receive, scope["headers"], MOST_BYTES), mend=query.repair)
            if query.at and self._previews:
                moment = await self._previews.moment(query.at, scope["headers"])
                body = self.preview(moment, article, query)
                headers = [(b"content-type", media), NO_STORE, NOSNIFF, moment.header, length(body)]
                await self._responses.send(send, "render", 200, headers, body)
                return
        except BadQuery as error:
            await self._responses.problem(send, "render", error.status, str(error))
            return
        edition = self._answering.edition()
        asks = article.plan_for(edition, query.format).page.asks
        page, reader = await self._answering.decide_for(edition, asks, query, scope)
        body, headers = self._answer(article, query.format, media, page, reader)
        await self._responses.send(send, "render", 200, headers, body)

    def at_once(self, headers: Headers, body: bytes) -> tuple[int, bytes] | None:
        """What `render` answers a POST without a query with, ready for the wire; None where it would refuse."""
        if len(body) > MOST_BYTES:
            return None
        try:
            media = _media_type(headers)
            article = self._parse(body, mend=True)
        except BadQuery:
            return None
        body, said = self._answer(article, Format.HTML, media)
        self._responses.note("render", 200)
        return 200, wire(said, body)

    def _answer(
        self, article: Article, form: Format, media: bytes, page: Page | None = None, reader: bytes = b""
    ) -> tuple[bytes, Headers]:
        filling = self.fill(article, form, page, reader)
        headers: Headers = [
            (b"content-type", media),
            keep_for(filling.max_age) if form is Format.PLACEHOLDER else NO_STORE,
            NOSNIFF,
            (b"adserver-filled", b"%d" % filling.filled),
            length(filling.body),
        ]
        if filling.unknown:
            headers.append((b"adserver-unknown", ", ".join(filling.unknown).encode()))
        if article.repairs:
            headers.append((b"adserver-repaired", b"%d" % sum(article.repairs.values())))
            for kind, n in article.repairs.items():
                self._meter.add(self._repairs[kind], n)
        return filling.body, headers

    def _parse(self, body: bytes, *, mend: bool) -> Article:
        """The article taken apart; those lately seen are remembered. Raises BadQuery."""
        found = self._read.get((body, mend))
        if found is not None:
            return found
        try:
            text = body.decode()
            article = prepare(repair.read(text, MOST_IDS) if mend else repair.read_strict(text, MOST_IDS))
        except UnicodeDecodeError as error:
            raise BadQuery(f"The article is not UTF-8: byte {error.start} cannot be read.") from None
        except repair.TooManyShortcodes:
            raise BadQuery(f"The article has more than {MOST_IDS} ad shortcodes; send it in parts.") from None
        if len(body) <= _MOST_REMEMBERED_BYTES:
            if len(self._read) >= _REMEMBERED:
                self._read.pop(next(iter(self._read)))
            self._read[body, mend] = article
        return article

    def page(self, article: Article, context: Context) -> Page:
        """What *article* asks for, on a page of which so much is known."""
        plan = article.plan_for(self._answering.edition(), Format.HTML)
        return Page(plan.page.asks, Format.HTML, context)

    def preview(self, moment: Moment, article: Article, query: Query) -> bytes:
        """The article as it was or will be at another moment."""
        assert self._previews
        form = Format.HTML if query.format is Format.PLACEHOLDER else query.format  # what will fill the placeholder
        plan = _plan(article, find_asks(moment.catalog), form)
        shown = self._previews.show(moment, Page(plan.page.asks, plan.page.format, query.context, {}))
        pieces = [b""] * (2 * len(article.texts) - 1)
        pieces[::2] = article.texts
        for place, (_, html) in zip(plan.places, shown, strict=True):
            pieces[place] = html
        return b"".join(pieces)

    def fill(self, article: Article, form: Format, page: Page | None = None, reader: bytes = b"") -> Filling:
        """Answer every shortcode of *article*; one that asks for nothing known becomes nothing.

        *page* is what it asks for with what is known of its *reader*.
        """
        edition = self._answering.edition()
        plan = article.plan_for(edition, form)
        now = self._answering.now()
        filled, age = 0, 0
        pieces = [b""] * (2 * len(article.texts) - 1)
        pieces[::2] = article.texts
        if form is Format.PLACEHOLDER:
            asks, slots = plan.page.asks, edition.catalog.slots
            age = min((edition.max_age(slot, now) for slot in _slots(asks)), default=LONGEST_MAX_AGE_S)
            for place, ask in zip(plan.places, asks, strict=True):
                pieces[place] = render_placeholder(ask if isinstance(ask, Group) else slots[ask])
        else:
            if page is None or page.asks != plan.page.asks:  # another catalog came in between
                page = plan.page
            decided = self._answering.answer(edition, page, now)
            self._answering.remember(edition, (decision for decision, _ in decided), reader)
            for place, (decision, html) in zip(plan.places, decided, strict=True):
                pieces[place] = html
                if isinstance(decision, Filled):
                    filled += 1
        for _ in range(plan.unknown_codes):
            self._answering.note_unknown()
        return Filling(b"".join(pieces), filled, plan.unknown, age)


def _slots(asks: tuple[SlotId | Group, ...]) -> Iterator[SlotId]:
    for ask in asks:
        if isinstance(ask, Group):
            yield from (member.slot for member in ask.slots)
        else:
            yield ask


def _id(code: Shortcode) -> str:
    return code.attrs.get("id", "").strip(" \t\n\v\f\r")


def _presentable(unknown: list[Shortcode]) -> list[str]:
    """The ids that may stand in a header, each once; nothing else of an article ever does."""
    names = map(_id, unknown)
    plain = (name for name in names if name.isascii() and name.replace("-", "").replace("_", "").isalnum())
    return list(dict.fromkeys(name[:64] for name in plain))[:_MOST_UNKNOWN]


def _media_type(headers: Headers) -> bytes:
    """The answer's media type, which is the article's. Raises BadQuery for a type, charset or coding not read here."""
    given: bytes | None = None
    for name, value in headers:
        if name == b"content-type" and given is None:
            given = value
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            raise BadQuery("Send the article uncompressed.", 415)
    return _judge_media_type(given or b"")


@lru_cache(64)
def _judge_media_type(given: bytes) -> bytes:
    media, _, parameters = given.lower().partition(b";")
    media = media.strip()
    if media not in (b"text/html", b"text/plain"):
        raise BadQuery("Send the article as text/html or text/plain.", 415)
    charset = parameters.partition(b"charset=")[2].split(b";")[0].strip(b' "')
    if charset not in (b"", b"utf-8", b"utf8"):
        raise BadQuery("Send the article in UTF-8.", 415)
    return media + b"; charset=utf-8"
