"""A real WordPress of Debian's packages for tests, with MariaDB, php-fpm and nginx of its own, all in one directory."""

import base64
import getpass
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.live import REPOSITORY, client, eventually, free_port

WORDPRESS = Path("/usr/share/wordpress")
PLUGIN = REPOSITORY / "integrations" / "wordpress" / "adserver"
HERE = Path(__file__).parent / "php"
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_RESULT = "\n==result==\n"
USER, PASSWORD = "desk", "of a test"

_CONFIG = """<?php
define( 'DB_NAME', 'wordpress' );
define( 'DB_USER', {user} );
define( 'DB_PASSWORD', '' );
define( 'DB_HOST', 'localhost:{home}/db.sock' );
define( 'DB_CHARSET', 'utf8mb4' );
define( 'WP_CONTENT_DIR', __DIR__ . '/wp-content' );
define( 'WP_HTTP_BLOCK_EXTERNAL', true );
define( 'WP_ACCESSIBLE_HOSTS', '127.0.0.1,*.invalid' );
define( 'DISABLE_WP_CRON', true );
define( 'AUTOMATIC_UPDATER_DISABLED', true );
define( 'WP_DEBUG', true );
define( 'WP_DEBUG_DISPLAY', false );
define( 'WP_DEBUG_LOG', '{home}/debug.log' );
if ( ! defined( 'WP_CACHE' ) ) {{
	define( 'WP_CACHE', file_exists( '{home}/page-cache-is-on' ) );
}}
foreach ( array( 'AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY', 'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT' ) as $n ) {{
	define( $n, "$n of a test" );
}}
if ( ! defined( 'ABSPATH' ) ) {{
	define( 'ABSPATH', __DIR__ . '/' );
}}
$table_prefix = 'wp_';
require_once ABSPATH . 'wp-settings.php';
"""  # noqa: E501

_INSTALL = """
function wp_new_blog_notification() {} // sends a mail
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
wp_install( 'The Courier', %s, 'desk@courier.example', true, '', %s );
switch_theme( 'courier' );
update_option( 'blog_public', 1 );
require_once ABSPATH . 'wp-admin/includes/plugin.php';
$failed = activate_plugin( 'adserver/adserver.php' );
return is_wp_error( $failed ) ? $failed->get_error_message() : true;
"""

_FPM = """[global]
pid = {home}/fpm.pid
error_log = {home}/fpm.log
daemonize = no
[www]
user = {user}
listen = {home}/fpm.sock
pm = static
pm.max_children = 3
catch_workers_output = yes
php_admin_value[error_log] = {home}/debug.log
"""

_NGINX = """{root}daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/nginx.log warn;
events {{ worker_connections 256; }}
http {{
    access_log off; {paths}
    types {{ text/html html; text/css css; text/javascript js; }}
    server {{
        listen 127.0.0.1:{port};
        root {home}/wp;
        index index.php;
        location / {{ try_files $uri $uri/ /index.php?$args; }}
        location ~ \\.php$ {{
            include /etc/nginx/fastcgi_params;
            fastcgi_param HTTP_HOST 127.0.0.1:{port}; # Debian's leave the port out
            fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
            fastcgi_pass unix:{home}/fpm.sock;
        }}
    }}
}}
"""


def program(*names: str) -> str:
    """The first of *names* that is installed; skips the test where none is."""
    for name in names:
        if found := shutil.which(name, path=_PATH):
            return found
        if matching := sorted(Path("/usr/sbin").glob(f"{name}[0-9]*")):
            return str(matching[-1])
    pytest.skip(f"{names[0]} is not installed: run tools/install-system-programs")


class WordPress:
    """A running WordPress with the plugin in it. *home* is its directory, *url* its address."""

    def __init__(self, home: Path, port: int, php: str) -> None:
        self.home = home
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.wp = home / "wp"
        self._php = php
        self.http = client(self.url, timeout_s=30)

    def php(self, code: str, defines: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None) -> Any:
        """What *code* returns inside WordPress, from the command line."""
        done = subprocess.run(
            [self._php, "-d", "error_log=" + str(self.home / "debug.log"), str(HERE / "run.php")],
            input=code,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
            env={
                "PATH": _PATH,
                "SITE_HOME": str(self.wp),
                "SITE_HOST": f"127.0.0.1:{self.port}",
                "SITE_DEFINES": json.dumps(dict(defines or {})),
                **(environ or {}),
            },
        )
        assert _RESULT in done.stdout, f"{done.returncode}: {done.stdout[-2000:]} {done.stderr[-2000:]} {self.log()}"
        return json.loads(done.stdout.partition(_RESULT)[2])

    def command(
        self, name: str, *words: str, environ: Mapping[str, str] | None = None, **options: Any
    ) -> tuple[int, str]:
        """A command of `wp`: its exit code, and what it said."""
        code = f"return WP_CLI::run( '{name}', {quote(words)}, {quote(options)} );"
        status, said = self.php(code, environ={"SITE_COMMANDS": "1", **(environ or {})})
        return status, "\n".join(said)

    def set(self, **options: str) -> None:
        """The plugin's settings, with nothing remembered of what was before."""
        self.php(
            "wp_cache_flush(); global $wpdb;"
            "$wpdb->query( \"DELETE FROM $wpdb->options WHERE option_name LIKE '%transient_adserver%'\" );"
            "$wpdb->query( \"DELETE FROM $wpdb->options WHERE option_name LIKE '%transient_timeout_adserver%'\" );"
            f"wp_cache_flush(); delete_option( 'adserver' ); add_option( 'adserver', {quote(options)} ); return 1;"
        )

    def post(self, content: str, **more: Any) -> str:
        """A published post's address, as a path."""
        [path] = self.posts([content], **more)
        return path

    def posts(self, contents: Sequence[str], **more: Any) -> list[str]:
        """Published posts' addresses, as paths."""
        values = {"post_title": "News", "post_status": "publish", **more}
        addresses = self.php(
            f"return array_map( function ( $text ) {{ return get_permalink( wp_insert_post( wp_slash( {quote(values)}"
            f" + array( 'post_content' => $text ) ) ) ); }}, {quote(contents)} );"
        )
        return [str(address.removeprefix(self.url)) for address in addresses]

    def read(self, path: str, **headers: str) -> httpx.Response:
        answer = self.http.get(path, headers=headers)
        assert answer.status_code == 200, (
            f"{answer.status_code} {answer.headers} {answer.text[:2000]} {self.log()[-4000:]}"
        )
        return answer

    def log(self) -> str:
        """What PHP has complained of, and the plugin has told."""
        with suppress(FileNotFoundError):
            return (self.home / "debug.log").read_text("utf-8")
        return ""

    def forget_log(self) -> None:
        (self.home / "debug.log").write_text("")

    @contextmanager
    def signed_in(self, user: str = USER, password: str = PASSWORD) -> Iterator[httpx.Client]:
        """A browser of the site's owner, or of another *user*."""
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False, follow_redirects=True) as http:
            http.get("/wp-login.php")
            to = f"{self.url}/wp-admin/profile.php"
            answer = http.post("/wp-login.php", data={"log": user, "pwd": password, "redirect_to": to})
            assert answer.url.path == "/wp-admin/profile.php", answer.text[:2000]
            yield http

    @contextmanager
    def page_cache(self) -> Iterator[None]:
        """With a page cache."""
        dropped = self.wp / "wp-content" / "advanced-cache.php"
        shutil.copy(HERE / "advanced-cache.php", dropped)
        (self.home / "page-cache-is-on").touch()
        try:
            yield
        finally:
            (self.home / "page-cache-is-on").unlink()
            dropped.unlink()
            for page in (self.wp / "wp-content").glob("pages-*"):
                page.unlink()


def quote(value: Any) -> str:
    """*value* as PHP code."""
    return f"json_decode( base64_decode( '{_base64(json.dumps(value))}' ), true )"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@contextmanager
def wordpress(home: Path) -> Iterator[WordPress]:
    """Everything of it is started here and ended here. Skips the test where a program is missing."""
    if not (WORDPRESS / "wp-load.php").exists():
        pytest.skip("WordPress is not installed: run tools/install-system-programs")
    nginx, fpm, php = program("nginx"), program("php-fpm"), program("php")
    mariadbd, install_db, mariadb = program("mariadbd"), program("mariadb-install-db"), program("mariadb")
    user, port = getpass.getuser(), free_port()
    (home / "db").mkdir()
    (home / "tmp").mkdir()  # a MariaDB that starts removes the tables that others keep in /tmp
    shutil.copytree(WORDPRESS, home / "wp", ignore=shutil.ignore_patterns("wp-config.php", ".htaccess", "akismet"))
    content = home / "wp" / "wp-content"
    (content / "plugins" / "adserver").symlink_to(PLUGIN)
    for plugin in (HERE / "plugins").iterdir():
        shutil.copy(plugin, content / "plugins")
    shutil.copytree(HERE / "theme", content / "themes" / "courier")
    (home / "wp" / "wp-config.php").write_text(_CONFIG.format(home=home, user=f"'{user}'"))
    with ExitStack() as started:

        def start(*command: str) -> "subprocess.Popen[bytes]":
            log = started.enter_context((home / f"{Path(command[0]).name}.out").open("wb"))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home)
            started.callback(_end, process)
            return process

        options = [
            "--no-defaults", f"--datadir={home}/db", f"--tmpdir={home}/tmp", f"--user={user}",
            "--innodb-buffer-pool-size=24M", "--innodb-log-file-size=4M", "--innodb-flush-log-at-trx-commit=0",
            "--innodb-doublewrite=0",
        ]  # fmt: skip
        made = subprocess.run(
            [install_db, *options, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"],
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        assert made.returncode == 0, made.stdout + made.stderr
        base = [f"--socket={home}/db.sock", "--skip-networking", f"--pid-file={home}/db.pid", "--skip-log-bin"]
        database = start(mariadbd, *options, *base, "--performance-schema=off")
        ask = [mariadb, "--no-defaults", f"--socket={home}/db.sock", "--user=root", "--batch", "--execute"]
        grants = f"CREATE DATABASE wordpress CHARACTER SET utf8mb4; {_grant(user)}"
        eventually(lambda: _runs([*ask, "SELECT 1"], database, home), 30, "MariaDB's start")
        subprocess.run([*ask, grants], check=True, capture_output=True)
        (home / "fpm.conf").write_text(_FPM.format(home=home, user=user))
        start(fpm, "--nodaemonize", *(["--allow-to-run-as-root"] if os.getuid() == 0 else []), "-y", f"{home}/fpm.conf")
        paths = "".join(f"{kind}_temp_path {home}/{kind};" for kind in _NGINX_KINDS)
        root = "user root; " if os.getuid() == 0 else ""
        (home / "nginx.conf").write_text(_NGINX.format(home=home, port=port, paths=paths, root=root))
        start(nginx, "-e", f"{home}/nginx.log", "-p", str(home), "-c", f"{home}/nginx.conf")
        site = WordPress(home, port, php)
        started.callback(site.http.close)
        install = _INSTALL % (f"'{USER}'", f"'{PASSWORD}'")
        assert site.php(install, {"WP_INSTALLING": True, "WP_SITEURL": site.url}) is True
        eventually(lambda: _answers(site), 20, "WordPress's first page")
        yield site


_NGINX_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def _grant(user: str) -> str:
    return "" if user == "root" else f"CREATE USER '{user}'@'localhost'; GRANT ALL ON *.* TO '{user}'@'localhost';"


def _runs(command: Sequence[str], database: "subprocess.Popen[bytes]", home: Path) -> bool:
    assert database.poll() is None, (home / "mariadbd.out").read_text()
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _answers(site: WordPress) -> bool:
    with suppress(httpx.TransportError):
        return site.http.get("/").status_code == 200
    return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
