"""Field values as people write them, parsed once: ids, sizes, URLs, instants and words.

Each `parse_` function takes what TOML gave and returns a good value or raises ValueError with the rest of
the sentence "field so-and-so …". Nothing here guesses: what is not clearly right is refused.
"""

import re
import unicodedata
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from urllib.parse import urlsplit, urlunsplit

from adserver import hours
from adserver.model import DEVICES, Cap, Goal, Measure, Size, SlotId

_WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_SIZE = re.compile(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", re.ASCII)
_HOST = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAX_SLOT_ID = 2**32 - 1
_MAX_URL = 2000
_MAX_WEIGHT = 1e6
_MAX_TERM = 100
_MAX_GOAL = 10**12
_MEASURES = {measure.value: measure for measure in Measure}
_CAP = re.compile(r"([1-9][0-9]{0,3}) (?:per|in) (?:([1-9][0-9]{0,2}) )?(minute|hour|day|week)s?", re.ASCII)
CAP_UNITS_S = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
_LONGEST_CAP_S = 31 * 86_400

# Marks that change how neighbouring text reads without being seen (Unicode Bidi_Control), and what is not seen at all:
# blanks of no width, invisible operators, fillers of scripts not there, and tag characters.
_BIDI = dict.fromkeys([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
_NO_WIDTH = [0x00AD, 0x034F, 0x180E, *range(0x200B, 0x200E), *range(0x2060, 0x2065), *range(0x206A, 0x2070), 0xFEFF]
_FILLERS = [0x115F, 0x1160, 0x2800, 0x3164, 0xFFA0, *range(0xE0000, 0xE0080)]
_UNSEEN = {**_BIDI, **dict.fromkeys(_NO_WIDTH), **dict.fromkeys(_FILLERS)}
_BREAKS = ("Cc", "Zl", "Zp")


def shown(value: object) -> str:
    """*value* as a sentence quotes it: cut, and never an error itself."""
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python spells no whole number of more than 4,300 digits
        return "a number of thousands of digits"


def parse_slot_number(value: object) -> SlotId:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAX_SLOT_ID:
        raise ValueError(f"is {shown(value)}; expected a whole number above 0, such as 889990")
    return SlotId(value)


def parse_word(value: object) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError(
            f"is {shown(value)}; expected a lowercase word of letters, digits, '-' and '_' (at most 64), "
            "such as 'spring-sale'"
        )
    return value


def parse_name(value: object) -> str:
    """A name people compare by eye: NFC, trimmed, nothing unseen in it."""
    text = _parse_text(value, 200)
    if not text:
        raise ValueError("is empty; expected a name")
    if text != text.translate(_UNSEEN):
        raise ValueError(f"{text!r:.80} holds invisible characters; type the name again")
    if _mixes_scripts(text):
        raise ValueError(f"{text!r:.80} mixes Latin with look-alike letters of another script; type the name again")
    return text


def parse_prose(value: object) -> str:
    """Words for a reader, at most 2,000 characters: NFC, trimmed, without marks that turn the reading direction."""
    return _parse_text(value, 2000).translate(_BIDI).strip()


def read_digits(text: str, longest: int = 15) -> int | None:
    """The number that at most so many plain digits spell; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= longest else None


def read_grouped(text: str) -> int | None:
    """A whole number as people write it, thousands apart or not: `100,000`; None for anything else."""
    grouped = re.fullmatch(r"[0-9]{1,3}(?:[., '\u00a0\u202f_][0-9]{3})+|[0-9]{1,15}", text)
    return int(re.sub("[^0-9]", "", text)) if grouped else None


def parse_markup(value: object) -> str:
    """HTML as bought, at most 64 kB; it is sanitised or boxed when rendered."""
    if not isinstance(value, str) or len(value) > 65536 or "\0" in value:
        raise ValueError("is no HTML text of at most 65,536 characters without NUL")
    _refuse_surrogates(value)
    return value


def _parse_text(value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is {shown(value)}; expected text in quotes")
    _refuse_surrogates(value)
    text = unicodedata.normalize("NFC", value).strip()
    if len(text) > longest:
        raise ValueError(f"has {len(text):,} characters; at most {longest:,} are allowed")
    if any(unicodedata.category(char) in _BREAKS for char in text):
        raise ValueError(f"{text!r:.80} holds a control character or line break; take it out")
    return text


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode text") from None


def _mixes_scripts(text: str) -> bool:
    """True when one word holds Latin and Cyrillic or Greek letters, as a look-alike name does."""
    for word in text.split():
        scripts = {unicodedata.name(char, "").split(" ")[0] for char in word if char.isalpha()}
        if "LATIN" in scripts and scripts & {"CYRILLIC", "GREEK"}:
            return True
    return False


def parse_size(value: object) -> Size:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"is {shown(value)}; expected width x height in pixels, such as '300x250'")
    return int(match[1]), int(match[2])


def parse_weight(value: object) -> float:
    """Zero is allowed: such a choice is never made."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_WEIGHT:
        raise ValueError(f"is {shown(value)}; expected a number from 0 to {_MAX_WEIGHT:,.0f}")
    return float(value)


def parse_share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise ValueError(f"is {shown(value)}; expected a percentage above 0 and at most 100")
    return float(value)


def parse_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"is {shown(value)}; expected true or false")
    return value


def parse_seconds(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 30 <= value <= 86400:
        raise ValueError(f"is {shown(value)}; expected whole seconds from 30 to 86400")
    return value


def parse_hours(value: object) -> str:
    """A window of the week: see `hours.parse_window`."""
    if not isinstance(value, str):
        raise ValueError(f"is {shown(value)}; expected days and times such as 'mon-fri 06:00-22:00'")
    text = " ".join(value.lower().split())
    hours.parse_window(text)
    return text


def parse_goal(value: object) -> Goal:
    """`{ impressions = 100_000 }`, and `per = "day"` where it holds for each day."""
    expected = "expected such as { impressions = 100_000 } or { clicks = 50, per = 'day' }"
    if not isinstance(value, dict):
        raise ValueError(f"is {shown(value)}; {expected}")
    rest = {name: given for name, given in value.items() if name != "per"}
    if len(rest) != 1 or rest.keys() - _MEASURES.keys():
        raise ValueError(f"is {shown(value)}; {expected}: one of {', '.join(_MEASURES)}")
    [(measure, n)] = rest.items()
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _MAX_GOAL:
        raise ValueError(f"has {measure} {shown(n)}; expected a whole number from 1 to {_MAX_GOAL:,}")
    per = value.get("per", "flight")
    if per not in ("flight", "day"):
        raise ValueError(f"has per {shown(per)}; expected 'flight' or 'day'")
    return Goal(n, _MEASURES[measure], per == "day")


def parse_cap(value: object) -> Cap:
    """`3 per day`, `1 per 6 hours`: a window that ends with each view and is so long."""
    match = _CAP.fullmatch(" ".join(value.lower().split())) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"is {shown(value)}; expected a cap such as '3 per day' or '1 per 6 hours'")
    within_s = int(match[2] or 1) * CAP_UNITS_S[match[3]]
    if within_s > _LONGEST_CAP_S:
        raise ValueError(f"is {shown(value)}; a cap looks back {_LONGEST_CAP_S // 86_400} days at most")
    return Cap(int(match[1]), within_s)


def say_cap(cap: Cap) -> str:
    """`3 per day`, `1 per 6 hours`: what `parse_cap` reads."""
    unit, seconds = next((unit, s) for unit, s in reversed(CAP_UNITS_S.items()) if cap.within_s % s == 0)
    n = cap.within_s // seconds
    return f"{cap.most} per {unit}" if n == 1 else f"{cap.most} per {n} {unit}s"


def parse_term(value: object) -> str:
    """A section, a tag or another word of the site's own, compared without regard to case."""
    text = parse_name(value)
    if len(text) > _MAX_TERM:
        raise ValueError(f"{text!r:.80} has {len(text)} characters; at most {_MAX_TERM} are allowed")
    return text.lower()


def parse_url_beginning(value: object) -> str:
    """How an address begins: with its path, or with its scheme and host."""
    if not isinstance(value, str) or not re.fullmatch(r"(?:https?://[!-~]|/)[!-~]{0,499}", value):
        raise ValueError(
            f"is {shown(value)}; expected the beginning of an address, such as '/sport/' or "
            "'https://example.org/sport/', with other letters percent-encoded"
        )
    if "?" in value or "#" in value:
        raise ValueError(f"is {shown(value)}; what follows a '?' or '#' is never looked at, it may name a reader")
    return value


def parse_language(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z]{2,3}(?:-[a-z0-9]{2,8})*", value.lower()):
        raise ValueError(f"is {shown(value)}; expected a language, such as 'de' or 'de-at'")
    return value.lower()


def parse_country(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z]{2}", value.lower()):
        raise ValueError(f"is {shown(value)}; expected a country of two letters (ISO 3166), such as 'nl'")
    return value.lower()


def parse_device(value: object) -> str:
    if value not in DEVICES:
        raise ValueError(f"is {shown(value)}; expected one of {', '.join(map(repr, DEVICES))}")
    return str(value)


def parse_instant(value: object) -> float:
    """Unix seconds of a TOML date-time. One without an offset is refused: it would mean another hour elsewhere."""
    if not isinstance(value, datetime):
        raise ValueError(
            f"is {shown(value)}; expected a date and time with an offset, such as 2026-03-01T00:00:00+01:00"
        )
    if value.tzinfo is None:
        raise ValueError(f"is {value.isoformat()}, which has no offset; write for example {value.isoformat()}+01:00")
    if not 1970 <= value.year <= 9998:  # with room for any offset at both ends of what a calendar can say
        raise ValueError(f"is {value.isoformat()}; expected a year from 1970 to 9998")
    return value.timestamp()


def parse_zone(value: object) -> str:
    """A name of the IANA list, as it stands there: what else a machine knows (`localtime`) differs on another."""
    if not isinstance(value, str) or value not in _zones():
        near = _zone_like(value) if isinstance(value, str) and len(value) <= _MAX_TERM else None
        hint = f"; did you mean {near!r}?" if near else ""
        raise ValueError(f"is {shown(value)}; expected the name of a time zone, such as 'Europe/Amsterdam'{hint}")
    return value


@cache
def _zones() -> frozenset[str]:
    """The list that comes with tzdata, so that every machine has the same. `Factory` says that no zone was set."""
    return frozenset(files("tzdata").joinpath("zones").read_text("utf-8").split()) - {"Factory"}


def _zone_like(text: str) -> str | None:
    """The zone whose name, or whose city, that is but for its spelling; else the nearest."""
    wanted = "_".join(text.casefold().split())
    names = {name.casefold(): name for name in sorted(_zones())}
    cities = {name.rpartition("/")[2]: name for name in reversed(names)}
    close = [wanted] if wanted in names else [cities[wanted]] if wanted in cities else None
    found = close or get_close_matches(wanted, names, n=1)
    return names[found[0]] if found else None


def parse_click_url(value: object) -> str:
    """Where a click leads: http, https, mailto or tel."""
    if isinstance(value, str) and re.fullmatch(r"(?:mailto|tel):[A-Za-z0-9.@+_?=&%,-]{1,200}", value):
        return value
    return parse_url(value)


def parse_url(value: object) -> str:
    """An absolute http(s) URL, exactly as it will be sent.

    The raw text is looked at before any parser sees it, because urlsplit drops tabs, line breaks and leading
    control characters first and would let "java\\tscript:" through.
    """
    if not isinstance(value, str):
        raise ValueError(f"is {shown(value)}; expected a URL in quotes")
    if len(value) > _MAX_URL:
        raise ValueError(f"has {len(value):,} characters; at most {_MAX_URL:,} are allowed")
    quoted = shown(value)
    if not all(33 <= ord(char) <= 126 for char in value):
        raise ValueError(
            f"{quoted} holds a blank, a control character or a letter outside ASCII; "
            "write them percent-encoded, and a host name in its xn-- form"
        )
    if not value.startswith(("https://", "http://")):
        raise ValueError(f"{quoted} is not a web address; expected it to start with https://")
    if re.search(r'[\\"<>`{}|^]', value):
        raise ValueError(f"{quoted} holds a character that may not stand in a URL; write it percent-encoded")
    _check_authority(value, quoted)
    return value


def _check_authority(value: str, quoted: str) -> None:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{quoted} cannot be read as a URL ({error})") from None
    host = parts.hostname or ""
    if "@" in parts.netloc:
        raise ValueError(f"{quoted} names a user before the host; take the part before '@' out")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{quoted} has no proper host name")
    if port == 0:
        raise ValueError(f"{quoted} names port 0; expected 1 to 65535")
    again = urlunsplit(parts)
    if value.rstrip("?#") != again.rstrip("?#"):
        raise ValueError(f"{quoted} reads back as {again!r:.80}; write it in that form")
