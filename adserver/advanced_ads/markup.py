"""The XML that Advanced Ads' own export writes, as plain values.

Each element says its type; a list's elements are called `item` and have a key. What is no such thing is refused, and
so is a document type before anything in it is read: entities are declared there, and Advanced Ads writes none.
"""

from typing import Any
from xml.etree.ElementTree import ParseError, XMLParser

from adserver.errors import BadExport

_DEEPEST = 64
_ROOT = "advads-export"


class _Element:
    """One that is open."""

    __slots__ = ("children", "key", "type", "words")

    def __init__(self, key: str, type_: str) -> None:
        self.key = key
        self.type = type_
        self.words: list[str] = []
        self.children: list[tuple[str, Any]] | None = None

    def value(self) -> Any:
        if self.children is not None:
            return dict(self.children)
        text = "".join(self.words)
        match self.type:
            case "array":
                return {}
            case "null":
                return None
            case "boolean":
                return text.strip() == "1"
            case "numeric":
                return _number(text.strip())
            case _:
                return text


def _number(text: str) -> Any:
    """A number, and the text where it is none."""
    try:
        return int(text)
    except ValueError:
        return text


class _Reader:
    """What the parser tells, without recursion: how deep it goes is the file's choice."""

    def __init__(self) -> None:
        self.open: list[_Element] = []
        self.found: Any = None

    def doctype(self, *_: object) -> None:
        raise BadExport("declares a document type; Advanced Ads writes none, and none is read")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.open and tag != _ROOT:
            raise BadExport(f"begins with <{tag:.40}>; expected <{_ROOT}>, as Advanced Ads writes it")
        if len(self.open) >= _DEEPEST:
            raise BadExport(f"is nested deeper than {_DEEPEST} elements")
        if self.open and self.open[-1].children is None:
            self.open[-1].children = []
        key = attributes.get("key", tag) if tag == "item" else tag  # without a key it is a field of that name
        self.open.append(_Element(key, attributes.get("type", "")))

    def data(self, text: str) -> None:
        self.open[-1].words.append(text)

    def end(self, _: str) -> None:
        element = self.open.pop()
        if self.open:
            siblings = self.open[-1].children
            assert siblings is not None
            siblings.append((element.key, element.value()))
        else:
            self.found = element.value()

    def close(self) -> Any:
        return self.found


def read_xml(data: bytes) -> Any:
    """The values of the file. Raises BadExport."""
    parser: XMLParser[Any] = XMLParser(target=_Reader())  # noqa: S314 - no document type is read, so no entity either
    try:
        parser.feed(data)
        return parser.close()
    except ParseError as error:
        raise BadExport(f"is no XML that can be read: {error}") from None
    except (LookupError, ValueError) as error:
        raise BadExport(f"is in an encoding that cannot be read: {error}") from None
