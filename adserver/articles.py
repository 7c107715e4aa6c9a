"""`POST /render`: an article with each ad shortcode replaced by its snippet, all decided as one page."""

from collections.abc import Sequence
from functools import lru_cache, partial

from msgspec import Struct

from adserver import metrics, repair
from adserver.answering import LONGEST_MAX_AGE_S, Answering, Asks, Edition, find_asks, slots_of
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
from adserver.decide import Decision, Filled, Page
from adserver.documents import Document
from adserver.letters import Letters
from adserver.metrics import Meter
from adserver.model import Format, Group, SlotId
from adserver.previews import Moment, Previews
from adserver.render import render_placeholder
from adserver.shortcode import Shortcode
from adserver.targeting import UNKNOWN, Context

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
    found = tuple(ask for ask in asks if ask is not None)
    return Plan(
        edition,
        Page(found, form, edition.unasked(found) if edition else UNKNOWN),
        tuple(2 * number + 1 for number, ask in enumerate(asks) if ask is not None),
        _presentable(unknown),
        len(unknown),
    )


def slots_asked(article: Article, document: Document) -> set[int]:
    """The slots that may answer the article's shortcodes, those of groups as well."""
    return set(slots_in_turn(article, document))


def slots_in_turn(article: Article, document: Document) -> list[int]:
    """The same, each once, in the article's order."""
    known = find_asks(document)
    asks = (known.get((code.name, _id(code))) for code in article.codes)
    return list(dict.fromkeys(slots_of(ask for ask in asks if ask is not None)))


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
        self,
        answering: Answering,
        responses: Responses,
        meter: Meter,
        previews: Previews | None = None,
        letters: Letters | None = None,
    ) -> None:
        self._letters = letters
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
                moment = await self._previews.moment(query.at, scope["headers"], partial(slots_asked, article))
                body = await self.preview(moment, article, query, scope)
                headers = [(b"content-type", media), NO_STORE, NOSNIFF, moment.header, length(body)]
                await self._responses.send(send, "render", 200, headers, body)
                return
        except BadQuery as error:
            await self._responses.problem(send, "render", error.status, str(error))
            return
        edition = self._answering.edition()
        asks = article.plan_for(edition, query.format).page.asks
        if query.format is Format.EMAIL and self._letters:
            plan = article.plan_for(edition, query.format)
            filling = self._put(article, plan, await self._letters.fill(edition, asks, query))
        else:
            page, reader = await self._answering.decide_for(edition.catalog, asks, query, scope)
            filling = self.fill(article, query.format, page, reader)
        body, headers = self._answer(article, query.format, media, filling)
        headers.append((b"adserver-max-age", b"%d" % self._max_age(edition, asks)))
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
        body, said = self._answer(article, Format.HTML, media, self.fill(article, Format.HTML))
        self._responses.note("render", 200)
        return 200, wire(said, body)

    def _answer(self, article: Article, form: Format, media: bytes, filling: Filling) -> tuple[bytes, Headers]:
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

    def _max_age(self, edition: Edition, asks: tuple[SlotId | Group, ...]) -> int:
        """Seconds until something else may show in one of them: so long an answer may be shown again."""
        now = self._answering.now()
        return min((edition.max_age(ask, now) for ask in asks), default=LONGEST_MAX_AGE_S)

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
        """What *article* asks for, on a page of which so much is known, of a reader who has consented to nothing."""
        edition = self._answering.edition()
        asks = article.plan_for(edition, Format.HTML).page.asks
        return Page(asks, Format.HTML, edition.unasked(asks, context))

    async def preview(self, moment: Moment, article: Article, query: Query, scope: Scope) -> bytes:
        """The article as it was or will be at another moment."""
        assert self._previews
        form = Format.HTML if query.format is Format.PLACEHOLDER else query.format  # what will fill the placeholder
        plan = _plan(article, find_asks(moment.catalog.document), form)
        page = await self._previews.page(moment, plan.page.asks, form, query, scope)
        shown = self._previews.show(moment, page, query)
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
        if form is Format.PLACEHOLDER:
            asks, slots = plan.page.asks, edition.catalog.slots
            boxes = [render_placeholder(ask if isinstance(ask, Group) else slots[ask], slots) for ask in asks]
            return self._put(article, plan, [(None, box) for box in boxes], self._max_age(edition, asks))
        if page is None or page.asks != plan.page.asks:  # another catalog came in between
            page = plan.page
        decided = self._answering.answer(edition, page, self._answering.now())
        self._answering.remember(edition, (decision for decision, _ in decided), reader)
        return self._put(article, plan, decided)

    def _put(
        self, article: Article, plan: Plan, decided: Sequence[tuple[Decision | None, bytes]], age: int = 0
    ) -> Filling:
        """*article* with what was *decided* of its plan's asks in their places."""
        filled = 0
        pieces = [b""] * (2 * len(article.texts) - 1)
        pieces[::2] = article.texts
        for place, (decision, html) in zip(plan.places, decided, strict=True):
            pieces[place] = html
            if isinstance(decision, Filled):
                filled += 1
        for _ in range(plan.unknown_codes):
            self._answering.note_unknown()
        return Filling(b"".join(pieces), filled, plan.unknown, age)


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
