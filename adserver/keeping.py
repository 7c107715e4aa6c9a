"""Keeps a worker's receipts in files of its own: compressed, rotated each hour, deleted by age and by room.

Serving only notes what it used; once a second the notes become records, and leave the event loop. Beyond so many
decisions a second no more are noted: a busy second keeps its first ones.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from adserver import metrics
from adserver.background import wait_for_any
from adserver.decide import Page
from adserver.planner import Planner
from adserver.receipts import Receipt, Writer, read_receipts

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_FILE_S = 3600.0


class Keeper:
    """One worker's receipts under *root*. *per_second* is the most it notes; 0 keeps none."""

    def __init__(self, root: Path, days: float, most_bytes: int, per_second: int) -> None:
        self._root = root
        self._days = days
        self._most_bytes = most_bytes
        self._per_second = per_second if days else 0
        self._room = self._per_second
        self._notes: list[tuple[Any, ...]] = []
        self._changes = -1
        self._shares: dict[str, float] = {}
        self._file: IO[bytes] | None = None
        self._began = 0.0
        self._writer = Writer()
        self._packer = zlib.compressobj(6)

    def __repr__(self) -> str:
        return f"<Keeper in {self._root}, {len(self._notes)} to write>"

    def note(
        self,
        at: float,
        version: int,
        page: Page,
        draws: Mapping[Any, int],
        planner: Planner,
        issuer: bytes,
        serial: int,
        keys: list[bytes],
    ) -> None:
        """A decision was served by the pace that *planner* keeps. *draws* must not change any more."""
        if self._room <= 0:
            return
        self._room -= 1
        if planner.changes != self._changes:
            self._changes, self._shares = planner.changes, dict(planner.pace.shares)
        self._notes.append((at, version, page, draws, self._shares, planner.pace.creatives, issuer, serial, keys))

    async def run(self, stopping: asyncio.Event) -> None:
        """Write what is noted until *stopping* is set, and then the rest."""
        while True:
            ending = stopping.is_set()
            notes, self._notes, self._room = self._notes, [], self._per_second
            try:
                if notes:
                    await asyncio.to_thread(self._write, notes)
                    metrics.RECEIPTS.inc(len(notes))
            except OSError as error:
                log.warning("receipts are not kept: %s", error)
                self._close()
                await wait_for_any(60, stopping)
            if ending:
                self._close()
                return
            await wait_for_any(_EVERY_S, stopping)

    def _write(self, notes: list[tuple[Any, ...]]) -> None:
        now = time.time()
        if self._file is None or now - self._began >= _FILE_S:
            self._rotate(notes[0][6], now)
        out = bytearray()
        for at, version, page, draws, shares, creatives, issuer, serial, keys in notes:
            out += self._writer.pace(shares, creatives)
            out += self._writer.decision(at, version, page, draws, issuer, serial, keys)
        data = self._packer.compress(out) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        assert self._file
        self._file.write(data)
        self._file.flush()

    def _rotate(self, issuer: bytes, now: float) -> None:
        self._close()
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        tidy(self._root, self._days, self._most_bytes, now)
        self._writer, self._packer = Writer(), zlib.compressobj(6)
        path = self._root / f"{int(now * 1000):013d}-{issuer.hex()}.receipts"
        self._file, self._began = path.open("ab"), now

    def _close(self) -> None:
        if self._file:
            with suppress(OSError):
                self._file.close()
        self._file = None


def tidy(root: Path, days: float, most_bytes: int, now: float) -> None:
    """Delete receipts older than *days*, then the oldest beyond *most_bytes*."""
    found = sorted(path for path in root.glob("*.receipts"))
    sizes = {path: path.stat().st_size for path in found}
    total = sum(sizes.values())
    for path in found:
        old = now - int(path.name.partition("-")[0]) / 1000 > days * 86_400
        if old or total > most_bytes:
            path.unlink(missing_ok=True)
            total -= sizes[path]


def find(root: Path, issuer: bytes, serial: int) -> Receipt | None:
    """The receipt of what *issuer* served under *serial*; None where none is kept."""
    for path in sorted(root.glob("*.receipts"), reverse=True):
        for receipt in _read(path):
            if receipt.issuer == issuer and receipt.serial <= serial < receipt.serial + len(receipt.keys):
                return receipt
    return None


def _read(path: Path) -> Iterator[Receipt]:
    """A file's receipts, also of one that is being written or was cut off."""
    unpacker = zlib.decompressobj()
    with suppress(zlib.error, OSError):
        yield from read_receipts(unpacker.decompress(path.read_bytes()))
