"""What the torturer and the service's processes tell each other, in a directory both know.

`control` is mapped by all of them: the faults in force right now. `notes-*` are lines the service's processes write:
what a sync has made safe, and what could not be journalled.
"""

import mmap
import os
from pathlib import Path
from struct import Struct as Layout

SIDE = "TORTURE_SIDE"
"""The environment variable with that directory; without it nothing in this package touches a service."""
BROKEN = "TORTURE_BROKEN"
"""The environment variable that names a way to break the service on purpose."""

_LAYOUT = Layout("<dddd")  # clock offset; a sync fails until, with this probability; no new segment until


class Control:
    """The faults in force, shared by memory map. Instants are of the monotonic clock, the same in all processes."""

    def __init__(self, side: Path) -> None:
        fd = os.open(side / "control", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, _LAYOUT.size)
            self._map = mmap.mmap(fd, _LAYOUT.size)
        finally:
            os.close(fd)

    def read(self) -> tuple[float, float, float, float]:
        """Clock offset in seconds; syncs fail until, and with this probability; no segment can be made until."""
        return _LAYOUT.unpack(self._map)

    def _change(self, place: int, value: float) -> None:
        values = list(self.read())
        values[place] = value
        self._map[:] = _LAYOUT.pack(*values)

    def shift_clock(self, seconds: float) -> None:
        self._change(0, seconds)

    def fail_syncs(self, until: float, probability: float) -> None:
        self._change(2, probability)
        self._change(1, until)

    def fill_disk(self, until: float) -> None:
        self._change(3, until)
