"""The audit log: who did what, to what, when and from where. It is only ever added to, and never trimmed.

Rules: an entry is a line a person can read, so nothing in it breaks a line or turns its reading direction; nothing in
it lets anybody in, so tokens, links and password hashes are blotted out should they ever get here.
"""

import re
import unicodedata
from typing import Any

from msgspec import Struct

from adserver.errors import StoreRefused
from adserver.store import Store

LOG = "as:{console}:audit"
LONGEST = {"who": 200, "what": 64, "subject": 200, "detail": 2000, "address": 64}
_AT_ONCE = 500
_MOST_READ = 20_000
"""Entries one page looks at for those that match: about 0.2 s; the next page goes on from there."""
_POSITION = re.compile(r"[0-9]{1,16}-[0-9]{1,16}", re.ASCII)
_SECRETS = re.compile(r"(adt_|/console/link/|/report/|\$argon2id)[A-Za-z0-9_$,=+/-]{20,}")
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


class Actor(Struct, frozen=True):
    """Who does something, and from which address; *name* is a person's, or such as `command line:root`."""

    name: str
    address: str = ""


class Entry(Struct, frozen=True, kw_only=True):
    """*at* is the Unix second, *what* a short verb such as `sets role`, *subject* a name or id, *detail* the rest."""

    at: float
    who: str
    what: str
    subject: str = ""
    detail: str = ""
    address: str = ""


class Noted(Struct, frozen=True):
    """An entry as it stands in the log, at *position*."""

    position: str
    entry: Entry


class Page(Struct, frozen=True):
    """Entries, newest first. *before* is where the next page begins; None: the log has no older ones."""

    entries: tuple[Noted, ...]
    before: str | None


def _cleaned(text: str, longest: int) -> str:
    line = "".join(
        " " if unicodedata.category(char) in _UNSEEN else char for char in unicodedata.normalize("NFC", text)
    )
    line = _SECRETS.sub(r"\1…", line).strip()
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def fields(entry: Entry) -> list[str]:
    """What XADD writes: for scripts that change something and note it in one step."""
    texts = [(name, _cleaned(getattr(entry, name), longest)) for name, longest in LONGEST.items()]
    return ["at", f"{entry.at:.3f}", *(part for pair in texts for part in pair)]


async def note(store: Store, entry: Entry) -> None:
    await store.ask("XADD", LOG, "*", *fields(entry))


async def read(
    store: Store, n: int = 50, before: str | None = None, *, who: str | None = None, subject: str | None = None
) -> Page:
    """Up to *n* entries older than the position *before*, of one person or about one subject where that is given."""
    found: list[Noted] = []
    end = f"({before}" if before and _POSITION.fullmatch(before) else "+"
    wanted = {name: value for name, value in (("who", who), ("subject", subject)) if value is not None}
    looked = 0
    while looked < _MOST_READ:
        some: list[Any] = await store.ask("XREVRANGE", LOG, end, "-", "COUNT", _AT_ONCE)
        for number, (position, pairs) in enumerate(some):
            one = Noted(position.decode(), _entry(pairs))
            if all(getattr(one.entry, name) == value for name, value in wanted.items()):
                found.append(one)
            if len(found) == n:
                last = len(some) < _AT_ONCE and number == len(some) - 1
                return Page(tuple(found), None if last else one.position)
        if len(some) < _AT_ONCE:
            return Page(tuple(found), None)
        looked += len(some)
        before = some[-1][0].decode()
        end = f"({before}"
    return Page(tuple(found), before)


def _entry(pairs: Any) -> Entry:
    # A client may hand a stream's entry over as a mapping or as the flat list the server sends.
    flat = pairs.items() if isinstance(pairs, dict) else zip(pairs[::2], pairs[1::2], strict=True)
    texts = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, value in flat}
    try:
        return Entry(at=float(texts["at"]), **{name: texts.get(name, "") for name in LONGEST})
    except (KeyError, ValueError):
        raise StoreRefused(f"{LOG} holds an entry that is not ours") from None
