"""Servers that are there and do not do what adserver does: each fault a real one, on a real port."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nadserver-filled: 1\r\n"
Answer = Callable[[socket.socket, threading.Event], object]


def _says(answer: bytes) -> Answer:
    return lambda connection, _: connection.sendall(answer)


def _drips(connection: socket.socket, stopping: threading.Event) -> None:
    """A byte now and then, so that no wait for the next one is long."""
    for byte in b"HTTP/1.1 200 OK\r\nx-slow: " + b"y" * 6_000:
        connection.sendall(bytes([byte]))
        if stopping.wait(0.02):
            return


def _pours(connection: socket.socket, stopping: threading.Event) -> None:
    connection.sendall(OK + b"content-length: 99999999999\r\n\r\n")
    while not stopping.is_set():
        connection.sendall(b"x" * 65_536)


FAULTS: dict[str, Answer] = {
    "hangs": lambda _, stopping: stopping.wait(),
    "drips": _drips,
    "pours": _pours,
    "hangs up": lambda connection, _: connection.close(),
    "breaks off": _says(OK + b"content-length: 900\r\n\r\n<aside>"),
    "fails": _says(b"HTTP/1.1 500 Oh\r\ncontent-length: 6\r\n\r\n<oops>"),
    "refuses": _says(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nretry-after: 1\r\n\r\n"),
    "sends elsewhere": _says(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
    "is another server": _says(b"HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n<h1>It works!</h1>\n"),
    "answers too little": _says(OK + b"content-length: 8\r\n\r\n<aside/>"),
    "speaks no UTF-8": _says(OK + b"content-length: 2\r\n\r\n\xff\xfe"),
    "speaks no HTTP": _says(b"220 mail.example.com ESMTP\r\n"),
}
SLOW = ("hangs", "drips", "pours")
"""Those that never come to an end by themselves."""


class Peer:
    """A server of one fault. *calls* counts how often it was asked for ads."""

    def __init__(self, answer: Answer, heard: list[bytes] | None = None) -> None:
        self._answer = answer
        self._heard = heard
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.calls = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._stopping.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self._talk, args=[connection], daemon=True)
            thread.start()
            self._threads.append(thread)

    def _talk(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = connection.recv(65_536)
            if self._heard is not None:
                self._heard.append(request)
            self.calls += b" /render" in request or b" /ads/" in request
            if request:
                self._answer(connection, self._stopping)

    def stop(self) -> None:
        self._stopping.set()
        with suppress(OSError):  # wakes `accept`, which closing alone does not
            socket.create_connection(("127.0.0.1", self._listener.getsockname()[1]), 1).close()
        for thread in self._threads:
            thread.join(10)


@contextmanager
def peer(fault: str, answer: Answer | None = None, heard: list[bytes] | None = None) -> Iterator[Peer]:
    """A server that has *fault*, or that gives *answer*; what it was asked goes into *heard*."""
    found = Peer(answer or FAULTS[fault], heard)
    serving = threading.Thread(target=found.serve, daemon=True)
    serving.start()
    try:
        yield found
    finally:
        found.stop()
        serving.join(10)
        found._listener.close()
