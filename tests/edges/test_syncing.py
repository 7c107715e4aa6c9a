"""Syncs by the kernel: what is told, when, and what takes over where there is none."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import caio
import pytest

from adserver import syncing
from adserver.syncing import KernelSync, Syncer
from tests.edges.journals import settled


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, b"x" * 100)
    yield fd
    os.close(fd)


def with_syncer(directory: Path, body: Callable[[Syncer], Awaitable[None]]) -> None:
    async def main() -> None:
        syncer = Syncer(directory)
        await body(syncer)
        await syncer.close()

    asyncio.run(main())


async def sync(syncer: Syncer, *descriptors: int, directory: bool = False) -> Exception | None:
    told: list[tuple[Exception | None, float]] = []
    syncer.sync(descriptors, lambda *what: told.append(what), directory=directory)
    assert not told
    await settled(lambda: told)
    assert len(told) == 1
    assert told[0][1] >= 0
    return told[0][0]


def test_the_kernel_syncs_a_file_without_a_thread(tmp_path: Path, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One file's data is the kernel's to sync; several, or a directory's entries, are the thread's.
    """
    by_thread: list[int] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        by_thread.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)

    async def body(syncer: Syncer) -> None:
        for _ in range(20):
            assert await sync(syncer, file) is None
        assert not by_thread
        assert await sync(syncer, file, file) is None
        assert await sync(syncer, file, directory=True) is None
        assert by_thread == [file] * 3
        assert syncer.hangs_s() == 0

    with_syncer(tmp_path, body)


def test_a_kernel_that_fails_says_which_error(tmp_path: Path, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A negative result is the error's number. (Replaced here; test_journal_syncing has a real process whose syncs fail.)
    """
    callbacks: list[Callable[[int], None]] = []
    operation = SimpleNamespace(set_callback=callbacks.append)
    context = caio.linux_aio.Context(1)
    aio = SimpleNamespace(
        Operation=SimpleNamespace(fdsync=lambda _: operation),
        Context=lambda _: SimpleNamespace(
            fileno=context.fileno, submit=lambda _: callbacks.pop()((1 << 64) - errno.EIO), poll=int
        ),
    )
    monkeypatch.setattr(caio, "linux_aio", aio)

    async def body(syncer: Syncer) -> None:
        error = await sync(syncer, file)
        assert isinstance(error, OSError)
        assert error.errno == errno.EIO

    with_syncer(tmp_path, body)


def test_what_the_kernel_cannot_sync_the_thread_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    A descriptor that the kernel refuses at once goes to the thread, and so do all that follow; the log says so once.
    """
    caplog.set_level("INFO")
    reading, writing = os.pipe()
    with (tmp_path / "file").open("wb") as good:

        async def body(syncer: Syncer) -> None:
            error = await sync(syncer, writing)
            assert isinstance(error, OSError)  # the thread cannot either
            assert error.errno == errno.EINVAL
            assert await sync(syncer, good.fileno()) is None

        with_syncer(tmp_path, body)
    os.close(reading)
    os.close(writing)
    assert [record.getMessage()[:9] for record in caplog.records if "synced by a thread" in record.getMessage()] == [
        str(tmp_path)[:9]
    ]


def test_a_system_without_such_a_kernel_syncs_by_thread(
    tmp_path: Path, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Elsewhere than on Linux, or where a sandbox forbids it, nothing is different for whoever waits.
    """
    monkeypatch.setattr(caio, "linux_aio", None)

    async def body(syncer: Syncer) -> None:
        assert await sync(syncer, file) is None

    with_syncer(tmp_path, body)


def test_closing_waits_for_what_is_being_synced(tmp_path: Path, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What began first counts as the time the disk has not answered; close returns only when that has been told.
    """
    waiting: list[Callable[[OSError | None], None]] = []

    class Hanging(KernelSync):
        def start(self, fd: int, tell: Callable[[OSError | None], None]) -> None:
            waiting.append(tell)

    monkeypatch.setattr(syncing, "_open_kernel", lambda: Hanging(asyncio.get_running_loop()))

    async def main() -> None:
        told: list[Exception | None] = []
        syncer = Syncer(tmp_path)
        syncer.sync([file], lambda error, _: told.append(error), directory=False)
        done = asyncio.Event()
        syncer.work(lambda: None, lambda _: done.set())
        await done.wait()
        hung = syncer.hangs_s()
        assert hung > 0
        closing = asyncio.create_task(syncer.close())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not closing.done()
        assert syncer.hangs_s() > hung
        waiting.pop()(None)
        await closing
        assert told == [None]

    asyncio.run(main())
