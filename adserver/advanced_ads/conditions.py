"""What Advanced Ads asks of a page or a reader before it shows an ad, as targeting, where both mean the same.

Rows are joined by `and`, or by `or` to the row before. What cannot be said exactly is not said at all: an ad whose
conditions are lost would show where it must not, so its booking is moved with weight 0, which never shows.
"""

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

from adserver.advanced_ads.kept import Condition
from adserver.fields import parse_country, parse_url_beginning
from adserver.model import DEVICES

Terms = dict[str, list[str]]
Clause = tuple[str, list[str], bool]
"""A kind of fact, its values, and whether it is these that are excluded."""


_WORDS = {
    "general": "the kind of page",
    "posttypes": "post types",
    "postids": "single posts",
    "post_age": "the age of the post",
    "post_content": "words in the post",
    "post_meta": "post fields",
    "author": "authors",
    "archive": "archives",
    "taxonomy_category": "categories",
    "taxonomy_post_tag": "tags",
    "content_age": "the age of the content",
    "page_template": "page templates",
    "paginated_post": "pages of a long post",
    "language": "the language",
    "request_uri": "the address",
    "geo_targeting": "the country or place",
    "mobile": "the device",
    "tablet": "tablets",
    "loggedin": "signed-in readers",
    "capability": "readers' roles",
    "referrer_url": "where the reader comes from",
    "browser_lang": "the browser's language",
    "user_agent": "the browser",
    "browser_width": "the window's width",
    "device_width": "the screen's width",
    "cookie": "a cookie",
    "page_impressions": "how many pages were read",
    "ad_impressions": "how often it was seen",
    "new_visitor": "new readers",
    "adblocker": "ad blockers",
    "bp_profile_field": "BuddyPress profiles",
}


class NoEqual(ValueError):
    """The conditions cannot be said as targeting; the text names them."""


def targeting_of(conditions: Iterable[Condition]) -> dict[str, Terms]:
    """The targeting table, empty where nothing is asked. Raises NoEqual."""
    rows = list(conditions)
    clauses, unknown = [], []
    for row in rows:
        clause = _clause(row)
        if clause is None:
            unknown.append(_say(row))
        elif clause[1]:
            clauses.append(clause)
    if unknown:
        raise NoEqual(", ".join(unknown))
    if any(row.either for row in rows[1:]):
        return _either(rows, clauses)
    return _all(rows, clauses)


def _either(rows: list[Condition], clauses: list[Clause]) -> dict[str, Terms]:
    """One of them is enough. That can be said where all are joined so and none is a `not`."""
    if len(clauses) < len(rows) or not all(row.either for row in rows[1:]) or any(excluded for *_, excluded in clauses):
        raise NoEqual(", ".join(map(_say, rows)) + ", joined by 'or'")
    found: Terms = {}
    for kind, values, _ in clauses:
        found[kind] = list(dict.fromkeys(found.get(kind, []) + values))
    return {"any": found}


def _all(rows: list[Condition], clauses: list[Clause]) -> dict[str, Terms]:
    """Everything must hold: a single choice in `any`, what is one value in `all`, what is excluded in `none`."""
    found: dict[str, Terms] = {}
    for kind, values, excluded in clauses:
        table = "none" if excluded else "all" if len(values) == 1 else "any"
        terms = found.setdefault(table, {})
        if table == "any" and terms:  # values of two kinds in `any` would be alternatives
            raise NoEqual(", ".join(map(_say, rows)))
        terms[kind] = list(dict.fromkeys(terms.get(kind, []) + values))
    return found


def _clause(row: Condition) -> Clause | None:
    match row.type:
        case "mobile" | "tablet":
            return _device(row)
        case "geo_targeting":
            return _country(row)
        case "request_uri":
            return _address(row)
    return None


def _device(row: Condition) -> Clause | None:
    """Version 2 lists devices; before, `is` meant phones and tablets alike."""
    values = row.value.values() if isinstance(row.value, dict) else row.value
    if isinstance(values, str) or not isinstance(values, Iterable):
        known = ["tablet"] if row.type == "tablet" else ["mobile", "tablet"]
    else:
        known = [one for one in DEVICES if one in list(values)]
    wanted = [one for one in DEVICES if (one in known) != row.is_not]
    if not wanted:
        return None
    return "device", [] if len(wanted) == len(DEVICES) else wanted, False


def _country(row: Condition) -> Clause | None:
    """Countries alone: regions, cities and distances are not known here."""
    country = row.rest.get("country", row.value)
    others = [
        value for key, value in row.rest.items() if key not in ("country", "operator") and value not in ("", None)
    ]
    if others and others != ["classic"]:
        return None
    try:
        code = parse_country(str(country))
    except ValueError:
        return None
    return ("country", [code], row.is_not) if code in _countries() else None


@cache
def _countries() -> frozenset[str]:
    """ISO 3166 as it comes with tzdata, and Kosovo as everybody writes it. `uk` and `eu` are none, and match nobody."""
    lines = files("tzdata").joinpath("zoneinfo/iso3166.tab").read_text("utf-8").splitlines()
    return frozenset(line[:2].lower() for line in lines if not line.startswith("#")) | {"xk"}


def _address(row: Condition) -> Clause | None:
    """Addresses that begin so."""
    operator = str(row.rest.get("operator", ""))
    if operator not in ("start", "start_not") or not isinstance(row.value, str):
        return None
    try:
        return "url", [parse_url_beginning(row.value.strip())], operator == "start_not"
    except ValueError:
        return None


def _say(row: Condition) -> str:
    values: Any = row.value
    if isinstance(values, dict):
        values = list(values.values())
    words = ", ".join(map(str, values)) if isinstance(values, list) else "" if values is None else str(values)
    operator = str(row.rest.get("operator") or "is").replace("_", " ")
    return f"{_WORDS.get(row.type, row.type)} {operator} {words}".strip()[:120]
