"""Real nginx, Varnish and Apache on the example configurations, in front of a real site; only addresses are changed."""

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.service.live import REPOSITORY, client, eventually, free_port

EXAMPLES = REPOSITORY / "integrations"
PROXIES = [pytest.param(name, marks=pytest.mark.system) for name in ("nginx", "varnish", "apache")]
PROGRAMS = {"nginx": "nginx", "varnish": "varnishd", "apache": "apache2"}
PATIENT = {
    "nginx": {"_timeout 100ms": "_timeout 10s", "_timeout 200ms": "_timeout 10s"},
    "varnish": {
        "timeout = 100ms": "timeout = 10s",
        "timeout = 150ms": "timeout = 10s",
        "timeout = 300ms": "timeout = 10s",
    },
    "apache": {"connectiontimeout=100ms timeout=1": "connectiontimeout=10s timeout=10"},
}
_MODULES = "/usr/lib/apache2/modules"
_APACHE = (
    "mpm_event", "authz_core", "cache", "cache_disk", "headers", "include", "lbmethod_byrequests", "proxy",
    "proxy_balancer", "proxy_http", "rewrite", "slotmem_shm",
)  # fmt: skip
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


class Site:
    """The site behind the proxy: it serves the example's page, and says in it for which host and cookie it is.

    *asked* counts how often it did. A page below /welcome gives its reader a cookie of their own.
    """

    def __init__(self, page: str) -> None:
        self.page = page
        self.asked = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site.asked += 1
                page = site.page.replace("HOST", self.headers["host"])
                body = page.replace("COOKIE", self.headers.get("cookie", "nobody")).encode()
                self.send_response(200)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("cache-control", "max-age=60")
                if self.path.startswith("/welcome"):
                    self.send_header("set-cookie", f"reader={site.asked}")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])

    def __enter__(self) -> "Site":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()


def example_page(kind: str) -> str:
    return (EXAMPLES / kind / "page.html").read_text("utf-8")


def put_in_place(text: str, places: Mapping[str, str]) -> str:
    """*text* with every one of *places* changed; each must be there."""
    for old, new in places.items():
        assert old in text, f"{old!r} is not in the example any more"
        text = text.replace(old, new)
    return text


@contextmanager
def proxy(kind: str, home: Path, site: str, ads: str, *, patient: bool = True) -> Iterator[str]:
    """The example's proxy in front of *site* and *ads*, both `host:port`; yields its URL.

    A *patient* one waits for 10 s where the example waits for a fraction of one, whatever else the machine does.
    """
    with command(kind, home, site, ads, patient=patient) as (arguments, url), running(arguments, home, url):
        yield url


@contextmanager
def command(kind: str, home: Path, site: str, ads: str, *, patient: bool = True) -> Iterator[tuple[list[str], str]]:
    """How the example's proxy is started, and its URL then."""
    program = shutil.which(PROGRAMS[kind], path=_PATH)
    if program is None:
        pytest.skip(f"{PROGRAMS[kind]} is not installed: run tools/install-system-programs")
    port = free_port()
    start = {"nginx": _start_nginx, "varnish": _start_varnish, "apache": _start_apache}[kind]
    with tempfile.TemporaryDirectory() as cache:
        Path(cache).chmod(0o777)  # Apache, started as root, works as nobody, who cannot enter pytest's directories
        arguments = start(home, cache, port, site, ads, PATIENT[kind] if patient else {})
        yield [program, *arguments], f"http://127.0.0.1:{port}"


@contextmanager
def running(arguments: list[str], home: Path, url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A started proxy that answers. Its processes are a group of their own."""
    with (home / "log").open("ab") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            eventually(lambda: _answers(process, home, url), 30, "the proxy's first answer")
            yield process
        finally:
            process.terminate()
            process.wait(20)


def _answers(process: "subprocess.Popen[bytes]", home: Path, url: str) -> bool:
    assert process.poll() is None, (home / "log").read_text()
    with suppress(httpx.TransportError), client(url) as http:
        return http.get("/_ads/1").status_code in (204, 404)
    return False


def _start_nginx(home: Path, cache: str, port: int, site: str, ads: str, changes: Mapping[str, str]) -> list[str]:
    places = {
        **changes,
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "127.0.0.1:9000": site,
        "127.0.0.1:8000": ads,
        "127.0.0.1:8079": f"127.0.0.1:{free_port()}",
        "/var/cache/": f"{cache}/",
        "fail_timeout=30s": "fail_timeout=3s",
    }
    (home / "adserver.conf").write_text(put_in_place((EXAMPLES / "nginx/adserver.conf").read_text("utf-8"), places))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {home}/{kind};\n" for kind in kinds)
    (home / "nginx.conf").write_text(
        f"user root; daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log warn;\n"
        "events { worker_connections 512; }\n"
        f"http {{ access_log off; {paths} include {home}/adserver.conf; }}\n"
    )
    return ["-e", str(home / "error.log"), "-p", str(home), "-c", str(home / "nginx.conf")]


def _start_varnish(home: Path, cache: str, port: int, site: str, ads: str, changes: Mapping[str, str]) -> list[str]:
    places = {
        **changes,
        '.host = "127.0.0.1";\n    .port = "9000"': _backend(site),
        '.host = "127.0.0.1";\n    .port = "8000"': _backend(ads),
    }
    (home / "adserver.vcl").write_text(put_in_place((EXAMPLES / "varnish/adserver.vcl").read_text("utf-8"), places))
    return [
        *("-F", "-n", str(home / "n"), "-f", str(home / "adserver.vcl"), "-a", f"127.0.0.1:{port}"),
        *("-j", "none", "-s", "malloc,16m", "-p", "thread_pools=1", "-p", "thread_pool_min=10"),
    ]


def _start_apache(home: Path, cache: str, port: int, site: str, ads: str, changes: Mapping[str, str]) -> list[str]:
    places = {
        **changes,
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "127.0.0.1:9000": site,
        "127.0.0.1:8000": ads,
        "/var/cache/apache2/mod_cache_disk": cache,
        "retry=30": "retry=3",
    }
    (home / "adserver.conf").write_text(put_in_place((EXAMPLES / "apache/adserver.conf").read_text("utf-8"), places))
    modules = "".join(f"LoadModule {name}_module {_MODULES}/mod_{name}.so\n" for name in _APACHE)
    (home / "apache2.conf").write_text(
        f"ServerRoot {home}\nServerName localhost\nPidFile {home}/pid\nErrorLog {home}/error.log\n"
        f"DefaultRuntimeDir {home}\nMutex file:{home}\nUser nobody\nGroup nogroup\n"
        f"{modules}Include {home}/adserver.conf\n"
    )
    return ["-DFOREGROUND", "-d", str(home), "-f", str(home / "apache2.conf")]


def _backend(address: str) -> str:
    host, _, port = address.partition(":")
    return f'.host = "{host}";\n    .port = "{port}"'
