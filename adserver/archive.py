"""The closed book: every sealed day with its counts, how far it holds each producer, and what its ads are called.

A page of the book is written once, synced, read back and compared, and never changes. Its name ends in a digest of
its content, so writing it twice is writing it once. It lives in an SQLite file in the data directory, in a directory
(`file:///…`), or in an object store (`s3://…` and the like, with the extra `archive`).

Beside a day's page lies what its partition remembered of tokens: a late arrival is compared with it. That part may
be dropped once nothing late is taken any more.
"""

import hashlib
import os
import re
import secrets
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from adserver.errors import AdserverError

_NAME = re.compile(r"(day|bits|late|latebits)-([0-9]{5})-(?:([0-9]{6})-)?([0-9a-f]{32})", re.ASCII)
_BUSY_S = 10.0


class ArchiveUnavailable(AdserverError):
    """The archive cannot be read or written, or holds what it must not."""


class Closed(Struct, frozen=True, kw_only=True):
    """One closed day, or its late arrivals. *producers* are cursors by producer (hex); *ads* are names by key (hex).

    *bits* names the digest of its token memory; *missing* are the producers that were given up.
    """

    day: int
    zone: str
    producers: dict[str, int]
    counts: dict[str, int]
    ads: dict[str, str]
    missing: list[str]
    bits: str

    def same_figures(self, other: "Closed") -> bool:
        return (self.producers, self.counts) == (other.producers, other.counts)


class Shelf(Protocol):
    """Where pages lie: names and bytes. Every method may raise OSError, sqlite3.Error or the library's own."""

    def names(self) -> list[str]: ...
    def get(self, name: str) -> bytes | None: ...
    def put(self, name: str, data: bytes) -> None: ...
    def drop(self, name: str) -> None: ...


class SqliteShelf:
    """One SQLite file. A commit is on disk when it returns: EXTRA is FULL plus a sync of the directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as book, book:
            book.execute("PRAGMA synchronous=EXTRA")
            book.execute("CREATE TABLE IF NOT EXISTS page (name TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID")
            yield book

    def names(self) -> list[str]:
        if not self._path.exists():  # a reader makes no file
            return []
        with self._open() as book:
            return [name for (name,) in book.execute("SELECT name FROM page")]

    def get(self, name: str) -> bytes | None:
        if not self._path.exists():
            return None
        with self._open() as book:
            found = book.execute("SELECT CAST(data AS BLOB) FROM page WHERE name = ?", (name,)).fetchone()
        return found[0] if found else None

    def put(self, name: str, data: bytes) -> None:
        with self._open() as book:
            book.execute("INSERT OR IGNORE INTO page VALUES (?, ?)", (name, data))
        self._path.chmod(0o600)

    def drop(self, name: str) -> None:
        with self._open() as book:
            book.execute("DELETE FROM page WHERE name = ?", (name,))


class DirectoryShelf:
    """A file a page, made under another name, synced, and then moved to its place."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        return [path.name for path in self._directory.iterdir()] if self._directory.is_dir() else []

    def get(self, name: str) -> bytes | None:
        path = self._directory / name
        return path.read_bytes() if path.exists() else None

    def put(self, name: str, data: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self._directory / name).exists():
            write_synced(self._directory / name, data)

    def drop(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)


class ObjectShelf:
    """An object a page, by fsspec. The object store answers a write when it is safe."""

    def __init__(self, url: str) -> None:
        try:
            from fsspec.core import url_to_fs  # type: ignore[import-untyped]

            self._fs, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            scheme = urlsplit(url).scheme
            raise ArchiveUnavailable(
                f"ADSERVER_ARCHIVE_URL is a {scheme}:// address and cannot be used ({error}); "
                "install adserver[archive] and what fsspec needs for it, or take a file:// address"
            ) from error

    def names(self) -> list[str]:
        self._fs.invalidate_cache()
        if not self._fs.exists(self._root):
            return []
        return [str(path).rsplit("/", 1)[-1] for path in self._fs.ls(self._root, detail=False)]

    def get(self, name: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def put(self, name: str, data: bytes) -> None:
        self._fs.makedirs(self._root, exist_ok=True)
        if not self._fs.exists(f"{self._root}/{name}"):
            self._fs.pipe_file(f"{self._root}/{name}", data)

    def drop(self, name: str) -> None:
        if self._fs.exists(f"{self._root}/{name}"):
            self._fs.rm_file(f"{self._root}/{name}")


class Book:
    """The archive. Its methods do I/O and belong in a thread; each raises ArchiveUnavailable."""

    def __init__(self, shelf: Shelf, place: str) -> None:
        self._shelf = shelf
        self.place = place
        self._read: dict[str, Closed] = {}
        self._known: dict[int, str] = {}

    def __repr__(self) -> str:
        return f"<Book {self.place}>"

    def days(self) -> set[int]:
        """Which days are closed."""
        return set(self._names("day"))

    def digests(self) -> dict[int, str]:
        """Every closed day and the digest of its page."""
        return {day: names[0].rsplit("-", 1)[1] for day, names in self._names("day").items()}

    def read(self, day: int) -> Closed | None:
        """A closed day; None for an open one."""
        if day not in self._known and (names := self._names("day").get(day)):
            self._known[day] = names[0]
        return self._page(self._known[day]) if day in self._known else None

    def look(self, day: int) -> Closed | None:
        """A closed day, read for once and not kept in memory; None for an open one."""
        names = self._names("day").get(day)
        page = parse_page(self._get(names[0])) if names else None
        if names and page is None:
            raise ArchiveUnavailable(f"{self.place}: {names[0]} is no page of this version")
        return page

    def raw(self, day: int) -> bytes:
        """A closed day's page as it is written down."""
        if self.read(day) is None:
            raise ArchiveUnavailable(f"{self.place} has no page of day {day}")
        return self._get(self._known[day])

    def copy(self, day: int, data: bytes) -> Closed:
        """Take over another archive's page of *day*, unless there is one."""
        page = parse_page(data)
        if page is None or page.day != day:
            raise ArchiveUnavailable(f"what another archive says of day {day} is no page of this version")
        if self.read(day) is None:
            self._put(f"day-{day:05}-{_digest(data)}", data)
        return page

    def write(self, page: Closed, bits: Mapping[bytes, bytes]) -> Closed:
        """Close *page.day*: from here on it is what this returns, which another process may have written before."""
        if (found := self.read(page.day)) is None:
            self._put_page("day", "bits", page, bits, "")
            found = self.read(page.day)
        if found is None:
            raise ArchiveUnavailable(f"{self.place}: day {page.day} was written and is not there; nothing is deleted")
        return found

    def late_days(self) -> set[int]:
        """Which closed days have pages of what came late."""
        return set(self._names("late"))

    def late(self, day: int) -> Closed | None:
        """The page that knows most of what came after *day* was closed; None when nothing was archived."""
        pages = [self._page(name) for name in self._names("late").get(day, [])]
        return max(reversed(pages), key=lambda page: sum(page.producers.values()), default=None)

    def write_late(self, page: Closed, bits: Mapping[bytes, bytes]) -> None:
        """Add a page to *page.day*'s late arrivals: the whole of them so far."""
        names = self._names("late").get(page.day, [])
        number = int(names[-1].split("-")[2]) + 1 if names else 1
        self._put_page("late", "latebits", page, bits, f"{number:06}-")
        best = self.late(page.day)
        for name in self._names("late").get(page.day, []):  # each page repeats those before it
            if int(name.split("-")[2]) < number - 1 and self._page(name) != best:
                self._shelf_do("drop", name)
        for name in self._names("latebits").get(page.day, []):
            if int(name.split("-")[2]) < number - 1 and best and not name.endswith(best.bits):
                self._shelf_do("drop", name)

    def bits(self, day: int) -> dict[bytes, bytes] | None:
        """What is remembered of *day*'s tokens, those of late arrivals included; None when it was dropped."""
        page = self.late(day) or self.read(day)  # a newer memory than the page's would hide what the page lacks
        if page is None:
            return None
        kinds = (self._names(kind).get(day, []) for kind in ("bits", "latebits"))
        names = [name for kind in kinds for name in kind if name.endswith(f"-{page.bits}")]
        return self._bits(names[0]) if names else None

    def drop_bits(self, before: int) -> None:
        """Forget the tokens of all days before *before*."""
        for kind in ("bits", "latebits"):
            for day, names in self._names(kind).items():
                for name in names if day < before else []:
                    self._shelf_do("drop", name)

    def _put_page(self, kind: str, memory: str, page: Closed, bits: Mapping[bytes, bytes], number: str) -> None:
        packed = zlib.compress(msgspec.msgpack.encode(dict(sorted(bits.items()))), 1)
        page = msgspec.structs.replace(page, bits=_digest(packed))
        data = msgspec.json.encode(page, order="deterministic")
        self._put(f"{memory}-{page.day:05}-{number}{page.bits}", packed)
        self._put(f"{kind}-{page.day:05}-{number}{_digest(data)}", data)

    def _put(self, name: str, data: bytes) -> None:
        self._shelf_do("put", name, data)
        if self._shelf_do("get", name) != data:
            raise ArchiveUnavailable(f"{self.place}: {name} reads back other than it was written; nothing is deleted")

    def _names(self, kind: str) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for name in sorted(self._shelf_do("names")):
            match = _NAME.fullmatch(name)
            if match and match[1] == kind:
                found.setdefault(int(match[2]), []).append(name)
        return found

    def _page(self, name: str) -> Closed:
        if name not in self._read:
            page = parse_page(self._get(name))
            if page is None:
                raise ArchiveUnavailable(f"{self.place}: {name} is no page of this version")
            self._read[name] = page
            while len(self._read) > 500:
                del self._read[next(iter(self._read))]
        return self._read[name]

    def _bits(self, name: str) -> dict[bytes, bytes]:
        try:
            return msgspec.msgpack.decode(zlib.decompress(self._get(name)), type=dict[bytes, bytes])
        except (msgspec.DecodeError, zlib.error) as error:
            raise ArchiveUnavailable(f"{self.place}: {name} is no token memory of this version: {error}") from error

    def _get(self, name: str) -> bytes:
        data: bytes | None = self._shelf_do("get", name)
        if data is None or _digest(data) != name.rsplit("-", 1)[1]:
            raise ArchiveUnavailable(f"{self.place}: {name} is missing or damaged; restore it from a backup")
        return data

    def _shelf_do(self, what: str, *arguments: Any) -> Any:
        try:
            return getattr(self._shelf, what)(*arguments)
        except ArchiveUnavailable:
            raise
        except Exception as error:  # every object store's library has errors of its own
            raise ArchiveUnavailable(f"the archive {self.place} cannot be used: {error}") from error


def open_book(url: str | None, data: Path) -> Book:
    """The archive at *url*, else the SQLite file in the directory *data*. Raises ArchiveUnavailable."""
    if url is None:
        return Book(SqliteShelf(data / "archive.sqlite"), str(data / "archive.sqlite"))
    parts = urlsplit(url)
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()  # a URL may hold a password
    if parts.scheme == "file":
        return Book(DirectoryShelf(Path(unquote(parts.path))), place)
    return Book(ObjectShelf(url), place)


def parse_page(data: bytes) -> Closed | None:
    """A page as `Book.raw` gives it; None for anything else."""
    try:
        return msgspec.json.decode(data, type=Closed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def write_synced(path: Path, data: bytes) -> None:
    """Put *data* at *path*, whole or not at all, also across a power cut. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
