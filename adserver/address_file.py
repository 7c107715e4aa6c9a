"""The operator's list of addresses whose events are filed as invalid: a file, read again whenever it changes.

A list with a problem changes nothing: every problem is said at once, and the last good list stays in force. A copy of
that is kept beside the journals, so that a worker which starts while the file is broken judges like its neighbours.
"""

import asyncio
import logging
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from adserver.background import wait_for_any
from adserver.errors import ConfigError, Problem
from adserver.networks import Networks, parse_networks

log = logging.getLogger(__name__)

LOOK_S = 1.0
MOST_BYTES = 8 * 1024 * 1024
_MOST_LOGGED = 100


class AddressFile:
    """The list of *path* as it is in force now, copied to *copy*; without a path it is empty and stays so."""

    def __init__(
        self, path: Path | None, copy: Path | None = None, on_refused: Callable[[], None] = lambda: None
    ) -> None:
        self.networks = Networks()
        self.changed: datetime | None = None
        """When the file in force was last written to."""
        self.trouble: str | None = None
        self._path = path
        self._copy = copy
        self._on_refused = on_refused
        self._stamp: tuple[int, ...] | None = None
        self._refused = ""

    def __repr__(self) -> str:
        return f"<AddressFile of {self.networks.size} networks{', kept' if self.trouble else ''}>"

    def read(self) -> bool:
        """Take over the file if it was written to since the last call; whether it was.

        Raises ConfigError, once for each file that cannot be used; one that cannot be opened is tried again.
        """
        if self._path is None:
            return False
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        try:
            data, changed = _load(self._path)
            self._stamp = stamp
            networks = _parse(self._path, data)
        except ConfigError as error:
            if str(error) == self._refused:
                return False
            self._refused = str(error)
            n = len(error.problems)
            self.trouble = f"{self._path} has {n} problem{'s' if n > 1 else ''}; the last good list of addresses stays"
            if self._copy and self.changed is None:
                with suppress(ConfigError):
                    data, changed = _load(self._copy)
                    self.networks, self.changed = _parse(self._copy, data), changed
            raise
        if self._copy:
            _save(self._copy, data, changed)
        self.networks, self.changed, self.trouble, self._refused = networks, changed, None, ""
        return True

    async def look(self) -> None:
        """Take over the file if it was written to, and log what came of it."""
        try:
            if await asyncio.to_thread(self.read):
                log.info("the address list has %d networks", self.networks.size)
        except ConfigError as error:
            self._on_refused()
            log.error("%s", self.trouble)
            for problem in error.problems[:_MOST_LOGGED]:
                log.error("%s", problem)

    async def follow(self, stopping: asyncio.Event) -> None:
        """Look every LOOK_S."""
        while not stopping.is_set():
            await self.look()
            await wait_for_any(LOOK_S, stopping)


def _stamp(path: Path) -> tuple[int, ...]:
    """What differs whenever the file was written to or replaced; links are followed, as mounted volumes need."""
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev


def _load(path: Path) -> tuple[bytes, datetime]:
    """Raises ConfigError."""
    try:
        # Not waiting for a writer: a pipe of that name would hold the caller up for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError([Problem(str(path), "is no plain file; name one with an address or network a line")])
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError([Problem(str(path), f"cannot be read ({error.strerror})")]) from error
    return data, datetime.fromtimestamp(found.st_mtime, UTC)


def _parse(path: Path, data: bytes) -> Networks:
    """Raises ConfigError."""
    if len(data) > MOST_BYTES:
        raise ConfigError([Problem(str(path), f"is larger than {MOST_BYTES // 1024 // 1024} MiB")])
    lines = data.decode("utf-8-sig", errors="replace").split("\n")
    return parse_networks((f"{path}:{number}", line) for number, line in enumerate(lines, 1))


def _save(path: Path, data: bytes, changed: datetime) -> None:
    """Copy the list, so that a reader finds the old one or the new one; several workers may do so at once."""
    temporary = None
    try:
        fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.utime(temporary, (changed.timestamp(), changed.timestamp()))
        Path(temporary).replace(path)
    except OSError as error:
        log.warning("the address list could not be copied: %s", error)
        if temporary:
            with suppress(OSError):
                Path(temporary).unlink()
