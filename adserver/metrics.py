"""Every Prometheus metric, declared once, in glossary words.

With several workers each keeps its numbers in files of PROMETHEUS_MULTIPROC_DIR, and whichever worker is scraped adds
them all up; a dead worker's counts stay. The variable must be set before this module is imported: `serve` does.

Labels come from the configuration or from closed lists, never from a request. The hot path does not touch a metric
(1.6 µs each): it counts in a `Meter`, which hands everything over 20 times a second.
"""

import asyncio
import os
from collections.abc import Iterable
from itertools import islice

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from adserver import events, token
from adserver.model import NoFill
from adserver.repair import KINDS

REGISTRY = CollectorRegistry()
_STARTED_SLOTS = 100
"""Making a series takes some 30 µs of the event loop: those of further slots begin with their first event."""

REQUESTS = Counter("adserver_requests", "Times a page asked for a slot.", ["slot"], registry=REGISTRY)
SERVED = Counter("adserver_served", "Snippets that left for a page.", ["slot"], registry=REGISTRY)
LOADS = Counter("adserver_loads", "Pictures of newsletters that were fetched.", registry=REGISTRY)
UNFILLED = Counter("adserver_unfilled", "Requests answered with no ad, by reason.", ["reason"], registry=REGISTRY)
EVENTS = Counter(
    "adserver_events", "Valid events acknowledged: impression, viewable, click.", ["type"], registry=REGISTRY
)
SUSPECT = Counter(
    "adserver_events_suspect", "Valid events that look automated; they are counted.", ["type"], registry=REGISTRY
)
INVALID = Counter(
    "adserver_events_invalid",
    "Genuine events filed beside the count, by reason.",
    ["type", "reason"],
    registry=REGISTRY,
)
REJECTED = Counter(
    "adserver_events_rejected",
    "Events not counted because of their token, by reason.",
    ["reason"],
    registry=REGISTRY,
)
DEGRADED = Counter(
    "adserver_ack_degraded", "Events answered at a lower level than they were to reach.", ["type"], registry=REGISTRY
)
REFUSED_EVENTS = Counter(
    "adserver_events_refused", "Events answered 503 because they could not be made safe in time.", registry=REGISTRY
)
DIRECT = Counter(
    "adserver_events_direct", "Events counted straight in the store while the journal took none.", registry=REGISTRY
)
UNCOUNTED = Counter(
    "adserver_served_uncounted", "Snippets, and clicks, answered while nothing could count them.", registry=REGISTRY
)
REPAIRS = Counter("adserver_repairs", "Shortcodes mended in articles, by kind.", ["kind"], registry=REGISTRY)
RESPONSES = Counter("adserver_http_responses", "Answers by route and status.", ["route", "status"], registry=REGISTRY)
HTTP_REFUSED = Counter(
    "adserver_http_refused", "Requests refused before they were understood, by reason.", ["reason"], registry=REGISTRY
)
JOURNAL_WRITTEN = Counter("adserver_journal_written", "Records stored in journals.", registry=REGISTRY)
JOURNAL_SYNCED = Counter("adserver_journal_synced", "Journal records made safe on disk.", registry=REGISTRY)
SYNC_SECONDS = Histogram(
    "adserver_journal_sync_seconds",
    "Time one sync of the journal took.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
    registry=REGISTRY,
)
SHIPPED = Counter("adserver_shipped", "Journal records the store has counted.", registry=REGISTRY)
BATCHES = Counter("adserver_ship_batches", "Batches the store has applied.", registry=REGISTRY)
REPEATS = Counter("adserver_ship_repeats", "Token events the store had counted before.", registry=REGISTRY)
SHIP_ERRORS = Counter("adserver_ship_errors", "Times shipping had to start over.", registry=REGISTRY)
LATE = Counter("adserver_ship_late", "Journal records of days already closed, counted beside them.", registry=REGISTRY)
CORRUPT = Counter(
    "adserver_journal_corrupt", "Segments with a hole, set aside from it on for a person.", registry=REGISTRY
)
QUARANTINED = Counter(
    "adserver_journal_quarantined", "Segments too old to be counted by themselves, set aside.", registry=REGISTRY
)
JOURNALS_SET_ASIDE = Gauge(
    "adserver_journals_set_aside",
    "Journals here with segments that wait for a person: damaged or too old.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
DAYS_SET_ASIDE = Gauge(
    "adserver_partitions_set_aside",
    "Days whose events wait because the store or the archive has them in a way that must not be touched.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
DISK_FREE = Gauge(
    "adserver_journal_disk_free_bytes",
    "Free room on the journals' volume.",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
SEGMENTS_DELETED = Counter(
    "adserver_journal_segments_deleted", "Segments deleted once all their days were archived.", registry=REGISTRY
)
CLOSINGS = Counter("adserver_closings", "Days sealed and written to the archive.", registry=REGISTRY)
CLOSING_BLOCKED = Gauge(
    "adserver_closing_blocked",
    "Days that are over and cannot be closed yet.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
ADOPTED = Counter("adserver_journals_adopted", "Journals of dead workers taken over.", registry=REGISTRY)
WAITING = Gauge(
    "adserver_events_waiting",
    "Synced events the store has not counted yet.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
STORE_UP = Gauge(
    "adserver_store_up", "1 while every worker reaches the store.", multiprocess_mode="livemin", registry=REGISTRY
)
INVARIANTS = Gauge(
    "adserver_invariant_violations",
    "Slots where a figure of today exceeds the one it comes from; workers counted beyond what they wrote.",
    ["invariant"],
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
CATALOG_VERSION = Gauge(
    "adserver_catalog_version",
    "Lowest catalog version any worker serves.",
    multiprocess_mode="livemin",
    registry=REGISTRY,
)
CATALOG_VERSION_HIGHEST = Gauge(
    "adserver_catalog_version_highest",
    "Highest catalog version any worker serves.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
CLOCK_JUMP = Gauge(
    "adserver_clock_jump_seconds",
    "How far a worker's wall clock jumped either way and still is; 0 is well.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
RECEIPTS = Counter("adserver_receipts", "Decisions whose receipts were kept.", registry=REGISTRY)
RECEIPTS_DROPPED = Counter(
    "adserver_receipts_dropped",
    "Files of receipts deleted for want of room, before they were as old as they should become.",
    registry=REGISTRY,
)
CAPS_UNKNOWN = Counter(
    "adserver_caps_unknown",
    "Pages decided without their capped line items because the store did not say in time what the reader has seen.",
    registry=REGISTRY,
)
CAPS_LOST = Counter("adserver_caps_lost", "Pages whose capped ads the store could not be told of.", registry=REGISTRY)
PLACES_UNKNOWN = Counter(
    "adserver_places_unknown",
    "Times the store did not say in time, or at all, which ad a place in a newsletter has.",
    registry=REGISTRY,
)
GOALS_BEHIND = Gauge(
    "adserver_goals_behind",
    "Line items that the traffic expected is too small for: they will miss their goals.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
LAG_SECONDS = Gauge(
    "adserver_lag_seconds",
    "Age of the oldest synced event that the store has not counted.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
RELOAD_FAILURES = Counter(
    "adserver_config_reload_failures", "Configurations that did not go live, by cause.", ["cause"], registry=REGISTRY
)

ROUTES = ("ad", "ads", "render", "impression", "measured", "viewable", "click", "letter", "other")
STATUSES = (200, 204, 302, 400, 403, 404, 405, 413, 415, 500, 503)
EVENT_TYPES = {
    events.Type.IMPRESSION: "impression",
    events.Type.MEASURED: "measured",
    events.Type.VIEWABLE: "viewable",
    events.Type.CLICK: "click",
}
DUPLICATE = "duplicate"
HAND_OVER_S = 0.05


def start_at_zero(slots: Iterable[int]) -> None:
    """Make every series exist, so that a rate over it is right from the first event on; of the first slots only."""
    for slot in islice(slots, _STARTED_SLOTS):
        REQUESTS.labels(str(slot))
        SERVED.labels(str(slot))
    for reason in NoFill:
        UNFILLED.labels(reason.value)
    for type_ in EVENT_TYPES.values():
        EVENTS.labels(type_)
        SUSPECT.labels(type_)
        DEGRADED.labels(type_)
        for why in events.REASONS:
            INVALID.labels(type_, why)
    for why in (*token.REASONS, DUPLICATE):
        REJECTED.labels(why)
    for kind in KINDS:
        REPAIRS.labels(kind)
    for route in ROUTES:
        for status in STATUSES:
            RESPONSES.labels(route, str(status))
    for cause in ("problems", "conflict", "store", "addresses"):
        RELOAD_FAILURES.labels(cause)


def exposition() -> bytes:
    """All workers' metrics in Prometheus' text format."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


class Progress:
    """How far one journal is written and synced, told to the metrics at each sync and not at each record."""

    __slots__ = ("_synced", "_written")

    def __init__(self) -> None:
        self._written = self._synced = 0

    def tell(self, written: int, synced: int) -> None:
        JOURNAL_WRITTEN.inc(written - self._written)
        JOURNAL_SYNCED.inc(synced - self._synced)
        self._written, self._synced = written, synced


class Both:
    """Two counters that grow together."""

    __slots__ = ("_one", "_other")

    def __init__(self, one: Counter, other: Counter) -> None:
        self._one = one
        self._other = other

    def inc(self, n: float) -> None:
        self._one.inc(n)
        self._other.inc(n)


class Meter:
    """Counts on the hot path; hands over to the metrics 20 times a second, and before they are read."""

    __slots__ = ("_counts", "_due")

    def __init__(self) -> None:
        self._counts: dict[Counter | Both, int] = {}
        self._due = False

    def add(self, counter: Counter | Both, n: int = 1) -> None:
        self._counts[counter] = self._counts.get(counter, 0) + n
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(HAND_OVER_S, self.flush)

    def flush(self) -> None:
        self._due = False
        counts, self._counts = self._counts, {}
        for counter, n in counts.items():
            counter.inc(n)
