"""When a day closes, whom that waits for, and which records may go afterwards. Every rule is told what time it is.

A day is open until its end, plus a token's lifetime, plus some hours. It closes when every producer that may hold
records of it is known to have them all counted. An open day's records are never deleted.
"""

import re
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from adserver.days import Days
from adserver.token import LIFETIME_S

_NAME = re.compile(r"[0-9a-f]{16}", re.ASCII)


class Rules(Struct, frozen=True, kw_only=True):
    """How long things stay, in seconds. The defaults are those of the settings."""

    seal_after_s: float = 20 * 3600.0
    seal_wait_s: float = 3 * 86400.0
    keep_journal_s: float = 48 * 3600.0
    quarantine_s: float = 30 * 86400.0
    keep_counts_s: float = 400 * 86400.0


class Producer(Struct, kw_only=True):
    """What the holder of a journal tells everybody else of it, in the store.

    *boot* and *at* are Unix seconds: when its writer started, and when *ends* was read from the files. *ends* has the
    number of the last record of each day. *closed* is the last number of all, once nobody will append. *lost* is set
    when a day was closed without it; it is not waited for again until its holder speaks.
    """

    host: str
    volume: str
    boot: float
    at: float = 0.0
    ends: dict[int, int] = {}
    closed: int | None = None
    lost: bool = False


def parse_producers(texts: Mapping[str, str]) -> dict[str, Producer]:
    """The registry as it was read from the store; what is not ours in it is passed over."""
    found: dict[str, Producer] = {}
    for name, text in texts.items():
        if _NAME.fullmatch(name):
            try:
                found[name] = msgspec.json.decode(text, type=Producer)
            except msgspec.DecodeError:
                continue
    return found


class Due(Struct, frozen=True):
    """The day may close once the store's cursors stand at *ends*; *missing* producers are given up."""

    ends: dict[str, int]
    missing: list[str]


class Open(Struct, frozen=True):
    """The day stays open; *missing* are the producers it waits for (none: it is not over)."""

    missing: list[str]


def closes_at(days: Days, day: int, rules: Rules) -> float:
    """The Unix second from which *day* may be closed."""
    return days.start(day + 1) + LIFETIME_S + rules.seal_after_s


def given_up_at(days: Days, day: int, rules: Rules) -> float:
    """The Unix second from which *day* is closed without those who are still missing."""
    return closes_at(days, day, rules) + rules.seal_wait_s


def last_to_close(days: Days, now: float, rules: Rules) -> int:
    """The newest day that may be closed at *now*."""
    day = days.locate(now)[0]
    while closes_at(days, day, rules) > now:
        day -= 1
    return day


def judge(day: int, days: Days, now: float, producers: Mapping[str, Producer], rules: Rules) -> Due | Open:
    """Whether *day* may be closed, as far as the registered producers are concerned."""
    closing = closes_at(days, day, rules)
    if now < closing:
        return Open([])
    missing = sorted(name for name, one in producers.items() if _is_missing(one, day, closing))
    if missing and now < given_up_at(days, day, rules):
        return Open(missing)
    ends = {name: one.ends[day] for name, one in producers.items() if day in one.ends and name not in missing}
    return Due(ends, missing)


def _is_missing(one: Producer, day: int, closing: float) -> bool:
    """Whether it may hold records of a day closing at *closing* that nobody has told of since."""
    told = one.closed is not None or one.at >= closing
    never_began = one.boot >= closing and day not in one.ends
    return not (told or never_began or one.lost)


class Held(Struct, frozen=True):
    """A segment of a journal: its first and last numbers, the last number of each day in it, its newest instant.

    *whole* says that every record it should have was read: nothing damaged hides one.
    """

    first: int
    last: int
    ends: dict[int, int]
    newest: float
    whole: bool


def may_go(segment: Held, archived: Mapping[int, int], now: float, rules: Rules) -> bool:
    """Whether *segment* may be deleted. *archived* says per closed day how far the archive holds its producer."""
    kept_elsewhere = all(archived.get(day, -1) >= end for day, end in segment.ends.items())
    return segment.whole and bool(segment.ends) and kept_elsewhere and now - segment.newest >= rules.keep_journal_s


def is_overdue(newest: float, now: float, rules: Rules) -> bool:
    """Whether records whose newest is from *newest* are too old to be counted by themselves when they turn up."""
    return now - newest > rules.quarantine_s


def is_kept(day: int, days: Days, now: float, rules: Rules) -> bool:
    """Whether the store still keeps *day*'s totals."""
    return now < days.start(day + 1) + rules.keep_counts_s
