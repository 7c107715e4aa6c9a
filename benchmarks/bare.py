"""The measure of speed: ASGI functions that do nothing but answer, on the very server the service runs on.

`python -m benchmarks.bare answer FILE` sends the answer that FILE holds, whatever is asked; `… echo` reads the body
and sends it back. It prints the port it listens on and runs until it is terminated.
"""

import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from uvicorn import Config, Server

Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def answer(head_and_body: bytes) -> App:
    """Always the same answer: a header a line, an empty line, the body."""
    head, _, body = head_and_body.partition(b"\n\n")
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in head.split(b"\n"))]

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


async def echo(_: Scope, receive: Receive, send: Send) -> None:
    """Whatever was sent."""
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message["body"])
        more = message["more_body"]
    body = b"".join(parts)
    headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(arguments: list[str]) -> None:
    app = echo if arguments[0] == "echo" else answer(Path(arguments[1]).read_bytes())
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    # What the service gives uvicorn, except for its own protocol class, which is part of what is measured.
    config = Config(
        app,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=10_000,
        timeout_keep_alive=5,
    )
    print(listening.getsockname()[1], flush=True)
    Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1:])
