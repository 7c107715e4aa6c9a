"""Which token events were acknowledged lately, by any worker of this machine: their repeats need no new record.

A table of 131,072 places in a file that all workers map. It is a memory and not the ledger: what it forgets (a newer
event takes the place) the store's token bits still know. An entry holds the whole key, so it can never take one
event for another; half of a concurrent write matches nothing and reads as "not seen".
"""

import mmap
import os
import zlib
from pathlib import Path
from struct import Struct as Layout

PLACES = 131_072
_ENTRY = 16
_KEY = Layout("<B5sIB5x")  # a mark, so that a fresh place matches no key; issuer, serial, event type


class Seen:
    """The table in *path*, made if it is not there; without a path one of this process alone."""

    def __init__(self, path: Path | None) -> None:
        size = PLACES * _ENTRY
        if path is None:
            self._table = mmap.mmap(-1, size)
            return
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size)
            self._table = mmap.mmap(fd, size)
        finally:
            os.close(fd)

    def has(self, issuer: bytes, serial: int, type_: int) -> bool:
        key = _KEY.pack(1, issuer, serial, type_)
        at = zlib.crc32(key) % PLACES * _ENTRY
        return self._table[at : at + _ENTRY] == key

    def add(self, issuer: bytes, serial: int, type_: int) -> None:
        key = _KEY.pack(1, issuer, serial, type_)
        at = zlib.crc32(key) % PLACES * _ENTRY
        self._table[at : at + _ENTRY] = key
