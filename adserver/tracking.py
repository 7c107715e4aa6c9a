"""The tracking routes: impression, measured and viewable impression, and click, each counted once per token.

The answer is the same whether the event counted or not, so that a page never breaks and a forger learns nothing;
`Adserver-Ignored` says why it did not. A beacon is answered when its event is on disk; if that takes longer than two
seconds it gets 503 and may be sent again, with the same token it cannot count twice. A reader who clicked waits
50 ms for the disk at most.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec import Struct

from adserver import metrics
from adserver.answers import (
    HTML,
    NO_STORE,
    NOSNIFF,
    Client,
    Headers,
    Receive,
    Responses,
    Scope,
    Send,
    problem_answer,
    wire,
)
from adserver.catalog import Ad
from adserver.confirm import Confirmer
from adserver.days import Days
from adserver.direct import Direct
from adserver.errors import BadToken, JournalUnavailable
from adserver.events import INVALID, PREFETCH, TOKEN_BIT, Event, Type
from adserver.invalid import METHOD, SUSPECT, Judge
from adserver.journal import PATIENCE_S, Ledger
from adserver.metrics import Meter
from adserver.reload import LiveCatalog
from adserver.seen import Seen
from adserver.token import LENGTH, Keys, Token, check_age, verify

CLICK_WAIT_S = 0.05
MOST_BODY = 1024

GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00"
    b"!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
_GIF = [(b"content-type", b"image/gif"), (b"content-length", b"%d" % len(GIF)), NO_STORE, NOSNIFF]
_PIXEL = wire(_GIF, GIF)
_AHEAD = 0x80
_BEACON_LENGTH = len(b"/i/") + LENGTH
_NOT_SAFE = "The event could not be made safe in time. Send it again; it cannot be counted twice."
_RETRY = (b"retry-after", b"2")
_READABLE = (b"access-control-allow-origin", b"*")
"""Lets the script of any page see whether its beacon must be sent again; there is nothing else to see."""
_GONE = b"<!doctype html><title>Link not found</title><p>This link does not lead anywhere any more.</p>"


class Route(Struct, frozen=True):
    """One tracking address: its event, its methods, its name in metrics."""

    type: Type
    name: str
    methods: tuple[str, ...]


ROUTES: Mapping[str, Route] = {
    "/i/": Route(Type.IMPRESSION, "impression", ("GET", "POST")),
    "/m/": Route(Type.MEASURED, "measured", ("POST",)),
    "/v/": Route(Type.VIEWABLE, "viewable", ("POST",)),
    "/c/": Route(Type.CLICK, "click", ("GET",)),
}


class Record(NamedTuple):
    """A record's journal, and its number there."""

    journal: Ledger
    number: int

    @property
    def synced(self) -> bool:
        return self.journal.synced >= self.number


class Taken(Struct, frozen=True):
    """The event gets its usual answer. *ignored* says why it is in no figure; *record* is what was stored of it."""

    ignored: str | None = None
    record: "Record | None" = None


class NotSafe(Struct, frozen=True):
    """The event could not be made safe in time: its sender must send it again."""


Outcome = Taken | NotSafe


class Tracking:
    """`/i/{token}`, `/m/{token}`, `/v/{token}` and `/c/{token}`; for the event loop's thread alone."""

    def __init__(
        self,
        live: LiveCatalog,
        journal: Ledger,
        keys: Keys,
        meter: Meter,
        seen: Seen,
        judge: Judge,
        confirmer: Confirmer | None = None,
        direct: Direct | None = None,
        came: Callable[[Type, bytes, float], None] = lambda *_: None,
    ) -> None:
        self._came = came
        self._live = live
        self._journal = journal
        self._keys = keys
        self._meter = meter
        self._responses = Responses(meter)
        self._seen = seen
        self._judge = judge
        self._confirmer = confirmer
        self._direct = direct
        self._syncing: dict[tuple[bytes, int, int], Record] = {}
        self._counting: set[asyncio.Task[None]] = set()  # so that none is collected before it ends
        self._days = Days(live.current.document.site.time_zone)
        names = metrics.EVENT_TYPES
        self._events = {type_: metrics.EVENTS.labels(name) for type_, name in names.items()}
        self._degraded = {type_: metrics.DEGRADED.labels(name) for type_, name in names.items()}
        self._suspect = {type_: metrics.SUSPECT.labels(name) for type_, name in names.items()}
        self._invalid = {
            (type_, reason): metrics.INVALID.labels(name, INVALID[reason])
            for type_, name in names.items()
            for reason in range(1, len(INVALID))
            if reason != SUSPECT
        }

    def write_to(self, journal: Ledger) -> None:
        """The worker goes on in another journal: see `turnover`."""
        self._journal = journal

    def at_once(self, target: bytes, headers: Headers, client: Client, tell: Callable[[int, bytes], None]) -> bool:
        """Take a plain GET of an impression beacon; *tell* gets its answer, ready for the wire, when it is on disk.

        False where `__call__` must answer: any other target, or an advertiser asks for level 3.
        """
        if len(target) != _BEACON_LENGTH or target[:3] != b"/i/" or self._live.current.level_3:
            return False
        token, ignored = self._read(target[3:], Type.IMPRESSION)
        if token is None or ignored:
            tell(*self._pixel(Taken(ignored)))
        else:
            self._count(token, Type.IMPRESSION, headers, client, lambda outcome: tell(*self._pixel(outcome)))
        return True

    def _pixel(self, outcome: Outcome) -> tuple[int, bytes]:
        if isinstance(outcome, NotSafe):
            self._meter.add(metrics.REFUSED_EVENTS)
            self._responses.note("impression", 503)
            return 503, wire(*problem_answer(503, _NOT_SAFE, [_RETRY]))
        self._responses.note("impression", 200)
        if outcome.ignored:
            return 200, wire([*_GIF, (b"adserver-ignored", outcome.ignored.encode())], GIF)
        return 200, _PIXEL

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: bytes = scope["raw_path"]
        route = ROUTES[path[:3].decode("latin-1")]
        method: str = scope["method"]
        if method not in route.methods and (method != "HEAD" or "GET" not in route.methods):
            allow = ", ".join(route.methods + (("HEAD",) if "GET" in route.methods else ()))
            await self._responses.method_not_allowed(send, route.name, allow.encode())
            return
        headers: Headers = scope["headers"]
        if method == "POST" and (refused := await _judge_body(headers, receive)):
            await self._responses.problem(send, route.name, *refused)
            return
        token, ignored = self._read(path[3:], route.type)
        said: Headers = []
        if token is not None and ignored is None:
            began = time.monotonic()
            outcome = await self._outcome(token, route.type, scope)
            if isinstance(outcome, NotSafe):
                self._meter.add(metrics.REFUSED_EVENTS)
                await self._responses.problem(send, route.name, 503, _NOT_SAFE, [_RETRY, _READABLE])
                return
            ignored = outcome.ignored
            said += await self._said_of(token, route.type, outcome, began)
        if ignored:
            said.append((b"adserver-ignored", ignored.encode()))
        if route.type is Type.CLICK:
            await self._redirect(send, token, said)
        elif method == "GET":
            await self._responses.send(send, route.name, 200, [*_GIF, *said], GIF)
        else:
            await self._responses.send(send, route.name, 204, [NO_STORE, NOSNIFF, _READABLE, *said], b"")

    async def follow(self, token: Token, scope: Scope, send: Send) -> None:
        """Count a click by a *token* that was made for it a moment ago, and lead the reader on."""
        began = time.monotonic()
        outcome = await self._outcome(token, Type.CLICK, scope)
        said: Headers = []
        if isinstance(outcome, Taken):
            said += await self._said_of(token, Type.CLICK, outcome, began)
            if outcome.ignored:
                said.append((b"adserver-ignored", outcome.ignored.encode()))
        await self._redirect(send, token, said)

    async def lead_home(self, send: Send) -> None:
        """Answer a link behind which there is nothing any more."""
        await self._redirect(send, None, [])

    async def _said_of(self, token: Token, type_: Type, outcome: Taken, began: float) -> Headers:
        """The level that an event reached, where somebody asks for level 3."""
        if outcome.record is None or not self._live.current.level_3:
            return []
        return await self._level(token, type_, outcome.record, began)

    def _read(self, text: bytes, type_: Type) -> tuple[Token | None, str | None]:
        """The genuine token, and why its event is not counted, if so."""
        try:
            token = verify(self._keys, text)
        except BadToken as error:
            self._meter.add(metrics.REJECTED.labels(error.reason))
            return None, error.reason
        try:
            if not token.allowed >> TOKEN_BIT[type_] & 1:
                raise BadToken("not-allowed")
            check_age(token, time.time())
        except BadToken as error:
            self._meter.add(metrics.REJECTED.labels(error.reason))
            return token, error.reason
        return token, None

    async def _outcome(self, token: Token, type_: Type, scope: Scope) -> Outcome:
        if scope["method"] == "HEAD":  # a scanner's look before the reader's click: it must not use the token up
            self._meter.add(self._invalid[type_, METHOD])
            return Taken(INVALID[METHOD])
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        tell: Callable[[Outcome], None] = lambda said: None if outcome.done() else outcome.set_result(said)  # noqa: E731
        self._count(token, type_, scope["headers"], scope["client"], tell)
        return await outcome

    def _count(
        self, token: Token, type_: Type, headers: Headers, client: Client, tell: Callable[[Outcome], None]
    ) -> None:
        """Count an event whose token is good, once; *tell* hears what became of it when that is certain."""
        key = (token.issuer, token.serial, int(type_))
        if self._repeats(key, type_, tell):
            return
        judge = self._judge.click if type_ is Type.CLICK else self._judge.beacon
        reason = judge(headers, client, time.monotonic())
        if reason == PREFETCH:
            key = (token.issuer, token.serial, _remembered(type_, reason))
            if self._repeats(key, type_, tell):
                return
        try:
            stored = self._store(token, type_, reason)
        except JournalUnavailable as error:
            self._journal.failure = self._journal.failure or str(error)
            counting = asyncio.get_running_loop().create_task(self._count_without_journal(token, type_, reason, tell))
            self._counting.add(counting)
            counting.add_done_callback(self._counting.discard)
            return
        self._syncing[key] = stored

        def synced(safe: bool) -> None:  # noqa: FBT001
            del self._syncing[key]
            tell(self._taken(token, type_, reason, stored) if safe else NotSafe())

        self._when_safe(stored, type_, synced)

    def _repeats(self, key: tuple[bytes, int, int], type_: Type, tell: Callable[[Outcome], None]) -> bool:
        """Whether the event of *key* came before; then *tell* hears it, once the first is safe."""
        record = self._syncing.get(key)
        if record is None and not self._seen.has(*key):
            return False
        self._meter.add(metrics.REJECTED.labels(metrics.DUPLICATE))
        repeated = Taken(metrics.DUPLICATE)
        if record is None:
            tell(repeated)
        else:
            self._when_safe(record, type_, lambda safe: tell(repeated if safe else NotSafe()))
        return True

    async def _count_without_journal(
        self, token: Token, type_: Type, reason: int, tell: Callable[[Outcome], None]
    ) -> None:
        ad = self._live.find(token.ad)
        hour = self._days.hour_of(token.day, token.issued)
        event = Event(
            type_, reason, token.day, hour, token.issuer, token.serial, token.ad.ljust(8, b"\0"), int(time.time())
        )
        patience_s = CLICK_WAIT_S if type_ is Type.CLICK else PATIENCE_S
        counted = False
        try:
            # A prefetch has no bit in the store, which alone would keep it from counting twice there.
            if self._direct is not None and reason != PREFETCH:
                counted = await self._direct.count(event, ad.name if ad else "", patience_s)
        finally:  # whatever happens, somebody waits for an answer
            if counted:
                self._meter.add(metrics.DIRECT)
                tell(self._taken(token, type_, reason, None))
            elif type_ is Type.CLICK:
                self._meter.add(metrics.UNCOUNTED)
                tell(Taken())
            else:
                tell(NotSafe())

    def _taken(self, token: Token, type_: Type, reason: int, record: Record | None) -> Taken:
        """The event is safe: remember it, and say where it is counted."""
        self._seen.add(token.issuer, token.serial, _remembered(type_, reason))
        if reason and reason != SUSPECT:
            self._meter.add(self._invalid[type_, reason])
            return Taken(INVALID[reason], record)
        if reason:
            self._meter.add(self._suspect[type_])
        self._meter.add(self._events[type_])
        self._came(type_, token.ad, time.time() - token.issued)
        return Taken(None, record)

    def _store(self, token: Token, type_: Type, reason: int) -> Record:
        zone = self._live.current.document.site.time_zone
        if zone != self._days.zone:
            self._days = Days(zone)
        ad = self._live.find(token.ad)
        journal = self._journal
        if ad is not None:
            journal.name(ad.key, ad.name)
        hour = self._days.hour_of(token.day, token.issued)
        now = time.time()
        return Record(
            journal, journal.append(type_, reason, token.day, hour, token.issuer, token.serial, token.ad, now)
        )

    def _when_safe(self, record: Record, type_: Type, tell: Callable[[bool], None]) -> None:
        """Tell when the record is on disk, or False when a beacon must be sent again. A click goes on all the same."""
        if record.synced:
            tell(True)  # noqa: FBT003
        elif type_ is not Type.CLICK:
            record.journal.when_synced(tell)
        else:
            record.journal.when_synced(lambda safe: tell(self._note_degraded(safe, type_)), CLICK_WAIT_S)

    def _note_degraded(self, safe: bool, type_: Type) -> bool:  # noqa: FBT001
        if not safe:
            self._meter.add(self._degraded[type_])
        return True

    async def _level(self, token: Token, type_: Type, record: Record, began: float) -> Headers:
        """Wait for level 3 where the advertiser asks for it; the header that says which level was reached."""
        ad = self._live.find(token.ad)
        if self._confirmer is None or ad is None or ad.creative.advertiser not in self._live.current.level_3:
            return []
        if not record.synced:  # a click that went on all the same
            return [(b"x-count-level", b"1")]
        left_s = began + (CLICK_WAIT_S if type_ is Type.CLICK else PATIENCE_S) - time.monotonic()
        in_use = record.journal is self._journal
        if in_use and left_s > 0 and await self._confirmer.confirmed(token.day, record.number, left_s):
            return [(b"x-count-level", b"3")]
        self._meter.add(self._degraded[type_])
        return [(b"x-count-level", b"2")]

    async def _redirect(self, send: Send, token: Token | None, said: Headers) -> None:
        """To the creative's own destination, out of the catalog; to the site's home page when that is not known."""
        ad: Ad | None = self._live.find(token.ad) if token else None
        target = (ad.creative.click_url if ad else None) or self._live.current.document.site.home_url
        if target is None:
            headers = [HTML, NO_STORE, NOSNIFF, (b"content-length", b"%d" % len(_GONE)), *said]
            await self._responses.send(send, "click", 404, headers, _GONE)
            return
        headers = [(b"location", target.encode("ascii")), (b"content-length", b"0"), NO_STORE, NOSNIFF, *said]
        headers.append((b"referrer-policy", b"no-referrer-when-downgrade"))
        await self._responses.send(send, "click", 302, headers, b"")


def _remembered(type_: Type, reason: int) -> int:
    """What an event goes by in memory: a prefetch is not taken for the event of the reader who may follow it."""
    return type_ + _AHEAD if reason == PREFETCH else int(type_)


async def _judge_body(headers: Headers, receive: Receive) -> tuple[int, str] | None:
    """A beacon's body says nothing; only its size and coding can be wrong."""
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() != b"identity":
            return 415, "Bodies are not decompressed; send none."
        if (name == b"content-length" and int(value) > MOST_BODY) or (
            name == b"transfer-encoding" and not await _is_small(receive)
        ):
            return 413, f"A beacon's body is ignored and may have {MOST_BODY} bytes at most."
    return None


async def _is_small(receive: Receive) -> bool:
    """Read a body that was sent without its length, until it ends or has become too large."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if size > MOST_BODY or not message.get("more_body", False):
            return size <= MOST_BODY
