"""Who may call what in the console, and how its pages are made.

Every address is a `Rule`: its path, its method, the least role that may, and what answers it. The guard before it
holds for all alike, so that an address without a rule cannot exist:

1. A public rule asks for nobody. Any other wants a session's cookie, or on `/api` a token as a bearer.
2. The role must be at least the rule's.
3. What changes something came from a page of ours: its Origin is ours, and with a cookie it brings the session's own
   form token. A bearer token is never sent by a browser of itself, so it needs neither.
"""

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

import jinja2
import msgspec
from msgspec import Struct
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from adserver.answering import Answering
from adserver.answers import problem_response
from adserver.articles import Articles
from adserver.console import words
from adserver.console.apart import TooLong, apart
from adserver.console.api_tokens import Caller, find_token
from adserver.console.audit import Actor, Entry, note
from adserver.console.desk import DraftMoved, Overtaken
from adserver.console.people import NoSuchPerson, Role
from adserver.console.sessions import Session, find_session
from adserver.console.signin import Provider, ProviderUnavailable
from adserver.console.sums import Sums
from adserver.console.typed import read_typed
from adserver.errors import AdserverError, Conflict, StoreRefused, StoreUnavailable
from adserver.fields import read_digits
from adserver.model import Pause
from adserver.pauses import in_force, paused_until
from adserver.previews import Previews
from adserver.reload import LiveCatalog
from adserver.settings import Settings
from adserver.store import Store, open_store

COOKIE = "__Host-adserver"
MOST_BODY_BYTES = 6 * 1024 * 1024
_MOST_TEXT_BYTES = 256 * 1024
"""Of a form without files: taking its escapes apart takes long."""
_MOST_PUBLIC_BYTES = 16 * 1024
"""Of a form that anybody may send."""
_MOST_ENDED_BYTES = 1536 * 1024
"""Of a form whose session has ended: room for an image. Of those larger than anybody may send one is read at a time."""
_MOST_FIELDS = 2000
_LONG = 1000
"""Lines of a file; what takes longer than a new process takes to begin."""
_TRIES = 10
"""How often a change is made again when another window of the same person was quicker."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ENDED = "Your session has ended, so what you sent was not saved. Sign in and repeat it."
ANEW = "This form is not of your present session; load the page again and repeat what you did."
_PLAIN = frozenset(
    {
        "You are signed out.",
        "You are signed out everywhere.",
        "Your password is changed; you are signed out elsewhere.",
        ENDED,
    }
)
"""What may be said to somebody who has no session, or a new one."""
_T = TypeVar("_T")
_STATIC = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' blob: {base}; font-src 'self';"
    " connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Rule(Struct, frozen=True):
    """An address of the console. *least* is the role that may at least call it; None is anybody.

    *seen* is where a call says which version it was made from: a field of the form, or `if-match`; empty where nothing
    of a version changes.

    *asks* is a call of a page's script that saves nothing, so nothing of it is kept when the session has ended.
    """

    method: str
    path: str
    least: Role | None
    handler: "Handler"
    seen: str = ""
    asks: bool = False


class Tools(Struct, frozen=True):
    """The parts of a worker that the console shows or asks."""

    settings: Settings
    live: LiveCatalog
    answering: Answering
    previews: Previews
    articles: Articles
    sums: Sums
    provider: Provider | None = None


class Refused(AdserverError):
    """A call that is turned away, with what to say and the status to say it with."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Call:
    """One request that may be made, by whom, and what answers it."""

    def __init__(
        self, request: Request, tools: Tools, store: Store, session: Session | Caller | None, form: FormData
    ) -> None:
        self.request = request
        self.tools = tools
        self.store = store
        self.session = session
        self.form = form
        self.now = time.time()
        self.since = str(tools.live.current.version)
        """What a form of the answer is made from (see `read_seen`): what is live when the call begins, or later."""

    @property
    def who(self) -> str:
        """The name of the person who calls."""
        assert self.session
        return self.session.name

    def may(self, role: str) -> bool:
        return self.session is not None and self.session.role.includes(Role(role))

    @property
    def actor(self) -> Actor:
        """Who does what this call asks for, for the audit log."""
        return Actor(self.who, self.address)

    @property
    def csrf(self) -> str:
        """The form token of the session; empty without one."""
        return self.session.csrf if isinstance(self.session, Session) else ""

    async def note(self, what: str, subject: str, detail: str = "") -> None:
        """Write it into the audit log."""
        await note(self.store, self.entry(what, subject, detail))

    def entry(self, what: str, subject: str, detail: str = "") -> Entry:
        """An entry of the audit log: who asks does it, now."""
        return Entry(at=self.now, who=self.who, what=what, subject=subject, detail=detail, address=self.address)

    @property
    def zone(self) -> str:
        return self.tools.live.current.document.site.time_zone

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else ""

    def paused(self, line_item: str) -> float | None:
        """Until when a pause of its own, its advertiser's or a category's holds it back; None where none does now."""
        return paused_until(self.tools.live.current.pauses.get(line_item, ()), self.now)

    @property
    def paused_sections(self) -> list[Pause]:
        """The pauses of sections that are in force."""
        return in_force(self.tools.live.current.sections, self.now)

    def text(self, name: str) -> str:
        """A field of the form, without blanks around it; empty when it is not there."""
        value = self.form.get(name, "")
        return value.strip() if isinstance(value, str) else ""

    def texts(self, name: str) -> list[str]:
        return [value.strip() for value in self.form.getlist(name) if isinstance(value, str) and value.strip()]

    def query(self, name: str, default: str = "") -> str:
        return self.request.query_params.get(name, default).strip()

    async def file(self, name: str) -> tuple[str, bytes] | None:
        """An uploaded file's name and bytes; None when none was chosen."""
        value = self.form.get(name)
        if not isinstance(value, UploadFile) or not value.filename:
            return None
        await value.seek(0)
        return value.filename, await value.read()

    async def aside(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Do long work in a thread, so that ads are answered meanwhile."""
        return await asyncio.to_thread(work, *arguments)

    async def work(self, lines: int, work: Callable[..., _T], *arguments: Any) -> _T:
        """Read or write a file of so many *lines*; a long one in a process of its own. Raises Refused."""
        return await (self.aside if lines <= _LONG else self.apart)(work, *arguments)

    async def apart(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Do what may take seconds in a process of its own. Raises Refused."""
        try:
            return await apart(work, *arguments)
        except TooLong as error:
            raise Refused(503, f"This cannot be done now: {error}.") from None

    async def page(self, template: str, answer: int = 200, /, **values: Any) -> Response:
        """A page of the console, made beside the requests."""
        body = await asyncio.to_thread(self.render, template, values)
        return Response(body, answer, self.headers(), media_type="text/html")

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        return TEMPLATES.get_template(template).render(
            me=self.session,
            may=self.may,
            here=self.request.url.path,
            zone=self.zone,
            site=self.tools.live.current.document.site,
            now=self.now,
            csrf=self.csrf,
            since=self.text("since") or self.since,
            paused_sections=self.paused_sections,
            when=lambda at: words.say_instant(at, self.zone),
            **values,
        )

    def headers(self) -> dict[str, str]:
        return {
            "cache-control": "no-store",
            "content-security-policy": POLICY.format(base=self.tools.settings.base_url),
            "x-content-type-options": "nosniff",
            "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
        }

    def told(self, name: str) -> str:
        """What `go` was to say on this page; nothing that somebody else has put into the address."""
        text, seal = self.query(name), self.query("seal")
        sealed = bool(self.csrf) and hmac.compare_digest(seal.encode(), self._seal(text).encode())
        return text if sealed or text in _PLAIN else ""

    def _seal(self, text: str) -> str:
        return hmac.new(self.csrf.encode(), text.strip().encode(), "blake2s").hexdigest()[:32]

    def go(self, path: str, **said: str) -> Response:
        """Lead on to another page; the sentence *said* is added to its query, sealed for this session."""
        named = {**said, "seal": self._seal(*said.values())} if said and self.csrf else said
        query = "&".join(f"{name}={quote(value)}" for name, value in named.items())
        return RedirectResponse(f"{path}?{query}" if query else path, 303, {"cache-control": "no-store"})

    def json(self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        plain = {"cache-control": "no-store", "x-content-type-options": "nosniff", **(headers or {})}
        return Response(msgspec.json.encode(body), status, plain, media_type="application/json")


Handler = Callable[[Call], Awaitable[Response]]


class Guard:
    """Makes routes of rules."""

    def __init__(self, tools: Tools, rules: Iterable[Rule]) -> None:
        self._tools = tools
        self.rules = list(rules)
        self._ended = asyncio.Lock()

    def routes(self) -> list[Route]:
        by_path: dict[str, list[Rule]] = {}
        for rule in self.rules:
            by_path.setdefault(rule.path, []).append(rule)
        return [
            Route(path, self._endpoint({rule.method: rule for rule in rules}), methods=[rule.method for rule in rules])
            for path, rules in by_path.items()
        ]

    def _endpoint(self, rules: Mapping[str, Rule]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            method = "GET" if request.method == "HEAD" else request.method
            return await self._answer(rules[method], request)

        return endpoint

    async def _answer(self, rule: Rule, request: Request) -> Response:
        await asyncio.sleep(0)  # requests begin without a task (see `http_speed`); from here on this one has its own
        api = rule.path.startswith("/api/")
        call: Call | None = None
        try:
            async with open_store(self._tools.settings.store_url) as store:
                call = Call(request, self._tools, store, None, FormData())
                bearer = await self._sign_in(call, api=api)
                if rule.least is not None:
                    if call.session is None:
                        return await self._ask_to_sign_in(rule, call)
                    if not call.may(rule.least.value):
                        raise Refused(
                            403, f"This needs the role {rule.least.value}; yours is {call.session.role.value}."
                        )
                if rule.method != "GET":
                    self._check_origin(request, bearer=bearer)
                    if not api:
                        call.form = await read_form(request, _MOST_PUBLIC_BYTES if rule.least is None else None)
                    if rule.least is not None and not bearer and not _has_form_token(call, api=api):
                        return await _ask_again(call) or await _refuse(call, 403, ANEW, api=api)
                    if rule.seen and not api and read_seen(call.text(rule.seen)) is None:
                        raise Refused(400, "This form does not say which version you have seen; load its page again.")
                return await _handle(rule, call)
        except Refused as error:
            return await _refuse(call, error.status, str(error), api=api)
        except Overtaken as error:
            assert call
            return await _ask_over(call, error)
        except Conflict as error:
            return await _refuse(call, 409, str(error), api=api)
        except NoSuchPerson:
            return await _refuse(call, 403, "This person was removed meanwhile.", api=api)
        except ProviderUnavailable as error:
            sentence = f"The sign-in provider cannot be asked now; a password works meanwhile. ({error})"
            return await _refuse(call, 503, sentence, api=api)
        except (StoreUnavailable, StoreRefused) as error:
            sentence = f"Nothing can be looked up or changed while the store is away; ads go on. ({error})"
            return await _refuse(call, 503, sentence, api=api)

    async def _sign_in(self, call: Call, *, api: bool) -> bool:
        """Find out who calls; whether by a bearer token."""
        scheme, _, given = call.request.headers.get("authorization", "").partition(" ")
        if api and scheme.lower() == "bearer":
            call.session = await find_token(call.store, given.strip(), call.now)
            return True
        if cookie := call.request.cookies.get(COOKIE):
            call.session = await find_session(call.store, cookie, call.now)
        return False

    async def _ask_to_sign_in(self, rule: Rule, call: Call) -> Response:
        request = call.request
        if rule.path.startswith("/api/"):
            detail = "Send an API token as 'Authorization: Bearer …'; make one in the console, under your name."
            return problem_response(401, detail, {"www-authenticate": 'Bearer realm="adserver"'})
        if rule.asks or request.headers.get("sec-fetch-dest") == "empty":
            return problem_response(401, ENDED)  # a script has asked, and would take the page to sign in for its answer
        if request.method == "POST" and COOKIE in request.cookies and (kept := await self._keep_typed(call)):
            return kept
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        query = {"next": here} if request.method == "GET" else {"said": ENDED}
        return RedirectResponse(f"/console/login?{urlencode(query)}", 303, {"cache-control": "no-store"})

    async def _keep_typed(self, call: Call) -> Response | None:
        """A page that sends again what was typed; None where there is nothing to keep, or too much of it."""
        length = read_digits(call.request.headers.get("content-length", ""))
        with suppress(Refused):
            self._check_origin(call.request, bearer=False)
            if length is not None and length <= _MOST_PUBLIC_BYTES:
                call.form = await read_form(call.request, _MOST_PUBLIC_BYTES)
                return await _ask_again(call)
            async with self._ended:
                call.form = await read_form(call.request, _MOST_ENDED_BYTES)
                return await _ask_again(call)
        return None

    def _check_origin(self, request: Request, *, bearer: bool) -> None:
        """Raises Refused for what another site's page has sent, and for a browser that does not say what has."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
        ours = {self._tools.settings.base_url}
        if urlsplit(f"//{request.headers.get('host', '')}").hostname in _LOOPBACK:
            ours.add(f"{request.url.scheme}://{request.headers['host']}")
        foreign = origin is not None and _origin_of(origin) not in map(_origin_of, ours)
        if foreign or site not in (None, "same-origin") or (origin is site is None and not bearer):
            raise Refused(403, "This call did not come from a page of the console, so nothing was done.")


def _origin_of(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _has_form_token(call: Call, *, api: bool) -> bool:
    """Whether a call with a cookie brings the form token of its session."""
    given = call.request.headers.get("x-csrf-token", "") if api else call.text("csrf")
    given = given or call.request.headers.get("x-csrf-token", "")
    return bool(call.csrf) and hmac.compare_digest(given.encode(), call.csrf.encode())


async def _ask_again(call: Call) -> Response | None:
    """A page with what was typed in an earlier session, to be sent in this one; None where there is nothing to keep."""
    typed = read_typed(call.form, call.request.url.path, ("since", "version", "draft"))
    return await call.page("again.html", 403, typed=typed) if typed else None


async def _ask_over(call: Call, error: Overtaken) -> Response:
    """A page with what was sent and what is there instead of what it was made from, to choose between them."""
    own = ("csrf", "since")
    came = call.form.multi_items()
    pairs = came if error.fields is None else [(name, one) for name, many in error.fields.items() for one in many]
    return await call.page(
        "overtaken.html",
        409,
        error=error,
        made_from=error.since,
        fields=[(name, one) for name, one in pairs if isinstance(one, str) and name not in own],
        files=error.fields is None and any(isinstance(one, UploadFile) and one.filename for _, one in came),
    )


def read_seen(text: str) -> tuple[int, str | None] | None:
    """What a form was made from: the version that was live, and the seal of the entry as its maker had it then.

    `12-5f0c…`; without a seal the entry was what the version has of it. None where it is neither.
    """
    number, mark, seal = text.partition("-")
    found = read_digits(number)
    return None if found is None else (found, seal if mark else None)


async def _handle(rule: Rule, call: Call) -> Response:
    """The rule's answer. Two windows of one person may save at once: the later one is then done again on top."""
    for _ in range(_TRIES):
        with suppress(DraftMoved):
            return await rule.handler(call)
    return await rule.handler(call)


async def _refuse(call: Call | None, status: int, sentence: str, *, api: bool) -> Response:
    if api or call is None:
        return problem_response(status, sentence)
    return await call.page("refused.html", status, sentence=sentence, status=status)


async def read_form(request: Request, most: int | None = None) -> FormData:
    """The form a browser has sent, of at most so many bytes. Raises Refused when it is too large or none."""
    files = request.headers.get("content-type", "").lower().startswith("multipart/")
    usual = MOST_BODY_BYTES if files else _MOST_TEXT_BYTES
    body = await _read_body(request, usual if most is None else min(most, usual))

    async def whole() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def read() -> FormData:
        return await Request(request.scope, whole).form(
            max_files=4, max_fields=_MOST_FIELDS, max_part_size=MOST_BODY_BYTES
        )

    try:
        if len(body) > _MOST_TEXT_BYTES:
            return await asyncio.to_thread(asyncio.run, read())
        return await read()
    except (MultiPartException, ValueError) as error:
        raise Refused(400, f"The form cannot be read: {error}") from None


async def _read_body(request: Request, most: int) -> bytes:
    """Raises Refused for more than so many bytes."""
    declared = read_digits(request.headers.get("content-length", "0"))
    body = bytearray()
    if declared is not None and declared <= most:
        async for part in request.stream():
            body += part
            if len(body) > most:
                break
    if declared is None or max(declared, len(body)) > most:
        said = f"{most // 1024 // 1024} MB" if most >= 1024 * 1024 else f"{most // 1024} kB"
        raise Refused(413, f"That is more than {said}; send less.")
    return bytes(body)


async def read_json(call: Call) -> Any:
    """The body of an API call. Raises Refused, also for a name that comes twice in one object."""
    body = await _read_body(call.request, MOST_BODY_BYTES)
    try:
        return await call.aside(_parse_json, body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is not JSON: {error}.") from None


def _parse_json(body: bytes) -> Any:
    """Raises ValueError."""
    found = msgspec.json.decode(body)  # of a name that comes twice it takes the last
    json.loads(body, object_pairs_hook=_once)
    return found


def _once(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        again = next(name for at, name in enumerate(names) if name in names[:at])
        raise ValueError(f"{again!r:.60} comes twice in one object")


# Templates


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _percent(part: float, whole: float, digits: int = 1) -> str:
    return f"{100 * part / whole:.{digits}f} %" if whole else "–"


def _local(at: float | None, zone: str) -> str:
    """An instant as a date and time field takes it."""
    return "" if at is None else datetime.fromtimestamp(at, ZoneInfo(zone)).strftime("%Y-%m-%dT%H:%M")


def _facts(entry: Any, zone: str) -> tuple[words.Turn, ...]:
    """All that an entry says of itself beside what is usual, to read."""
    return words.turns(None, entry, zone)


def _open_templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("adserver.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"number": _number, "local": _local, "say": words.say}
    environment.globals |= {"percent": _percent, "facts": _facts}
    return environment


TEMPLATES = _open_templates()


async def static(request: Request) -> Response:
    """The console's own stylesheet and script."""
    name = request.path_params["name"]
    kind = name.rpartition(".")[2]
    found = files("adserver.console").joinpath("static", name)
    if kind not in _STATIC or "/" in name or not found.is_file():
        return problem_response(404, "There is no such file.")
    headers = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}
    return Response(found.read_bytes(), headers=headers, media_type=_STATIC[kind])
