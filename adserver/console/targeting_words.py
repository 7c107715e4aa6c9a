"""Targeting as one line of text, and back: `any section = sport, "city life" tag = bikes; none country = nl`.

Each of any, all, none and prefer is followed by what it names; clauses are parted by semicolons. A value that is more
than a word stands in quotes, as in JSON. `everywhere` is targeting that asks for nothing.
"""

import json
import re
from typing import Any

from adserver.config_files import raw_of
from adserver.model import Targeting

_KINDS = ("section", "tag", "url", "lang", "country", "device")
_WAYS = ("any", "all", "none", "prefer")
_SIMPLE = re.compile(r"[\w/.:%+-]+")
_PIECE = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([;,=])|([^\s;,="]+))')
_EVERYWHERE = "everywhere"
_EXPECTED = "expected such as: any section = sport, culture; none country = nl"


def say_targeting(targeting: Targeting) -> str:
    clauses = []
    for way, terms in raw_of(targeting).items():
        parts = {name: values for name, values in terms.items() if name != "keys"}
        parts |= {f"key:{name}": values for name, values in terms.get("keys", {}).items()}
        named = " ".join(f"{name} = {', '.join(map(_quoted, values))}" for name, values in parts.items())
        clauses.append(f"{way} {named}")
    return "; ".join(clauses) or _EVERYWHERE


def _quoted(value: str) -> str:
    return value if _SIMPLE.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def parse_targeting(text: str) -> dict[str, Any]:
    """The raw table, as a file would have it. Raises ValueError with the rest of a sentence."""
    found: dict[str, Any] = {}
    if text.strip().lower() == _EVERYWHERE:
        return found
    pieces = _Pieces(text)
    while pieces.left:
        way = pieces.word().lower()
        if way not in _WAYS or way in found:
            raise ValueError(
                f"has {way!r:.40} {'twice' if way in found else 'where one of any, all, none, prefer belongs'}"
            )
        terms: dict[str, Any] = {}
        while pieces.left and not pieces.skip(";"):
            _take_values(pieces, terms)
        found[way] = terms
    return found


def _take_values(pieces: "_Pieces", terms: dict[str, Any]) -> None:
    name = pieces.word()
    if not pieces.skip("="):
        raise ValueError(f"has no '=' after {name!r:.40}; {_EXPECTED}")
    values = [pieces.value()]
    while pieces.skip(","):
        values.append(pieces.value())
    into, key = (terms.setdefault("keys", {}), name[4:]) if name.lower().startswith("key:") else (terms, name.lower())
    if into is terms and key not in _KINDS:
        raise ValueError(
            f"names {name!r:.40}; expected one of {', '.join(_KINDS)}, or key:… for a key of the site's own"
        )
    if key in into:
        raise ValueError(f"names {name!r:.40} twice; give its values once, parted by commas")
    into[key] = values


class _Pieces:
    """Words, quoted words and marks, one after the other."""

    def __init__(self, text: str) -> None:
        self._found: list[tuple[str, str, str]] = []
        at, text = 0, text.strip()
        while at < len(text):
            match = _PIECE.match(text, at)
            if not match:
                raise ValueError(f"cannot be read from {text[at : at + 30]!r} on; {_EXPECTED}")
            self._found.append((match[1] or "", match[2] or "", match[3] or ""))
            at = match.end()
        self._found.reverse()

    @property
    def left(self) -> bool:
        return bool(self._found)

    def skip(self, mark: str) -> bool:
        if self._found and self._found[-1][1] == mark:
            self._found.pop()
            return True
        return False

    def word(self) -> str:
        if not self._found or not self._found[-1][2]:
            raise ValueError(f"breaks off; {_EXPECTED}")
        return self._found.pop()[2]

    def value(self) -> str:
        if self._found and self._found[-1][0]:
            try:
                return str(json.loads(self._found.pop()[0]))
            except ValueError:
                raise ValueError(f"has quotes that cannot be read; {_EXPECTED}") from None
        return self.word()
