"""A request's query string, parsed once: which slots, in what format, for which page.

Unknown parameters are ignored and nothing of the query is ever echoed. What the query says of the page and its reader
(`section`, `tag`, `url`, `lang`, `country`, `device`, and the site's own as `key.NAME`) is what line items are targeted
by. `reader` is a key of the site's own for who reads, `ua` their User-Agent when a template asks for them, `consent=1`
that they agreed to be told apart. `at` is an instant to preview. `issue` and `index` say which place of a newsletter
or feed it is for, with `format=email`; other formats do not look at them.
"""

from functools import lru_cache
from urllib.parse import parse_qsl

from msgspec import Struct

from adserver.errors import AdserverError
from adserver.model import Format
from adserver.places import MOST_NUMBER, is_issue, parse_number
from adserver.targeting import UNKNOWN, Context, know

MOST_IDS = 100
_MOST_FIELDS = 256
_FORMATS = {form.value: form for form in Format}


class BadQuery(AdserverError):
    """A query that cannot be answered; *status* is the HTTP status it gets."""

    def __init__(self, detail: str, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


class Query(Struct, frozen=True):
    """What delivery calls take from their query string. *ids* are as asked, without repeats. *issue* is empty where a
    newsletter does not say which it is; *number* is that of a slot's first place in it.
    """

    ids: tuple[str, ...] = ()
    format: Format = Format.HTML
    repair: bool = True
    context: Context = UNKNOWN
    reader: str = ""
    consent: bool = False
    user_agent: str = ""
    at: str = ""
    issue: str = ""
    number: int = 1


PLAIN = Query()


def parse_query(query: bytes) -> Query:
    """Raises BadQuery. The pages of a site ask alike, so what was read is remembered, unless it names a reader."""
    if not query:
        return PLAIN
    return _parse(query) if b"reader" in query or b"%" in query else _parse_and_remember(query)


@lru_cache(1024)
def _parse_and_remember(query: bytes) -> Query:
    return _parse(query)


def _parse(query: bytes) -> Query:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except UnicodeDecodeError:
        raise BadQuery("The query is not percent-encoded UTF-8.") from None
    except ValueError:
        raise BadQuery(f"The query has more than {_MOST_FIELDS} parameters; ask for fewer slots at once.") from None
    ids: dict[str, None] = {}
    form, repair, at = Format.HTML, True, ""
    words: dict[str, str] = {}
    who: dict[str, str] = {}
    place: dict[str, str] = {}
    tags: list[str] = []
    keys: dict[str, list[str]] = {}
    for name, value in pairs:
        match name:
            case "id":
                ids[value] = None
            case "format":
                form = _parse_format(value)
            case "repair":
                repair = value != "0"
            case "section" | "url" | "lang" | "country" | "device":
                words[name] = value
            case "reader" | "ua" | "consent":
                who[name] = value
            case "issue" | "index":
                place[name] = value
            case "tag":
                tags.append(value)
            case "at":
                at = _parse_at(value)
            case _ if name.startswith("key."):
                keys.setdefault(name[4:], []).append(value)
    if len(ids) > MOST_IDS:
        raise BadQuery(f"{len(ids)} ids were asked for; at most {MOST_IDS} are answered in one call.")
    context = know(tags=tags, keys=keys, **words)
    issue, number = _parse_place(place) if form is Format.EMAIL else ("", 1)
    agreed = who.get("consent") == "1"
    return Query(tuple(ids), form, repair, context, who.get("reader", ""), agreed, who.get("ua", ""), at, issue, number)


def _parse_place(said: dict[str, str]) -> tuple[str, int]:
    """The issue, empty where none is said, and the number."""
    issue = said.get("issue")
    if issue is not None and not is_issue(issue):
        raise BadQuery(
            "Parameter 'issue' is no issue's name; write 1 to 40 lowercase letters, digits and hyphens, such as "
            "2026-03-10-evening."
        )
    number = parse_number(said.get("index", "1"))
    if number is None:
        raise BadQuery(f"Parameter 'index' is no place's number; write a number from 1 to {MOST_NUMBER}.")
    return issue or "", number


def _parse_at(value: str) -> str:
    """Which instant it is, `previews` finds out; an empty one is not the live page, which would count."""
    if not value.strip():
        raise BadQuery("Parameter 'at' is empty; write an instant, such as 2026-03-10T09:00, or leave it out.")
    return value


def _parse_format(value: str) -> Format:
    form = _FORMATS.get(value)
    if form is None:
        raise BadQuery(f"Parameter 'format' is none of {', '.join(_FORMATS)}.")
    return form
