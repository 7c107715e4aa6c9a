"""Loops that live exactly as long as the server."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from adserver.steps import Steps

log = logging.getLogger(__name__)

_STEPS_S = 0.0005
_T = TypeVar("_T")

Loop = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set, then finishes what it must and returns."""


@asynccontextmanager
async def running(*loops: Loop, grace_s: float) -> AsyncIterator[None]:
    """Run *loops* beside the body; when the body ends, ask them to finish and give them *grace_s* seconds."""
    stopping = asyncio.Event()
    tasks = [asyncio.create_task(_stop_server_on_failure(loop, stopping)) for loop in loops]
    try:
        yield
    finally:
        stopping.set()
        _, late = await asyncio.wait(tasks, timeout=grace_s)
        for task in late:
            log.warning("a background loop did not finish within %.0f s", grace_s)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _stop_server_on_failure(loop: Loop, stopping: asyncio.Event) -> None:
    """uvicorn would go on answering without the loop: end this worker instead, the journal makes that safe."""
    try:
        await loop(stopping)
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("a background loop failed; this worker ends and another takes its place")
        os.kill(os.getpid(), signal.SIGTERM)


async def follow_parent(stopping: asyncio.Event, parent: int, every_s: float = 0.5) -> None:
    """End this worker when its supervisor is gone, so that none lives on unsupervised."""
    while not stopping.is_set():
        if os.getppid() != parent:
            log.error("the supervisor is gone; this worker ends")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        await wait_for_any(every_s, stopping)


async def wait_for_any(timeout_s: float | None, *events: asyncio.Event) -> None:
    """Wait until one of *events* is set, or *timeout_s* have gone by."""
    sleeping = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(sleeping, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in sleeping:
            task.cancel()


async def in_steps(work: Steps[_T]) -> _T:
    """What *work* returns. Between its steps requests are answered: none waits for it longer than a step takes."""
    while True:
        until = time.perf_counter() + _STEPS_S
        try:
            while time.perf_counter() < until:
                next(work)
        except StopIteration as done:
            found: _T = done.value
            return found
        await asyncio.sleep(0)
