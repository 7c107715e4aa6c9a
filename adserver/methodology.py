"""`/methodology`: how this very service counts, for whoever pays by its figures; made from the running settings.

It shows rules, versions and dates, and no address, key or name of anybody.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import date
from html import escape

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from adserver import __version__
from adserver.address_file import AddressFile
from adserver.events import REASONS
from adserver.invalid import lists_in_use
from adserver.reload import LiveCatalog
from adserver.settings import Settings
from adserver.token import EARLY_S, LIFETIME_S

_STYLE = """
body { margin: 2rem auto; padding: 0 1rem; max-width: 44rem; font: 1rem/1.5 system-ui, sans-serif; color: #1d2730;
  background: #fff }
h1 { line-height: 1.2 } h2 { margin-top: 2rem }
dt { font-weight: 600 } dd { margin: 0 0 .75rem; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { color: #e4e8ec; background: #14191e } }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "cache-control": "public, max-age=300",
    "x-content-type-options": "nosniff",
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
}

_MONTHLY = re.compile(r"(20[0-9]{2})(0[1-9]|1[0-2])(?:\.[0-9]+|\.?post[0-9]+)?", re.ASCII)

_WHY = {
    "bot": "the User-Agent is a robot's",
    "no-user-agent": "the request names no User-Agent",
    "prefetch": "the browser fetched ahead of its reader or rendered a page nobody looks at yet; the reader counts",
    "method": "the request only looked (HEAD); in the service's metrics alone",
    "navigation": "another site opened the beacon's address as a page",
    "rate": "too many events in a minute from one network",
    "staff": "it came from the newsroom's own addresses",
    "address-list": "it came from an address on the operator's list",
}


class Methodology(Struct):
    """The route of one worker."""

    settings: Settings
    live: LiveCatalog
    listed: AddressFile

    async def page(self, _: Request) -> Response:
        return Response(self._html(), headers=_HEADERS, media_type="text/html")

    def _html(self) -> str:
        settings, site = self.settings, self.live.current.document.site
        hours = LIFETIME_S // 3600
        level_3 = len(self.live.current.level_3)
        parts = [
            _section(
                "What is counted",
                [
                    ("Request", "a page asked for a slot, filled or not"),
                    (
                        "Served",
                        "a snippet left for a page; all that one baked into a cached page tells",
                    ),
                    ("Impression", "the reader's browser began to show the ad and fetched its pixel; once per snippet"),
                    (
                        "Viewable impression",
                        (
                            "the ad's picture was there and half of its pixels, or 30 % from 242,500 pixels on, were on"
                            " screen for one second without a break in a visible tab with the focus, or the reader"
                            " followed the ad before; once per snippet"
                        ),
                    ),
                    (
                        "Measured",
                        (
                            "the page began to watch whether the ad is viewable; views in mails, in browsers and on"
                            " pages that cannot are impressions, and neither viewable nor not: a viewable rate is taken"
                            " of the measured ones"
                        ),
                    ),
                    ("Click", "the reader followed the ad's link; once per snippet, in newsletters each time"),
                    (
                        "Load",
                        "a newsletter's picture was fetched, by whatever fetched it; never an impression, never billed",
                    ),
                    ("Billed by", "what each slot's setting names; an impression where it names nothing"),
                ],
            ),
            _section(
                "When, and to which day",
                [
                    ("Time zone", site.time_zone),
                    ("Day and hour", "those in which the snippet was served, for all of its events"),
                    (
                        "A snippet's events are taken",
                        f"for {_many(hours, 'hour')}, or {EARLY_S} seconds early",
                    ),
                    ("A day closes", f"{_many(settings.seal_after_h, 'hour')} after its last snippet has expired"),
                    (
                        "A missing machine is waited for",
                        f"{_many(settings.seal_wait_h, 'hour')}",
                    ),
                    ("Afterwards", "figures never change; what comes later is shown apart, as late"),
                    ("Figures are kept", f"{_many(settings.keep_counts_days, 'day')}, in the archive for good"),
                    (
                        "Journals are kept",
                        f"{_many(settings.keep_journal_h, 'hour')} at least, and until the archive has what they hold",
                    ),
                    (
                        "A journal that turns up late",
                        f"is set aside if all of it is {_many(settings.quarantine_days, 'day')} old; a person decides",
                    ),
                ],
            ),
            _section("What is taken off, by reason", [(reason, _WHY[reason]) for reason in REASONS]),
            (
                "<p>Gross less these reasons is net, for each figure and in each report. <em>Suspect</em> events look"
                " automated and are <em>in</em> the net; they are shown so that a person can decide.</p>"
            ),
            _section(
                "Lists and limits in force",
                list(self._lists()),
            ),
            _section(
                "How safe a count is",
                [
                    ("Level 1", "served: written before the answer leaves; survives a killed process"),
                    (
                        "Level 2",
                        "impressions, viewables, and clicks unless the disk is slow: on disk before the answer leaves",
                    ),
                    ("Level 3", f"also on a replica of the store; asked for by {_many(level_3, 'advertiser')} here"),
                ],
            ),
        ]
        return (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>How ads are counted</title><style>{_STYLE}</style></head><body><main>"
            f"<h1>How ads are counted here</h1><p>adserver {escape(__version__)}, catalog version"
            f" {self.live.current.version}. No event is counted twice.</p>"
            f"{''.join(parts)}</main></body></html>\n"
        )

    def _lists(self) -> Iterator[tuple[str, str]]:
        """What is in force, and for what could be and is not: that it is not."""
        found = {one.reason: one for one in lists_in_use(self.settings.staff, self.listed)}
        for reason in dict.fromkeys([*found, "staff", "address-list"]):
            if one := found.get(reason):
                size = (
                    f"; {one.entries:,} {'entry' if one.entries == 1 else 'entries'}" if one.entries is not None else ""
                )
                yield reason, f"{one.source}; {_dated(one.version)}{size}"
            elif reason == "address-list" and self.settings.address_list_file:
                yield reason, "set, and not read yet"
            else:
                yield reason, "none set"
        n = self.settings.rate_per_minute
        yield "rate", f"{_many(n, 'event')} a minute, for one /24 or /48 in one worker" if n else "none set"


def _section(title: str, facts: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f"<h2>{escape(title)}</h2><dl>{items}</dl>"


def _dated(version: str) -> str:
    """ua-parser's rules are released monthly and versioned by it: 202610 is October 2026. Others as they are."""
    found = _MONTHLY.fullmatch(version)
    return f"rules of {date(int(found[1]), int(found[2]), 1):%B %Y}" if found else version


def _many(n: float, noun: str) -> str:
    return f"{f'{n:,}' if isinstance(n, int) else f'{n:g}'} {noun}{'' if n == 1 else 's'}"
