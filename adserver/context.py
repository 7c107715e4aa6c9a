"""A request's query string, parsed once: which slots, in what format, for which page.

Unknown parameters are ignored and nothing of the query is ever echoed. What targeting asks for (section, tag,
reader and the rest of the contract's context) is accepted here without effect until line items can be targeted.
"""

from urllib.parse import parse_qsl

from msgspec import Struct

from adserver.errors import AdserverError
from adserver.model import Format

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


PLAIN = Query()


def parse_query(query: bytes) -> Query:
    """Raises BadQuery."""
    if not query:
        return PLAIN
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except UnicodeDecodeError:
        raise BadQuery("The query is not percent-encoded UTF-8.") from None
    except ValueError:
        raise BadQuery(f"The query has more than {_MOST_FIELDS} parameters; ask for fewer slots at once.") from None
    ids: dict[str, None] = {}
    form, repair = Format.HTML, True
    for name, value in pairs:
        match name:
            case "id":
                ids[value] = None
            case "format":
                form = _parse_format(value)
            case "repair":
                repair = value != "0"
            case "at":
                raise BadQuery("Parameter 'at' previews another instant and needs a staff token.", 403)
    if len(ids) > MOST_IDS:
        raise BadQuery(f"{len(ids)} ids were asked for; at most {MOST_IDS} are answered in one call.")
    return Query(tuple(ids), form, repair)


def _parse_format(value: str) -> Format:
    form = _FORMATS.get(value)
    if form is None:
        raise BadQuery(f"Parameter 'format' is none of {', '.join(_FORMATS)}.")
    return form
