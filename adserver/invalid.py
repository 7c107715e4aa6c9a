"""Invalid traffic: events that are genuine and still no reader's, filed beside the count by reason.

The first reason that holds is the event's: navigation, prefetch, staff, address-list, no-user-agent, bot, rate. An
event that none of them takes may still be *suspect*: it looks automated, it counts, and a report shows how many of
the counted ones do.

A robot is what ua-parser's rules call a "Spider". Its rules for devices are loaded as far as the last spider's, and
no others: 16 MB, and 7 µs for a new browser's name; names seen lately are remembered. The spiders' rules alone would
be 2 MB, and wrong: the last of them looks for words such as "silk" or "yahoo" in what no rule before it has called a
reader's tablet or telephone.

A reader's address is looked at and forgotten. Where a rate is set its /24 or /48 is kept, in memory, until the first
event after the minute.
"""

import re
from datetime import date
from functools import lru_cache
from importlib.metadata import version
from socket import AF_INET, AF_INET6, inet_pton

from msgspec import Struct
from ua_parser import Domain
from ua_parser.loaders import load_lazy_builtins
from ua_parser.regex import Resolver

from adserver.address_file import AddressFile
from adserver.events import INVALID, PREFETCH
from adserver.networks import Networks
from adserver.rate import Rate, truncate

VALID = 0
BOT = INVALID.index("bot")
NO_USER_AGENT = INVALID.index("no-user-agent")
METHOD = INVALID.index("method")
NAVIGATION = INVALID.index("navigation")
RATE = INVALID.index("rate")
STAFF = INVALID.index("staff")
ADDRESS_LIST = INVALID.index("address-list")
SUSPECT = INVALID.index("suspect")

_MOST = 512
_MAPPED = bytes(10) + b"\xff\xff"

_PURPOSES = frozenset((b"sec-purpose", b"purpose", b"x-purpose", b"x-moz"))
"""`Sec-Purpose` is the standard's (html.spec.whatwg.org, speculative loading); `Purpose` was Chrome's, `X-Purpose`
WebKit's, `X-Moz` Firefox's."""
_AHEAD = re.compile(rb"\b(?:prefetch|prerender|preview)\b", re.IGNORECASE)
"""`prefetch`, `prefetch;prerender`, `prefetch;prerender;preview` and `prefetch;anonymous-client-ip` are what Chrome
sends; `preview` alone is what Safari sends for its thumbnails and the Facebook app for pages it loads ahead."""

SUSPECTS_DATE = date(2026, 11, 22)
"""When the rules below were last gone through."""
_CLIENTS = (
    "curl libcurl wget httpie xh python aiohttp httpx urllib urllib3 scrapy go-http-client go-resty colly okhttp java"
    " jakarta apache-httpclient apache-httpasyncclient reactornetty jmeter axios node node-fetch undici got superagent"
    " needle bun deno dart ruby faraday typhoeus rest-client php guzzlehttp symfony perl lwp libwww-perl mechanize"
    " www-mechanize reqwest hyper ureq powershell windowspowershell winhttp postmanruntime insomnia bruno k6 locust"
    " vegeta hey wrk siege apachebench httrack"
)
"""HTTP libraries and clients without a screen, by the word their names begin with."""
_WORDS = (
    "headless phantomjs slimerjs selenium webdriver puppeteer playwright cypress jsdom happydom htmlunit lighthouse"
    " pagespeed webpagetest gtmetrix pingdom crawl spider scraper scraping +http"
)
"""Driven browsers, page testers, and what calls itself a robot where ua-parser does not, or says whom to write to."""
_CLIENT_NAMES = frozenset(_CLIENTS.split())
_AUTOMATED_WORDS = tuple(_WORDS.split())
_CLIENT = re.compile(r"[a-z0-9]+(?:-[a-z]+)*", re.ASCII)
_BOT = re.compile(r"(?<!cu)bots?\b")  # Cubot makes telephones
_BARE = re.compile(r"mozilla/[0-9.]+")  # what programs say that only wish to be let in; a browser says more


def _devices() -> Resolver:
    rules = list(load_lazy_builtins()[2])
    spiders = [number for number, rule in enumerate(rules, 1) if getattr(rule, "family", None) == "Spider"]
    if not spiders:
        raise RuntimeError("ua-parser's rules name no spiders any more; look at its release notes")
    return Resolver(([], [], rules[: spiders[-1]]))


_DEVICES = _devices()


class Judge:
    """Judges one worker's events. *per_minute* is the most events of a truncated address, 0 for any number."""

    def __init__(self, staff: Networks, listed: AddressFile, per_minute: int) -> None:
        self._staff = staff
        self._listed = listed
        self._rate = Rate(per_minute)

    def beacon(self, headers: list[tuple[bytes, bytes]], client: tuple[str, int] | None, now: float) -> int:
        """As `click`; and a beacon that another site's page opened as a page of its own is no reader's either."""
        return self._judge(judge_beacon(headers), client, now)

    def click(self, headers: list[tuple[bytes, bytes]], client: tuple[str, int] | None, now: float) -> int:
        """The index in `events.INVALID` of why an event with *headers* from *client* is filed apart; 0: it is valid.

        *now* is in seconds of any steady clock. Only events that nothing else takes off the count go into a rate:
        a robot's must not use up what the readers next door may send.
        """
        return self._judge(judge(headers), client, now)

    def _judge(self, reason: int, client: tuple[str, int] | None, now: float) -> int:
        staff, listed, rate = self._staff, self._listed.networks, self._rate
        if reason in (PREFETCH, NAVIGATION) or not (staff.size or listed.size or rate.most):
            return reason
        address = pack(client[0]) if client else None
        if address is None:
            return reason
        if staff.size and address in staff:
            return STAFF
        if listed.size and address in listed:
            return ADDRESS_LIST
        if rate.most and reason in (VALID, SUSPECT) and rate.exceeds(truncate(address), now):
            return RATE
        return reason


def judge_beacon(headers: list[tuple[bytes, bytes]]) -> int:
    """As `judge`; and a beacon that another site's page opened as a page of its own is no reader's either."""
    if (b"sec-fetch-dest", b"document") in headers and (b"sec-fetch-site", b"cross-site") in headers:
        return NAVIGATION
    return judge(headers)


def judge(headers: list[tuple[bytes, bytes]]) -> int:
    """The index in `events.INVALID` of what a request's *headers* say of it; 0 when they say nothing."""
    user_agent = b""
    for name, value in headers:
        if name == b"user-agent":
            user_agent = value
        elif name in _PURPOSES and _AHEAD.search(value):
            return PREFETCH
    return judge_user_agent(user_agent[:_MOST])


@lru_cache(8192)
def judge_user_agent(user_agent: bytes) -> int:
    text = user_agent.decode("latin-1").strip()
    if not text:
        return NO_USER_AGENT
    device = _DEVICES(text, Domain.DEVICE).device
    if device and device.family == "Spider":
        return BOT
    return SUSPECT if looks_automated(text.lower()) else VALID


def looks_automated(name: str) -> bool:
    """Whether a User-Agent, in small letters, is a program's rather than a reader's browser's."""
    begins = _CLIENT.match(name)
    if begins and not _CLIENT_NAMES.isdisjoint((begins[0], begins[0].partition("-")[0])):
        return True
    if any(word in name for word in _AUTOMATED_WORDS):
        return True
    return ("bot" in name and _BOT.search(name) is not None) or _BARE.fullmatch(name) is not None


def pack(address: str) -> bytes | None:
    """The bytes of a textual address; None when it is none, such as a proxy's "unknown".

    An IPv4 address in IPv6's clothes (`::ffff:192.0.2.1`, how a listener on `::` sees IPv4) is the IPv4 address.
    """
    try:
        return inet_pton(AF_INET, address)  # 0.2 µs; ipaddress takes ten times that
    except (OSError, ValueError):
        pass
    try:
        packed = inet_pton(AF_INET6, address.partition("%")[0])
    except (OSError, ValueError):
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


class ListInUse(Struct, frozen=True):
    """A list that events are judged by: what it finds, which version or date of it is in use, how long it is."""

    reason: str
    source: str
    version: str
    entries: int | None = None


def lists_in_use(staff: Networks, listed: AddressFile) -> list[ListInUse]:
    """What a page on methodology prints of the lists; no address is in it."""
    found = [
        ListInUse("bot", f"ua-parser {version('ua-parser')}, device class Spider", version("ua-parser-builtins")),
        ListInUse("suspect", "adserver's own rules for User-Agent", SUSPECTS_DATE.isoformat()),
    ]
    if staff.size:
        found.append(ListInUse("staff", "ADSERVER_STAFF_ADDRESSES", "as set", staff.size))
    if listed.changed:
        changed = listed.changed.isoformat(timespec="seconds")
        found.append(ListInUse("address-list", "ADSERVER_ADDRESS_LIST_FILE", changed, listed.networks.size))
    return found
