"""Background loops: they live as long as the server, and it does not live on without them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adserver.background import follow_parent, running, wait_for_any

ROOT = Path(__file__).parent.parent.parent


def test_loops_run_beside_the_body_and_finish_with_it() -> None:
    """
    At the end each is told to stop and waited for.
    """
    told: list[str] = []

    async def loop(stopping: asyncio.Event) -> None:
        told.append("began")
        await stopping.wait()
        await asyncio.sleep(0)
        told.append("finished")

    async def main() -> None:
        async with running(loop, loop, grace_s=5):
            await asyncio.sleep(0)
            assert told == ["began", "began"]
        assert told == ["began", "began", "finished", "finished"]

    asyncio.run(main())


def test_a_loop_that_does_not_finish_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    """
    After the grace it is cancelled, which is told.
    """
    cancelled = False

    async def stubborn(stopping: asyncio.Event) -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    async def main() -> None:
        began = time.monotonic()
        async with running(stubborn, grace_s=0.05):
            pass
        assert time.monotonic() - began < 2

    asyncio.run(main())
    assert cancelled
    assert "did not finish" in caplog.text


def test_loops_end_also_when_the_body_fails() -> None:
    """
    The body's own exception comes through.
    """
    finished = False

    async def loop(stopping: asyncio.Event) -> None:
        nonlocal finished
        await stopping.wait()
        finished = True

    async def main() -> None:
        async with running(loop, grace_s=5):
            raise LookupError("of the body")

    with pytest.raises(LookupError, match="of the body"):
        asyncio.run(main())
    assert finished


def test_a_loop_that_fails_ends_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    """
    It is logged with its traceback, the process gets SIGTERM, and the other loops still finish.
    """
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    finished = False

    async def broken(stopping: asyncio.Event) -> None:
        raise RuntimeError("of the loop")

    async def other(stopping: asyncio.Event) -> None:
        nonlocal finished
        await stopping.wait()
        finished = True

    async def main() -> None:
        async with running(broken, other, grace_s=5):
            async with asyncio.timeout(5):
                while not heard:  # noqa: ASYNC110 - a signal's handler sets it
                    await asyncio.sleep(0.001)

    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
    assert finished
    assert "of the loop" in caplog.text


def test_a_worker_does_not_outlive_its_supervisor() -> None:
    """
    When the parent is killed the child notices and ends itself.
    """
    child = "import asyncio, os; from adserver.background import follow_parent\n"
    child += "parent = os.getppid()\n"  # before it says anything: then its parent is killed
    child += "print(os.getpid(), flush=True)\n"
    child += "asyncio.run(follow_parent(asyncio.Event(), parent, 0.02))"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, "-c", parent], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    grandchild = int(process.stdout.readline())

    process.kill()
    process.wait()

    process.stdout.read()  # ends when the last holder of the pipe has
    process.stdout.close()
    deadline = time.monotonic() + 5
    while _is_alive(grandchild):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_following_the_parent_ends_with_the_server() -> None:
    """
    While the supervisor lives, the loop ends when it is told to.
    """

    async def main() -> None:
        stopping = asyncio.Event()
        task = asyncio.create_task(follow_parent(stopping, os.getppid(), 30))
        await asyncio.sleep(0)
        stopping.set()
        await asyncio.wait_for(task, 5)

    asyncio.run(main())


def test_a_wait_ends_with_the_first_event_or_with_its_time() -> None:
    """
    Whoever waits for several events goes on with the first of them, or after the time given.
    """

    async def main() -> None:
        one, other = asyncio.Event(), asyncio.Event()
        waiting = asyncio.create_task(wait_for_any(60, one, other))
        await asyncio.sleep(0)
        assert not waiting.done()
        other.set()
        async with asyncio.timeout(5):
            await waiting
            await wait_for_any(0.01, one)
            await wait_for_any(None, one, other)

    asyncio.run(main())


def test_a_wait_that_is_cancelled_leaves_nobody_waiting() -> None:
    """
    No task stays behind that waits for the events.
    """

    async def main() -> None:
        waiting = asyncio.create_task(wait_for_any(None, asyncio.Event(), asyncio.Event()))
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 4
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
