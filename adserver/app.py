"""Joins the parts of one worker: opens each in order of need, closes in reverse."""

import asyncio
import logging
import os
import re
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adserver import http_limits, logs, metrics, report
from adserver.address_file import AddressFile
from adserver.answering import Answering
from adserver.answers import Client, Headers, Receive, Responses, Scope, Send, problem_response
from adserver.archive import open_book
from adserver.articles import Articles
from adserver.background import Loop, follow_parent, running, wait_for_any
from adserver.caps import Caps
from adserver.chosen import Chosen
from adserver.closing import Closer
from adserver.condition import Condition
from adserver.confirm import Confirmer
from adserver.console.opening import Console
from adserver.console.sums import Sums
from adserver.days import Days
from adserver.direct import Direct
from adserver.errors import JournalUnavailable, StoreRefused, StoreUnavailable
from adserver.forwarded import Behind, Forwarded
from adserver.health import Health
from adserver.http_speed import AT_ONCE, AtOnce, Outbox
from adserver.invalid import Judge
from adserver.journal import Journal, create_journal
from adserver.keeping import Keeper
from adserver.letters import Letters
from adserver.loader import Loader
from adserver.methodology import Methodology
from adserver.metrics import Meter
from adserver.neighbours import beat
from adserver.previews import Previews
from adserver.readers import Readers
from adserver.reload import LiveCatalog, follow_loop, load_first
from adserver.secret import read_keys, read_staff_token
from adserver.seen import Seen
from adserver.serving import Delivery
from adserver.settings import Settings, read_settings
from adserver.ship import Shipper
from adserver.site import Site
from adserver.store import open_store
from adserver.token import Mint
from adserver.tracking import ROUTES, Tracking
from adserver.turnover import InUse

log = logging.getLogger(__name__)

_OPS = ("/metrics", "/readyz", "/openapi.json", "/api/report", "/api/explain/")
"""What asks nobody who they are and is not for readers. The rest of `/api` asks, and stays where the console is."""


class Worker:
    """The ASGI application of one worker: delivery and tracking by hand, everything else by Starlette."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._meter = Meter()
        self._responses = Responses(self._meter)
        self._delivery: Delivery | None = None
        self._articles: Articles | None = None
        self._tracking: Tracking | None = None
        self._letters: Letters | None = None
        self._detour_told = float("-inf")
        self._forwarded = Forwarded(settings.trusted_proxies.split())
        self._pages = Starlette(
            lifespan=self._lifespan, exception_handlers={HTTPException: _http_problem, Exception: _failed}
        )
        # Paths are strict: the router's redirect to the other spelling would be made of the request's own Host.
        self._pages.router.redirect_slashes = False

    @asynccontextmanager
    async def _lifespan(self, pages: Starlette) -> AsyncIterator[dict[str, AtOnce]]:
        settings = self.settings
        live = LiveCatalog(lambda catalog: metrics.start_at_zero(catalog.slots))
        metrics.start_at_zero(())
        for reason in http_limits.REASONS:
            metrics.HTTP_REFUSED.labels(reason)
        metrics.RESPONSES.labels("other", "304")  # what only files are answered with
        keys = read_keys(settings)
        in_use = InUse(settings.journals)
        journal = in_use.journal
        book = open_book(settings.archive_url, settings.data)
        shipper: Shipper | None = None
        if isinstance(journal, Journal):
            shipper = Shipper(journal, settings.journals, settings.store_url, book, settings.rules)
        confirmer = Confirmer(shipper, settings.store_url) if shipper else None
        direct = Direct(settings.store_url)
        await load_first(live, settings)
        file = Path(settings.country_file) if settings.country_file else None
        readers = Readers(keys.salt(b"reader"), settings.country_header, file)
        caps = Caps(settings.store_url)
        mint = Mint(keys, journal.issuer)
        room, per_second = settings.receipt_bytes, settings.receipts_per_second
        keeper = Keeper(settings.receipts, settings.receipt_days, room, per_second)
        answering = Answering(live, journal, mint, self._meter, settings.base_url, readers, caps, keeper)
        answering.pacer.look_into(book)
        previews = Previews(live, answering, settings.store_url, read_staff_token(settings, keys), settings.base_url)
        listed = _address_file(settings)
        await listed.look()
        judge = Judge(settings.staff, listed, settings.rate_per_minute)
        tracking = Tracking(
            live, journal, keys, self._meter, Seen(_seen_path()), judge, confirmer, direct, answering.pacer.ages.note
        )
        chosen = Chosen(settings.store_url)
        letters = Letters(live, answering, self._responses, tracking, chosen, settings.data / "assets")
        delivery = Delivery(answering, self._responses, settings.allowed_origins.split(), previews, letters)
        articles = Articles(answering, self._responses, self._meter, previews, letters)
        condition = Condition(settings.journals, shipper)
        health = Health(
            settings,
            live,
            journal,
            shipper,
            book,
            keys.fingerprint(),
            self._meter,
            listed,
            lambda: answering.jump_s,
            condition,
            lambda: answering.pacer.trouble,
        )
        site = Site(settings, live, articles, previews)
        sums = Sums(book)
        pages.router.routes.extend(_routes(health, site, Methodology(settings, live, listed), delivery, Loader()))

        def read_console() -> list[Route]:
            from adserver.console.routes import routes
            from adserver.console.signin import open_provider
            from adserver.console.web import Tools

            return routes(Tools(settings, live, answering, previews, articles, sums, open_provider(settings)))

        pages.router.default = console = Console(read_console, pages.router.not_found)
        if settings.oidc_issuer:  # what is wrong with its secret is said at the start
            await console.open()
        self._delivery, self._articles, self._tracking, self._letters = delivery, articles, tracking, letters
        loops: list[Loop] = [
            partial(follow_loop, live, settings),
            partial(_watch_clock, answering, live),
            partial(answering.pacer.run, lambda: live.current, settings.store_url),
            partial(_watch_invariants, settings, live),
            partial(beat, settings.store_url, keys.fingerprint()),
            partial(follow_parent, parent=os.getppid()),
            listed.follow,
            direct.run,
            condition.follow,
            keeper.run,
            partial(sums.follow, settings.store_url, lambda: Days(live.current.document.site.time_zone)),
        ]
        if shipper and confirmer and isinstance(journal, Journal):
            zone = lambda: Days(live.current.document.site.time_zone)  # noqa: E731
            closer = Closer(shipper, settings.journals, settings.store_url, book, zone, settings.rules)
            closer.clock_holds = shipper.clock_holds = answering.clock_holds
            pacer, ships = answering.pacer, shipper
            pacer.mark = lambda: (in_use.journal, in_use.journal.written)
            pacer.counted = lambda mark: ships.has_counted(*mark)
            loops += [shipper.run, confirmer.run, closer.run, in_use.watch]
            in_use.handed_to(
                answering.write_to, tracking.write_to, health.write_to, shipper.write_to, confirmer.write_to
            )
            shipper.turn_over = in_use.turn_over
        else:
            loops.append(partial(_leave_when_writable, settings))
        try:
            async with running(*loops, grace_s=settings.grace_s):
                at_once = AtOnce(self._get_at_once, self._post_at_once, self._get_soon, Outbox())
                yield {} if settings.access_log else {AT_ONCE: at_once}
                await in_use.drain()
        finally:
            self._meter.flush()
            await caps.close()
            await chosen.close()
            await in_use.close()
            if shipper:
                log.info("stopped: %r, %d events left to count", in_use.journal, shipper.waiting())
                shipper.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._delivery is None:
            await self._pages(scope, receive, send)
            return
        path: bytes = scope["raw_path"]
        try:
            if path.startswith(b"/ads/"):
                await self._delivery.ad(scope, send)
            elif path[:3] in _TRACKING and self._tracking:
                await self._tracking(scope, receive, send)
            elif path.startswith(b"/e/") and self._letters:
                await self._letters(scope, send)
            elif path == b"/render" and self._articles:
                await self._articles.render(scope, receive, send)
            elif path == b"/ads":
                await self._delivery.ads(scope, send)
            else:
                await self._other(scope, receive, send)
        except Exception as error:
            extra = [(b"x-request-id", _log_failure(error).encode())]
            await self._responses.problem(send, "other", 500, _DETAILS[500], extra)

    def _get_at_once(self, target: bytes) -> tuple[int, bytes] | None:
        """See `http_speed`; what fails here is asked again the long way, and answered and logged there."""
        try:
            return self._delivery.at_once(target) if self._delivery else None
        except Exception:
            self._note_detour()
            return None

    def _post_at_once(self, headers: Headers, body: bytes) -> tuple[int, bytes] | None:
        try:
            return self._articles.at_once(headers, body) if self._articles else None
        except Exception:
            self._note_detour()
            return None

    def _get_soon(self, target: bytes, headers: Headers, client: Client, tell: Callable[[int, bytes], None]) -> bool:
        try:
            tracking = self._tracking
            return tracking is not None and tracking.at_once(
                target, headers, self._forwarded.client(client, headers), tell
            )
        except Exception:
            self._note_detour()
            return False

    def _note_detour(self) -> None:
        """Log the first failure of a minute: the long way may succeed, and nobody would hear of it."""
        if time.monotonic() >= self._detour_told + 60:
            self._detour_told = time.monotonic()
            log.exception("a request could not be answered at once; it is asked again the long way")

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Starlette's routes; those of ops only at their own port, and only they there, if there is one."""
        ops_port, path = self.settings.ops_port, scope["path"]  # decoded, as the router reads it
        if ops_port is not None and path != "/healthz" and path.startswith(_OPS) != (scope["server"][1] == ops_port):
            await self._responses.problem(send, "other", 404, _DETAILS[404])
            return
        started = False

        async def note(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                metrics.RESPONSES.labels("other", str(message["status"])).inc()
            await send(message)

        try:
            await self._pages(scope, receive, note)
        except Exception:
            if not started:  # else _failed has answered and logged it
                raise


_TRACKING = frozenset(prefix.encode() for prefix in ROUTES)


def _routes(health: Health, site: Site, methodology: Methodology, delivery: Delivery, loader: Loader) -> list[Route]:
    return [
        Route("/", site.sample_page),
        Route("/sample/{name}", site.sample_file),
        Route("/loader.js", loader.file),
        Route("/loader.css", loader.file),
        Route("/favicon.ico", site.favicon),
        Route("/assets/{name}", site.asset),
        Route("/methodology", methodology.page),
        Route("/healthz", health.healthz),
        Route("/readyz", health.readyz),
        Route("/metrics", health.metrics),
        Route("/openapi.json", site.openapi),
        Route("/api/report", health.report),
        Route("/api/explain/{id}", delivery.explain),
    ]


async def _http_problem(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return problem_response(status, _DETAILS.get(status, "The request cannot be answered."), headers)


async def _failed(_: Request, error: Exception) -> Response:
    request_id = _log_failure(error)
    return problem_response(500, _DETAILS[500], {"x-request-id": request_id})


def _log_failure(error: Exception) -> str:
    """Log what nobody foresaw; the id that the answer names it by."""
    request_id = secrets.token_hex(8)
    log.error("a request failed", exc_info=error, extra={"request_id": request_id})
    return request_id


_DETAILS = {
    404: "There is nothing at this address.",
    405: "This address does not answer that method.",
    500: "Something failed that should not have. Tell ops the request id.",
}


def _address_file(settings: Settings) -> AddressFile:
    path = Path(settings.address_list_file) if settings.address_list_file else None
    return AddressFile(path, settings.data / "address-list", metrics.RELOAD_FAILURES.labels("addresses").inc)


def _seen_path() -> Path | None:
    """Shared by the workers of one service, gone with it: beside the metrics' files."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(directory) / "seen" if directory else None


async def _watch_invariants(settings: Settings, live: LiveCatalog, stopping: asyncio.Event) -> None:
    """Hold today's figures against each other once a minute."""
    while not stopping.is_set():
        with suppress(StoreUnavailable, StoreRefused):
            days = Days(live.current.document.site.time_zone)
            day = days.locate(time.time())[0]
            async with open_store(settings.store_url) as store:
                rows = report.rows({day: await store.counts(day)}, await store.ad_names(), "slot", days)
            for invariant, n in report.violations(rows).items():
                metrics.INVARIANTS.labels(invariant).set(n)
        await wait_for_any(60, stopping)


async def _watch_clock(answering: Answering, live: LiveCatalog, stopping: asyncio.Event) -> None:
    """Look at the clock even where nobody asks for an ad."""
    while not stopping.is_set():
        answering.check_clock(time.time())
        metrics.CLOCK_JUMP.set(abs(answering.jump_s))
        metrics.CATALOG_VERSION_HIGHEST.set(live.current.version)
        await wait_for_any(1, stopping)


async def _leave_when_writable(settings: Settings, stopping: asyncio.Event) -> None:
    """Without a journal this worker counts nothing: end it as soon as another could have one."""
    while not stopping.is_set():
        await wait_for_any(5, stopping)
        try:
            journal = await asyncio.to_thread(create_journal, settings.journals)
        except JournalUnavailable:
            continue
        await journal.close()
        log.info("the journal directory can be written again; this worker makes room for one with a journal")
        os.kill(os.getpid(), signal.SIGTERM)
        return


class AccessLog:
    """Logs every request of *app* with a request id, the address truncated, and no query."""

    def __init__(self, app: Worker) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def note(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self._app(scope, receive, note)
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        facts = {
            "request_id": given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8),
            "status": status,
            "ms": round((time.perf_counter() - began) * 1000, 2),
            "client": logs.truncate(scope["client"][0]) if scope["client"] else "-",
        }
        log.info("%s %s", scope["method"], logs.hide(scope["path"]), extra=facts)


_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def create_app() -> Worker | AccessLog | Behind:
    """One worker's application, from the environment: what uvicorn calls in each worker process."""
    settings = read_settings(os.environ)
    logs.configure(settings.log_format)
    http_limits.on_refused = lambda reason: metrics.HTTP_REFUSED.labels(reason).inc()
    worker = Worker(settings)
    app = AccessLog(worker) if settings.access_log else worker
    return Behind(app, Forwarded(settings.trusted_proxies.split())) if settings.trusted_proxies else app
