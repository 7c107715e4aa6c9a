"""What memory a worker takes beyond a bare function's process: with the sample catalog, and with a large one."""

import time
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks import catalogs
from benchmarks.articles import SLOTS
from benchmarks.processes import Service, ask, running_bare, running_service
from benchmarks.table import Bound

_PUBLISHED = 6
"""Times a large catalog is published: as often as versions that are gone are kept for clicks, and once more."""
_REST_S = 3.0
_MIB = 2**20


class Memory(msgspec.Struct, frozen=True):
    """Resident bytes, and those of them that no other process shares."""

    resident: int
    own: int


def _of(process: psutil.Process) -> Memory:
    found = process.memory_full_info()
    return Memory(found.rss, found.uss)


def _bare(directory: Path) -> Memory:
    said = directory / "said"
    said.write_text("content-type: text/html\n\nAn ad.")
    with running_bare("answer", str(said), log=directory / "bare.log") as port:
        ask(port, "GET", "/")
        return _of(next(one for one in psutil.Process().children() if "benchmarks.bare" in one.cmdline()))


def _serving(service: Service, slot: int) -> Memory:
    for _ in range(100):
        ask(service.port, "GET", f"/ads/{slot}")
    time.sleep(_REST_S)  # what is gone is let go of at the next look at the store
    [worker] = service.workers()
    return _of(worker)


def rows(directory: Path) -> list[Bound]:
    bare = _bare(directory)
    with running_service(directory / "memory") as service:
        small = _serving(service, SLOTS[0])
        for number in range(_PUBLISHED):
            document = catalogs.made_up(*catalogs.LARGE)
            catalogs.publish(service, msgspec.structs.replace(document, line_items=document.line_items[number:]))
            large = _serving(service, catalogs.FIRST + number)
    return [
        _row("MB of a worker, 18 slots", bare, small, 40),
        _row(f"MB of a worker, 100,000 line items, published {_PUBLISHED} times", bare, large, 400),
    ]


def _row(figure: str, bare: Memory, ours: Memory, most: float) -> Bound:
    own = (ours.own - bare.own) / _MIB
    return Bound(
        figure,
        f"above a bare function's {bare.resident / _MIB:.0f}; {own:.0f} of its own",
        (ours.resident - bare.resident) / _MIB,
        most,
    )
