"""Every exception this service raises on purpose, and the sentence a problem is told in."""

from msgspec import Struct


class Problem(Struct, frozen=True, order=True):
    """One thing wrong with the configuration: *where* it is, and *what* is wrong, expected and to do."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class AdserverError(Exception):
    """Any failure this service foresaw; its text is a sentence for a person."""


class ConfigError(AdserverError):
    """The configuration cannot go live; carries every problem found, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Conflict(AdserverError):
    """The live version has moved on since these files were exported."""


class StoreUnavailable(AdserverError):
    """The store did not answer, or answered that it cannot take the work now."""


class StoreRefused(AdserverError):
    """The store answered, but must not be used as it is: its settings or its content would make counts wrong."""


class JournalUnavailable(AdserverError):
    """The journal cannot take another record: no segment could be prepared."""


class BadToken(AdserverError):
    """A token that is not ours, or not any more; *reason* comes from a closed list."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class BadPerson(AdserverError):
    """What is wanted of a person's account cannot be: the words say why."""


class BadPicture(AdserverError):
    """An uploaded file is no picture that could be shown: its text says what it is, and what is expected."""


class BadSheet(AdserverError):
    """An uploaded file is no spreadsheet that could be read: its text says what it is, and what is expected."""


class BadExport(AdserverError):
    """A file is no export of Advanced Ads that could be read: its text, after the file's name, says what it is."""
