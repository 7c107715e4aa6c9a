"""`/methodology`: how this very service counts, for whoever pays by its figures; made from the running settings.

It shows rules, versions and dates, and no address, key or name of anybody.
"""

import base64
import hashlib
from collections.abc import Iterable
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

_WHY = {
    "bot": "the User-Agent is a robot's",
    "no-user-agent": "the request names no User-Agent",
    "prefetch": "the browser fetched ahead of its reader, or rendered a page nobody looks at yet",
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
        rate = f"{settings.rate_per_minute:,} events a minute" if settings.rate_per_minute else "no limit is set"
        level_3 = len(self.live.current.level_3)
        parts = [
            _section(
                "What is counted",
                [
                    ("Request", "a page asked for a slot, filled or not"),
                    ("Served", "a snippet left for a page"),
                    ("Impression", "the reader's browser began to show the ad and fetched its pixel; once per snippet"),
                    ("Viewable impression", "the page reported the ad as seen; once per snippet"),
                    ("Click", "the reader followed the ad's link; once per snippet"),
                    ("Billed by", "what each slot's setting names; an impression where it names nothing"),
                ],
            ),
            _section(
                "When, and to which day",
                [
                    ("Time zone", site.time_zone),
                    ("Day and hour", "those in which the snippet was served, for all of its events"),
                    ("A snippet's events are taken", f"for {hours} hours, and up to {EARLY_S} seconds early"),
                    ("A day closes", f"{_number(settings.seal_after_h)} hours after its last snippet has expired"),
                    ("A missing machine is waited for", f"{_number(settings.seal_wait_h)} hours"),
                    ("Afterwards", "figures never change; what comes later is shown apart, as late"),
                    ("Figures are kept", f"{_number(settings.keep_counts_days)} days, in the archive for good"),
                ],
            ),
            _section("What is taken off, by reason", [(reason, _WHY[reason]) for reason in REASONS]),
            (
                "<p>Gross less these reasons is net, for each figure and in each report. <em>Suspect</em> events look"
                " automated and are <em>in</em> the net; they are shown so that a person can decide.</p>"
            ),
            _section(
                "Lists and limits in force",
                [
                    *(
                        (
                            one.reason,
                            f"{one.source}; {one.version}{f'; {one.entries:,} entries' if one.entries else ''}",
                        )
                        for one in lists_in_use(settings.staff, self.listed)
                    ),
                    ("rate", f"{rate}, for one /24 or /48 in one worker"),
                ],
            ),
            _section(
                "How safe a count is",
                [
                    ("Level 1", "served: written before the answer leaves; survives a killed process"),
                    (
                        "Level 2",
                        "impressions, viewables, and clicks unless the disk is slow: on disk before the answer leaves",
                    ),
                    ("Level 3", f"also on a replica of the store; asked for by {level_3:,} advertisers here"),
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


def _section(title: str, facts: Iterable[tuple[str, str]]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return f"<h2>{escape(title)}</h2><dl>{items}</dl>"


def _number(value: float) -> str:
    return f"{value:g}"
