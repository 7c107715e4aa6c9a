"""A request's query string, parsed once: which slots, in what format, for which page.

Unknown parameters are ignored and nothing of the query is ever echoed. What the query says of the page and its reader
(`section`, `tag`, `url`, `lang`, `country`, `device`, and the site's own as `key.NAME`) is what line items are targeted
by. `reader` is a key of the site's own for who reads, `ua` their User-Agent when a template asks for them, `consent=1`
that they agreed to be told apart. `at` is an instant to preview.
"""

from functools import lru_cache
from urllib.parse import parse_qsl

from msgspec import Struct

from adserver.errors import AdserverError
from adserver.model import Format
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
    """What delivery calls take from their query string. *ids* are as asked, without repeats."""

    ids: tuple[str, ...] = ()
    format: Format = Format.HTML
    repair: bool = True
    context: Context = UNKNOWN
    reader: str = ""
    consent: bool = False
    user_agent: str = ""
    at: str = ""


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
            case "tag":
                tags.append(value)
            case "at":
                at = value
            case _ if name.startswith("key."):
                keys.setdefault(name[4:], []).append(value)
    if len(ids) > MOST_IDS:
        raise BadQuery(f"{len(ids)} ids were asked for; at most {MOST_IDS} are answered in one call.")
    context = know(tags=tags, keys=keys, **words)
    return Query(
        tuple(ids), form, repair, context, who.get("reader", ""), who.get("consent") == "1", who.get("ua", ""), at
    )


def _parse_format(value: str) -> Format:
    form = _FORMATS.get(value)
    if form is None:
        raise BadQuery(f"Parameter 'format' is none of {', '.join(_FORMATS)}.")
    return form
