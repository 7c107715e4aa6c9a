"""Instants as people write them in a sheet: newsroom time, and an offset only where the clock alone does not tell."""

import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from math import isfinite
from zoneinfo import ZoneInfo

from adserver.fields import shown

_EXPECTED = "expected a date such as 2027-06-30 18:00"
_TIME = (
    r"(?:[T ,]\s*(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<part>[0-9]{1,400}))?)?)?"
)
_OFFSET = r"\s*(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2}(?::[0-9]{2})?)?"
_ISO = re.compile(r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})" + _TIME + _OFFSET, re.ASCII)
_LOCAL = re.compile(
    r"(?P<first>[0-9]{1,2})(?P<mark>[./-])(?P<second_>[0-9]{1,2})(?P=mark)(?P<year>[0-9]{4})" + _TIME, re.ASCII
)
_WORDS = re.compile(
    r"(?:[A-Za-z]{2,9},? +)?(?P<day>[0-9]{1,2})\.? +(?P<name>[A-Za-z]{3,9})\.?,? +(?P<year>[0-9]{4})" + _TIME, re.ASCII
)
"""As the console itself shows them: `Wed 30 Jun 2027 18:00`."""
_NUMBER = re.compile(r"[0-9]{5,7}(?:[.,][0-9]{1,20})?", re.ASCII)
_MONTHS = ("January February March April May June July August September October November December").split()  # noqa: SIM905 - read more easily


def instant_cell(at: float, zone: str) -> datetime | str:
    """*at* as the newsroom's clock shows it; with its offset, as text, where that would not lead back to it."""
    exact = Decimal(repr(at))
    whole = int(exact // 1)
    local = datetime.fromtimestamp(whole, ZoneInfo(zone))
    if not 1970 <= local.year <= 9998:
        local = local.astimezone(UTC)
    naive = local.replace(tzinfo=None)
    if exact == whole and instants(naive, ZoneInfo(zone)) == [whole]:
        return naive.replace(fold=0)
    part = f"{exact - whole:f}"[1:] if exact != whole else ""
    return f"{naive.isoformat(' ', 'seconds')}{part}{local.isoformat()[19:]}"


def instants(naive: datetime, zone: tzinfo) -> list[float]:
    """Every instant at which the clocks show *naive*: none when they skip it, two when it comes twice."""
    found = {naive.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1)}
    return sorted(at for at in found if datetime.fromtimestamp(at, zone).replace(tzinfo=None, fold=0) == naive)


def parse_cell(value: object, zone: str, epoch: datetime) -> float:
    """Unix seconds of a cell: a date, a day number since *epoch*, or text. Raises ValueError with a sentence's rest."""
    if isinstance(value, datetime):
        return _settled(value.replace(tzinfo=None, fold=0), zone)
    if isinstance(value, bool):
        raise ValueError(f"is {value!r}; {_EXPECTED}")
    text = str(value).strip()
    if isinstance(value, int | float) or _NUMBER.fullmatch(text):
        return _settled(_of_days(text, epoch), zone)
    if match := _ISO.fullmatch(text):
        day = _date(int(match["year"]), int(match["month"]), int(match["day"]))
    elif match := _LOCAL.fullmatch(text):
        day = _local_date(match, text)
    elif (match := _WORDS.fullmatch(text)) and (month := _month(match["name"])):
        day = _date(int(match["year"]), month, int(match["day"]))
    else:
        raise ValueError(f"is {shown(text)}; {_EXPECTED}")
    hour, minute, second = (int(match[name] or 0) for name in ("hour", "minute", "second"))
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(f"says {hour}:{minute:02}{f':{second:02}' if second else ''}, which is no time; {_EXPECTED}")
    naive = datetime(day.year, day.month, day.day, hour, minute, second)  # noqa: DTZ001 - the newsroom's clock
    offset = match.groupdict().get("offset")
    whole = naive.replace(tzinfo=_zone_of(offset)).timestamp() if offset else _settled(naive, zone)
    if whole < 0:
        raise ValueError(f"is {shown(text)}; expected a year from 1970 to 9998")
    return float(Decimal(int(whole)) + Decimal(f"0.{match['part'] or 0}"))


def _month(name: str) -> int | None:
    """The month that *name* is, or is short for."""
    return next((n for n, month in enumerate(_MONTHS, 1) if month.lower().startswith(name.lower())), None)


def _of_days(text: str, epoch: datetime) -> datetime:
    try:
        days = float(text.replace(",", "."))
        if not isfinite(days) or not 0 < days < 2_958_465:
            raise ValueError
        return epoch + timedelta(seconds=round(days * 86_400))
    except ValueError:
        raise ValueError(f"is {shown(text)}; {_EXPECTED}") from None


def _date(year: int, month: int, day: int) -> date:
    if not 1970 <= year <= 9998:
        raise ValueError(f"is in the year {year}; expected one from 1970 to 9998")
    if not 1 <= month <= 12:
        raise ValueError(f"has no month {month}; {_EXPECTED}")
    if not 1 <= day <= monthrange(year, month)[1]:
        which = f" {year}" if (month, day) == (2, 29) else ""
        raise ValueError(f"{day} {_MONTHS[month - 1]}{which} does not exist; {_EXPECTED}")
    return date(year, month, day)


def _local_date(match: re.Match[str], text: str) -> date:
    first, second, year = int(match["first"]), int(match["second_"]), int(match["year"])
    if match["mark"] == "." or first == second or first > 12:
        return _date(year, second, first)
    if second > 12:
        return _date(year, first, second)
    raise ValueError(
        f"is {shown(text)}, which may be {first} {_MONTHS[second - 1]} or {second} {_MONTHS[first - 1]}; write "
        f"{year}-{second:02}-{first:02} or {year}-{first:02}-{second:02}"
    )


def _zone_of(offset: str) -> tzinfo:
    if offset == "Z":
        return UTC
    digits = offset[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:])
    if hours > 23 or minutes > 59 or seconds > 59:
        raise ValueError(f"has the offset {offset}, which is none; expected one such as +02:00")
    away = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return timezone(away if offset[0] == "+" else -away)


def _settled(naive: datetime, zone: str) -> float:
    if not 1970 <= naive.year <= 9998:
        raise ValueError(f"is in the year {naive.year}; expected one from 1970 to 9998")
    naive = naive.replace(microsecond=0) + timedelta(seconds=round(naive.microsecond / 1e6))
    found = instants(naive, ZoneInfo(zone))
    said = naive.isoformat(" ", "seconds" if naive.second else "minutes")
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"is {said}, which the clocks skip that night in {zone}; choose another time")
    ways = [datetime.fromtimestamp(at, ZoneInfo(zone)).isoformat(" ")[-6:] for at in found]
    raise ValueError(f"is {said}, which comes twice that night in {zone}; write {said}{ways[0]} or {said}{ways[1]}")
