"""Keeps a worker's receipts in files of its own: compressed, rotated each hour, deleted by age and by room.

Serving only notes what it used; once a second the notes become records, and leave the event loop. Of more decisions a
second than are kept a sample is, in which each of that second is as likely as any other: a page is noted whose first
serial a walk over the serials steps on. At first it steps on each; whenever there are four times as many notes as are
kept, each is given up as likely as not, and from then on steps are twice as long, by chance. So what is passed over
costs serving the look at one number, and of a thousand times as many notes are made of one in twenty or so.

A file's name says when it was begun, who issued what is in it, and the first serial: whoever looks for one decision
opens one file.
"""

import asyncio
import logging
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from math import inf, log1p
from pathlib import Path
from random import Random
from typing import IO, Any

from adserver import metrics
from adserver.background import wait_for_any
from adserver.catalog import Catalog
from adserver.decide import Page
from adserver.disk import free_bytes
from adserver.planner import Planner
from adserver.receipts import MOST_REMEMBERED, DamagedReceipts, Noted, Receipt, Writer, find_receipt

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_REST_S = 60.0
_FILE_S = 3600.0
_FILE_BYTES = 15_000_000
"""A file this long is followed by another before its hour is over: with what is still being packed it is 16 MB."""
_PIECE = 1 << 16
_NAME = re.compile(r"(?P<begun>[0-9]{13})-(?P<issuer>[0-9a-f]+)(?:-(?P<serial>[0-9]+))?\.receipts", re.ASCII)
"""Older versions gave no serial, and no other issuer a file of its own."""


class Keeper:
    """One worker's receipts under *root*. *per_second* is the most it keeps; 0 keeps none."""

    def __init__(self, root: Path, days: float, most_bytes: int, per_second: int, dice: Random | None = None) -> None:
        self._root = root
        self._days = days
        self._most_bytes = most_bytes
        self._most = per_second if days else 0
        self._dice = dice or Random()  # noqa: S311 - a sample, not a secret
        self._chance = 1.0
        self.due: float = -1 if self._most else inf
        """Nothing is noted of what was served under serials below this."""
        self._notes: list[Noted] = []
        self._changes = -1
        self._shares: dict[str, float] = {}
        self._file: IO[bytes] | None = None
        self._began = 0.0
        self._issuer = b""
        self._writer = Writer()
        self._packer = zlib.compressobj(6)
        self._short = False

    def __repr__(self) -> str:
        return f"<Keeper in {self._root}, {len(self._notes)} to write>"

    def note(
        self,
        at: float,
        catalog: Catalog,
        page: Page,
        draws: Mapping[Any, int],
        planner: Planner,
        issuer: bytes,
        serial: int,
        keys: list[bytes],
    ) -> None:
        """A page was served by the pace that *planner* keeps, from *serial* on: whoever serves says so when `due` is
        passed, and by chance it is noted. *draws* must stay.
        """
        if self.due < serial:
            self.due = serial + self._skip()
        if self.due == serial:
            self._take_down(at, catalog, page, draws, planner, issuer, serial, keys)
        if self.due < serial + len(keys):
            self.due = serial + len(keys) + self._skip()

    def _skip(self) -> int:
        """How many serials are passed over before the next is stepped on."""
        return 0 if self._chance >= 1 else int(log1p(-self._dice.random()) / log1p(-self._chance))

    def _take_down(
        self,
        at: float,
        catalog: Catalog,
        page: Page,
        draws: Mapping[Any, int],
        planner: Planner,
        issuer: bytes,
        serial: int,
        keys: list[bytes],
    ) -> None:
        if planner.changes != self._changes:
            self._changes, self._shares = planner.changes, dict(planner.pace.shares)
        pace = self._changes, self._shares, planner.pace.creatives
        self._notes.append(Noted(at, catalog, page, draws, *pace, issuer, serial, keys))
        if len(self._notes) >= 4 * self._most:
            self._notes = [one for one in self._notes if self._dice.random() < 0.5]
            self._chance /= 2

    def collect(self) -> list[Noted]:
        """What was noted since the last time, no more than is kept of a second."""
        notes, self._notes, self._chance = self._notes, [], 1.0
        if self._most:
            self.due = -1
        if len(notes) > self._most:
            kept = sorted(self._dice.sample(range(len(notes)), self._most))
            notes = [notes[at] for at in kept]
        return notes

    async def run(self, stopping: asyncio.Event) -> None:
        """Write what is noted until *stopping* is set, and then the rest."""
        while True:
            ending = stopping.is_set()
            notes = self.collect()
            try:
                if notes:
                    await asyncio.to_thread(self.write, notes)
                    metrics.RECEIPTS.inc(len(notes))
            except OSError as error:
                log.warning("receipts are not kept: %s", error)
                self.close()
                await wait_for_any(_REST_S, stopping)
            if ending:
                self.close()
                return
            await wait_for_any(_EVERY_S, stopping)

    def write(self, notes: Iterable[Noted]) -> None:
        now = time.time()
        for noted in notes:
            if self._file is None or self._is_over(noted, now):
                self._rotate(noted, now)
            self._put(self._packer.compress(self._writer.records(noted)))
        self._put(self._packer.flush(zlib.Z_SYNC_FLUSH))
        if self._file is not None:
            self._file.flush()

    def _put(self, data: bytes) -> None:
        assert self._file is not None
        if data:
            self._file.write(data)

    def _is_over(self, noted: Noted, now: float) -> bool:
        assert self._file is not None
        return (
            noted.issuer != self._issuer
            or self._file.tell() >= _FILE_BYTES
            or now - self._began >= _FILE_S
            or self._writer.remembered >= MOST_REMEMBERED
        )

    def _rotate(self, noted: Noted, now: float) -> None:
        self.close()
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        dropped = tidy(self._root, self._days, self._most_bytes, now, free_bytes(self._root))
        if dropped:
            metrics.RECEIPTS_DROPPED.inc(len(dropped))
            if not self._short:
                days = max(now - _begun(path) for path in dropped) / 86_400
                log.warning(
                    "receipts of the last %.1f days have filled the room there is, so they are deleted before they are "
                    "%g days old; see ADSERVER_RECEIPT_MB, and the space left in %s",
                    days, self._days, self._root,
                )  # fmt: skip
        self._short = bool(dropped)
        self._writer, self._packer, self._issuer = Writer(), zlib.compressobj(6), noted.issuer
        path = self._root / f"{int(now * 1000):013d}-{noted.issuer.hex()}-{noted.serial:010d}.receipts"
        self._file, self._began = path.open("ab"), now

    def close(self) -> None:
        file, self._file = self._file, None
        if file:
            with suppress(OSError), file:
                file.write(self._packer.flush())


def tidy(root: Path, days: float, most_bytes: int, now: float, free: float = inf) -> list[Path]:
    """Delete receipts older than *days*, then the oldest beyond *most_bytes* or half of what would be *free* without
    them: those are returned. Where only a worker's newest is left it stays for its hour: it is still written to.
    """
    sizes: dict[Path, int] = {}
    for path in _files(root):
        with suppress(FileNotFoundError):  # another worker tidies, too
            sizes[path] = path.stat().st_size
    newest = {_match(path)["issuer"]: path for path in sizes}
    total = sum(sizes.values())
    most = min(most_bytes, (total + free) / 2)
    dropped = []
    for path, size in sizes.items():
        age_s = now - _begun(path)
        if age_s > days * 86_400:
            pass
        elif total > most and (age_s > _FILE_S or path is not newest[_match(path)["issuer"]]):
            dropped.append(path)
        else:
            continue
        path.unlink(missing_ok=True)
        total -= size
    return dropped


def _files(root: Path) -> list[Path]:
    """The oldest first; anything of another name is not ours."""
    return sorted(path for path in root.glob("*.receipts") if _NAME.fullmatch(path.name))


def _match(path: Path) -> re.Match[str]:
    found = _NAME.fullmatch(path.name)
    assert found
    return found


def _begun(path: Path) -> float:
    return int(_match(path)["begun"]) / 1000


def find(root: Path, issuer: bytes, serial: int) -> Receipt | None:
    """The receipt of what *issuer* served under *serial*; None where none is kept. Says which files are damaged."""
    for path in _where(root, issuer, serial):
        try:
            found = find_receipt(_unpack(path), issuer, serial)
        except (DamagedReceipts, OSError) as error:
            log.warning("%s is not read to its end: %s", path, error)
            continue
        if found:
            return found
    return None


def _where(root: Path, issuer: bytes, serial: int) -> Iterator[Path]:
    """The files it may be in: the last one of its issuer that begins early enough, and all of older versions."""
    older, mine = [], []
    for path in _files(root):
        named = _match(path)
        if named["serial"] is None:
            older.append(path)
        elif named["issuer"] == issuer.hex() and int(named["serial"]) <= serial:
            mine.append((int(named["serial"]), path))
    if mine:
        yield max(mine)[1]
    yield from reversed(older)


def _unpack(path: Path) -> Iterator[bytes]:
    """A file's bytes in pieces, also of one that is being written or was cut off. Raises DamagedReceipts or OSError."""
    unpacker = zlib.decompressobj()
    with path.open("rb") as file:
        while not unpacker.eof and (data := file.read(_PIECE)):
            while data:
                try:
                    yield unpacker.decompress(data, _PIECE)
                except zlib.error as error:
                    raise DamagedReceipts(str(error)) from None
                data = unpacker.unconsumed_tail
    yield unpacker.flush()
