"""A process that asks for one ad after the other until its standard input ends, and prints how long each took.

It is apart from whoever publishes meanwhile, so that it never waits for the same interpreter.
"""

import sys
import time
from http.client import HTTPConnection
from threading import Event, Thread

import msgspec

_REST_S = 0.002


def main(port: int, path: str) -> None:
    ended = Event()

    def wait() -> None:
        sys.stdin.read()
        ended.set()

    Thread(target=wait, daemon=True).start()
    took: list[tuple[float, float]] = []
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    while not ended.is_set() or not took:
        began = time.monotonic()
        connection.request("GET", path)
        connection.getresponse().read()
        took.append((began, time.monotonic() - began))
        if len(took) == 1:
            sys.stdout.buffer.write(b"\n")  # it has begun
            sys.stdout.buffer.flush()
        time.sleep(_REST_S)
    sys.stdout.buffer.write(msgspec.json.encode(took))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
