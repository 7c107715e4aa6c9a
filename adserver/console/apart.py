"""Work of seconds in a process of its own: in a thread it would hold the interpreter, and ads would wait for it.

The process gets a function of a module and its arguments, and gives back what it returns or raises. It is ended when it
takes too long or nobody waits for it any more, runs below the priority of whoever answers readers, and there are never
more than two of one worker.
"""

import asyncio
import os
import pickle  # between two processes of this program alone
import sys
from collections.abc import Callable
from typing import Any, TypeVar

LONGEST_S = 60.0
_AT_ONCE = asyncio.Semaphore(2)
_NICE = 10

_T = TypeVar("_T")


class TooLong(Exception):
    """The work was not done in time and is given up."""


async def apart(work: Callable[..., _T], *arguments: Any, within_s: float = LONGEST_S) -> _T:
    """What `work(*arguments)` returns or raises. Raises TooLong."""
    asked = await asyncio.to_thread(pickle.dumps, (work, arguments))
    pipe = asyncio.subprocess.PIPE
    async with _AT_ONCE:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", __name__, stdin=pipe, stdout=pipe)
        try:
            answer, _ = await asyncio.wait_for(process.communicate(asked), within_s)
        except TimeoutError:
            raise TooLong(f"it took longer than {within_s:g} seconds and was given up") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode:
        raise RuntimeError(f"{work.__name__} in a process of its own ended with {process.returncode}")
    returned, raised = await asyncio.to_thread(pickle.loads, answer)
    if raised is not None:
        raise raised
    found: _T = returned
    return found


def main() -> None:
    os.nice(_NICE)
    work, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by the process that started this one
    answer: tuple[Any, Exception | None]
    try:
        answer = work(*arguments), None
    except Exception as error:
        answer = None, error
    sys.stdout.buffer.write(pickle.dumps(answer))


if __name__ == "__main__":
    main()
