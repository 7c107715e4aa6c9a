"""Small journals for the tests, a disk that fails on demand, and one that is tiny."""

import asyncio
import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adserver import syncing
from adserver.adoption import Adopted, adopt_dead
from adserver.events import Type, unpack
from adserver.journal import Journal, create_journal
from adserver.reader import Reader
from adserver.segments import HEADER, RECORD

ROOT = Path(__file__).parent.parent.parent
SMALL = HEADER + 8 * RECORD
AD = b"\x01\x02\x03\x04\x05\x06\x07\x00"


def put(to: Journal, serial: int | None = None) -> int:
    """Append an event; its serial is its number unless another is given, so that a reader knows what to expect."""
    serial = to.written + 1 if serial is None else serial
    return to.append(Type.IMPRESSION, 0, 20514, 14, b"abcde", serial, AD, 1_772_000_000.0)


def serials(records: list[tuple[int, bytes]]) -> list[int]:
    return [unpack(record)[0].serial for _, record in records]


def numbers(records: list[tuple[int, bytes]]) -> list[int]:
    return [number for number, _ in records]


def read_all(directory: Path, last: int | None = None) -> list[tuple[int, bytes]]:
    reader, found = Reader(directory), list[tuple[int, bytes]]()
    while more := reader.read(found[-1][0] if found else 0, last, 1000):
        found += more
    return found


def with_journal(root: Path, body: Callable[[Journal], Awaitable[None]], segment_bytes: int = SMALL) -> Path:
    """Run *body* with a journal under *root* that is closed afterwards; returns the journal's directory.

    What the journal does in the loop's callbacks must not raise: the loop would only log it.
    """

    async def main() -> Path:
        raised: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
        made = create_journal(root, segment_bytes=segment_bytes)
        try:
            await body(made)
        finally:
            await made.close()
        assert raised == []
        return made.directory

    return asyncio.run(main())


def write(root: Path, count: int, segment_bytes: int = SMALL) -> Path:
    """A closed journal of *count* records."""

    async def body(made: Journal) -> None:
        for _ in range(count):
            put(made)

    return with_journal(root, body, segment_bytes)


def adopt_only(root: Path) -> Adopted:
    adopted, refused = adopt_dead(root, set())
    assert refused == []
    assert len(adopted) == 1
    return adopted[0]


async def settled(condition: Callable[[], object]) -> None:
    """Let the loop turn until *condition* holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it may depend on anything
            await asyncio.sleep(0.001)


class HandledKernel(syncing.KernelSync):
    """The kernel's syncs with the same hand on them as `Disk` has on a thread's."""

    def start(self, fd: int, tell: Callable[[OSError | None], None]) -> None:
        loop = asyncio.get_running_loop()
        held = os.dup(fd)  # as the kernel holds the file, whoever closes it

        def sync() -> OSError | None:
            try:
                os.fdatasync(fd)
            except OSError as error:
                return error
            finally:
                os.close(held)
            return None

        loop.run_in_executor(None, sync).add_done_callback(lambda done: tell(done.result()))


class Disk:
    """Syncs with a hand on them: each waits for the gate, and fails as often as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kernel: type[syncing.KernelSync] | None = None) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.failures = 0
        self.calls: list[int] = []
        self.inodes: list[int] = []
        self.running = 0
        self.most = 0
        self.failed: dict[int, int] = {}  # inodes, kept from being used again by a descriptor of ours
        self.again: list[int] = []  # of those, the ones that were synced once more: the journal takes it for a failure
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)
        monkeypatch.setattr(syncing, "_open_kernel", lambda: kernel and kernel(asyncio.get_running_loop()))

    def __call__(self, fd: int) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.calls.append(fd)
        self.inodes.append(os.fstat(fd).st_ino)
        try:
            assert self.gate.wait(10)
            if os.fstat(fd).st_ino in self.failed:
                self.again.append(fd)
            if self.failures:
                self.failures -= 1
                self.failed[os.fstat(fd).st_ino] = os.dup(fd)
                raise OSError(errno.EIO, "Input/output error")
            self._real(fd)
        finally:
            self.running -= 1


@contextmanager
def tiny_disk(path: Path, size: str) -> Iterator[Path]:
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


def can_mount() -> bool:
    if os.geteuid() or not shutil.which("mount"):
        return False
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return probe.returncode == 0


needs_root = pytest.mark.skipif(not can_mount(), reason="mounting a small disk needs root")
