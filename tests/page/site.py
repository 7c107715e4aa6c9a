"""A newsroom's web server for tests: pages of its own origin, beside the ad server's."""

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = tuple[str, Mapping[str, str]]
"""A page and its headers."""


class Site:
    """Serves *pages*, each a text, or what makes one when it is asked for; *asked* are the paths in their order."""

    def __init__(self) -> None:
        self.pages: dict[str, str | Answer | Callable[[], str | Answer]] = {}
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked.append(self.path)
                found = site.pages.get(self.path.partition("?")[0])
                made = found() if callable(found) else found
                text, headers = made if isinstance(made, tuple) else (made or "", {})
                body = text.encode()
                self.send_response(404 if found is None else 200)
                said = {"content-type": "text/html; charset=utf-8", "cache-control": "no-cache", **headers}
                for name, value in said.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Keeps tests' output clean."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
