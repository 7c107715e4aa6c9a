"""`POST /render`: an article with each ad shortcode replaced by its snippet, all decided as one page."""

from collections.abc import Iterator

from msgspec import Struct

from adserver import metrics, repair
from adserver.answering import LONGEST_MAX_AGE_S, Answering
from adserver.answers import NO_STORE, NOSNIFF, Headers, Receive, Responses, Scope, Send, keep_for, length, read_body
from adserver.context import MOST_IDS, PLAIN, BadQuery, parse_query
from adserver.decide import Filled, Page
from adserver.metrics import Meter
from adserver.model import Format, Group, SlotId
from adserver.render import render_placeholder
from adserver.shortcode import Shortcode

MOST_BYTES = 2 * 1024 * 1024
_REMEMBERED = 256
_MOST_REMEMBERED_BYTES = 65536
_MOST_UNKNOWN = 20

Ask = SlotId | Group


class Article(Struct, frozen=True):
    """An article taken apart: its text around and between its shortcodes, ready to be joined with answers."""

    texts: tuple[bytes, ...]
    codes: tuple[Shortcode, ...]
    repairs: dict[str, int]


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

    def __init__(self, answering: Answering, responses: Responses, meter: Meter) -> None:
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
            article = self._parse(await read_body(receive, scope["headers"], MOST_BYTES), query.repair)
        except BadQuery as error:
            await self._responses.problem(send, "render", error.status, str(error))
            return
        filling = self.fill(article, query.format)
        headers: Headers = [
            (b"content-type", media),
            keep_for(filling.max_age) if query.format is Format.PLACEHOLDER else NO_STORE,
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
        await self._responses.send(send, "render", 200, headers, filling.body)

    def _parse(self, body: bytes, mend: bool) -> Article:  # noqa: FBT001
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

    def fill(self, article: Article, form: Format) -> Filling:
        """Answer every shortcode of *article*; one that asks for nothing known becomes nothing."""
        edition = self._answering.edition()
        asks = [edition.asks.get((code.name, _id(code))) for code in article.codes]
        known = tuple(ask for ask in asks if ask is not None)
        now = self._answering.now()
        if form is Format.PLACEHOLDER:
            slots = edition.catalog.slots
            answers = [render_placeholder(ask if isinstance(ask, Group) else slots[ask]) for ask in known]
            filled, age = 0, min((edition.max_age(slot, now) for slot in _slots(known)), default=LONGEST_MAX_AGE_S)
        else:
            decided = self._answering.answer(edition, Page(known, form), now)
            answers = [html for _, html in decided]
            filled, age = sum(isinstance(decision, Filled) for decision, _ in decided), 0
        unknown = [code for code, ask in zip(article.codes, asks, strict=True) if ask is None]
        for _ in unknown:
            self._answering.note_unknown()
        body = b"".join(_weave(article, asks, iter(answers)))
        return Filling(body, filled, _presentable(unknown), age)


def _weave(article: Article, asks: list[Ask | None], answers: Iterator[bytes]) -> Iterator[bytes]:
    yield article.texts[0]
    for text, ask in zip(article.texts[1:], asks, strict=True):
        if ask is not None:
            yield next(answers)
        yield text


def _slots(asks: tuple[Ask, ...]) -> Iterator[SlotId]:
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
    """The answer's media type, which is the article's. Raises BadQuery for a type or charset that is not read here."""
    values = [value for name, value in headers if name == b"content-type"]
    media, _, parameters = (values[0] if values else b"").lower().partition(b";")
    media = media.strip()
    if media not in (b"text/html", b"text/plain"):
        raise BadQuery("Send the article as text/html or text/plain.", 415)
    charset = parameters.partition(b"charset=")[2].split(b";")[0].strip(b' "')
    if charset not in (b"", b"utf-8", b"utf8"):
        raise BadQuery("Send the article in UTF-8.", 415)
    if any(name == b"content-encoding" and value.strip().lower() != b"identity" for name, value in headers):
        raise BadQuery("Send the article uncompressed.", 415)
    return media + b"; charset=utf-8"
