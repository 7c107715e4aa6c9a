"""How what was stored gets onto the disk: by the kernel where it can, else by a thread of the journal's own.

A thread that comes back from a sync needs the interpreter. uvloop lets go of it and takes it again for each event, and
under load the thread is woken each time to find it taken: some 300 times a sync, a tenth of all the worker's time and
half of a beacon's wait (measured). Linux syncs a file without a thread (native AIO, IOCB_CMD_FDSYNC, since 4.18), and
says in an eventfd that it is done; so that is asked first. What it cannot do, the thread does.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import caio

from adserver.disk import sync_directory

log = logging.getLogger(__name__)

T = TypeVar("T")


class KernelSync:
    """Syncs files for one event loop without a thread. Raises Exception where this kernel, or its sandbox, does not."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._aio: Any = caio.linux_aio  # None on other systems
        self._context = self._aio.Context(8)
        self._loop = loop
        loop.add_reader(self._context.fileno, self._take)

    def start(self, fd: int, tell: Callable[[OSError | None], None]) -> None:
        """Sync *fd*'s data and *tell* how that went. Raises Exception when the file system cannot; nobody is told then.

        The file is the kernel's until that is told: *fd* may be closed meanwhile.
        """
        operation = self._aio.Operation.fdsync(fd)

        def done(result: int) -> None:
            code = (1 << 64) - result if result >> 63 else 0  # minus an error's number, as 64 bits without a sign
            # not from in here, where an exception would be lost
            self._loop.call_soon(tell, OSError(code, os.strerror(code)) if code else None)

        operation.set_callback(done)
        self._context.submit(operation)

    def _take(self) -> None:
        with suppress(BlockingIOError):
            self._context.poll()
        self._context.process_events()

    def close(self) -> None:
        """Let go; for when nothing is being synced, or the context waits for it."""
        self._loop.remove_reader(self._context.fileno)


class Syncer:
    """Syncs for one journal, and does its slow work; for the event loop's thread alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._thread = ThreadPoolExecutor(1, "journal")
        self._kernel: KernelSync | None = None
        self._kernel_tried = False
        self._began: dict[object, float] = {}
        self._ended: asyncio.Future[None] | None = None

    def hangs_s(self) -> float:
        """Seconds that what began first of all that is going on has taken so far."""
        return time.monotonic() - next(iter(self._began.values())) if self._began else 0.0

    def work(self, work: Callable[[], T], then: "Callable[[asyncio.Future[T]], None]") -> None:
        """Do *work* on the thread, one after the other, *then* go on in the loop."""
        ticket = self._begin()

        def finish(done: "asyncio.Future[T]") -> None:
            self._end(ticket)
            then(done)

        asyncio.get_running_loop().run_in_executor(self._thread, work).add_done_callback(finish)

    def _begin(self) -> object:
        ticket = object()
        self._began[ticket] = time.monotonic()
        return ticket

    def _end(self, ticket: object) -> None:
        del self._began[ticket]
        if self._ended is not None and not self._began:
            self._ended.set_result(None)

    def sync(
        self, descriptors: Sequence[int], tell: Callable[[Exception | None, float], None], *, directory: bool
    ) -> None:
        """Sync the data of *descriptors*, then the *directory*'s entries if asked for; *tell* the first error, or None,
        and the seconds it took."""
        if len(descriptors) == 1 and not directory and self._sync_by_kernel(descriptors[0], tell):
            return

        def sync() -> float:
            began = time.perf_counter()
            for descriptor in descriptors:
                os.fdatasync(descriptor)
            if directory:
                sync_directory(self._directory)
            return time.perf_counter() - began

        def finish(done: "asyncio.Future[float]") -> None:
            error = done.exception()
            if isinstance(error, Exception):
                tell(error, 0.0)
            else:
                tell(None, done.result())

        self.work(sync, finish)

    def _sync_by_kernel(self, fd: int, tell: Callable[[Exception | None, float], None]) -> bool:
        if not self._kernel_tried:
            self._kernel_tried, self._kernel = True, _open_kernel()
        if self._kernel is None:
            return False
        ticket = self._begin()
        began = time.perf_counter()

        def finish(error: OSError | None) -> None:
            self._end(ticket)
            tell(error, time.perf_counter() - began)

        try:
            self._kernel.start(fd, finish)
        except Exception as error:  # caio has one for each way to refuse
            self._end(ticket)
            log.info("%s is synced by a thread: the kernel does not (%r)", self._directory, error)
            self._let_go()
            return False
        return True

    def _let_go(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None

    async def close(self) -> None:
        """End when all that is going on has ended."""
        if self._began:
            self._ended = asyncio.get_running_loop().create_future()
            await self._ended
        self._let_go()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)


def _open_kernel() -> KernelSync | None:
    try:
        return KernelSync(asyncio.get_running_loop())
    except Exception as error:  # as above; and on other systems there is no such module
        log.info("files are synced by a thread: the kernel offers nothing else (%r)", error)
        return None
