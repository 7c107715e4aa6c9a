"""The newsroom's days: which day and hour an instant belongs to, through daylight-saving changes.

A day is numbered in days since 1970-01-01. An hour is the number of whole hours since that day's local
midnight, 0 to 24: a day of 25 hours has no two alike, and a day of 23 has no gap.
"""

from datetime import UTC, date, datetime, timedelta
from math import floor
from zoneinfo import ZoneInfo

_EPOCH = date(1970, 1, 1)


class Days:
    """The calendar of one time zone. Remembers the days it was asked about lately."""

    def __init__(self, zone: str) -> None:
        self.zone = zone
        self._tz = ZoneInfo(zone)
        self._starts: dict[int, float] = {}
        self._day, self._from, self._until = -1, 0.0, 0.0

    def locate(self, at: float) -> tuple[int, int]:
        """The day and hour that hold *at* (Unix seconds)."""
        if not self._from <= at < self._until:
            # whole seconds: fromtimestamp rounds the last half microsecond of a day into the next
            self._day = self.number(datetime.fromtimestamp(floor(at), self._tz).date())
            self._from, self._until = self.start(self._day), self.start(self._day + 1)
        return self._day, int(at - self._from) // 3600

    def start(self, day: int) -> float:
        """The Unix second at which *day* begins here."""
        start = self._starts.get(day)
        if start is None:
            on = self.date(day)
            start = datetime(on.year, on.month, on.day, tzinfo=self._tz).timestamp()
            if len(self._starts) > 64:
                self._starts.clear()
            self._starts[day] = start
        return start

    def hour_of(self, day: int, at: float) -> int:
        """The hour of *day* that holds *at*; kept within the day where *at* lies a little outside."""
        return min(24, max(0, int(at - self.start(day)) // 3600))

    def describe(self, day: int, hour: int) -> str:
        """That hour's first instant, in ISO form with the offset then in force."""
        at = datetime.fromtimestamp(self.start(day) + hour * 3600, UTC).astimezone(self._tz)
        return at.isoformat(timespec="minutes")

    @staticmethod
    def number(on: date) -> int:
        return (on - _EPOCH).days

    @staticmethod
    def date(day: int) -> date:
        return _EPOCH + timedelta(days=day)
