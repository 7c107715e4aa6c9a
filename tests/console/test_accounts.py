"""The command line's `user`."""

import asyncio
import fcntl
import io
import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from adserver import accounts
from adserver.cli import main
from adserver.console import audit
from adserver.console.api_tokens import find_token, make_token
from adserver.console.links import find_link, use_link
from adserver.console.people import Role, read_person, verify_password
from adserver.console.sessions import find_session, open_session
from adserver.errors import BadPerson
from adserver.store import Store, open_store
from tests.edges.servers import free_ports, running_server
from tests.service.live import Service

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse battery"


class Console:
    """The command line on one store, and a look into that store."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.capsys = capsys
        self.monkeypatch = monkeypatch

    def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit code, output, errors of `adserver user`."""
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            code = main(["user", *arguments, "--redis-url", self.url])
        except SystemExit as stop:
            code = int(str(stop.code))
        said = self.capsys.readouterr()
        return code, said.out, said.err

    def look(self, body: Callable[[Store], Awaitable[Any]]) -> Any:
        async def look() -> Any:
            async with open_store(self.url) as store:
                return await body(store)

        return asyncio.run(look())


@pytest.fixture
def console(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Console:
    for name in [name for name in os.environ if name.startswith("ADSERVER_")]:
        monkeypatch.delenv(name)
    return Console(url, capsys, monkeypatch)


def test_a_person_from_beginning_to_end(console: Console, tmp_path: Path) -> None:
    """
    Added with a password from standard input, listed, given a role and a password from a file, removed; each change
    is in force at once and in the audit log under the name of who ran the command.
    """
    added = console.run(
        "add", "Ann@Courier.Example", "--role", "sales", "--password-file", "-", stdin=f"{PASSWORD}\nmore"
    )
    assert added == (0, "Added ann@courier.example as sales.\n", "")
    name = "ann@courier.example"
    person = console.look(lambda store: verify_password(store, name, PASSWORD))
    assert person
    assert person.role is Role.SALES
    token = console.look(lambda store: open_session(store, person, 1_772_000_000.0, "192.0.2.7"))

    assert console.run("role", name, "viewer") == (0, f"{name} is viewer now.\n", "")
    assert console.look(lambda store: find_session(store, token, 1_772_000_001.0)) is None
    (tmp_path / "password").write_text("another fine password\r\n")
    code, out, _ = console.run("passwd", name, "--password-file", str(tmp_path / "password"))
    assert (code, out) == (0, f"{name} has another password; their sessions have ended.\n")
    assert console.look(lambda store: verify_password(store, name, "another fine password"))
    code, out, _ = console.run("list", "--json")
    (row,) = json.loads(out)
    assert (row["name"], row["role"], row["has_password"], row["last_sign_in"]) == (
        name, "viewer", True, "2026-02-25T06:13Z",
    )  # fmt: skip
    code, out, _ = console.run("list")
    assert out.splitlines()[0].split() == ["name", "role", "added", "last", "sign-in", "password"]
    assert name in out
    assert console.run("remove", name) == (0, f"Removed {name}; their sessions, links and API tokens have ended.\n", "")
    assert console.look(lambda store: read_person(store, name)) is None

    entries = [one.entry for one in console.look(audit.read).entries]
    assert [(one.what, one.subject) for one in entries] == [
        ("removes person", name), ("sets password", name), ("sets role", name), ("adds person", name),
    ]  # fmt: skip
    assert {one.who for one in entries} == {f"command line:{accounts.os_user()}"}
    assert PASSWORD not in str(entries)


def test_a_link_instead_of_a_password(console: Console) -> None:
    """
    Nobody but its owner ever knows the password; a second link replaces the first.
    """
    code, out, err = console.run("add", "ann", "--role", "admin", "--link", "--public-url", "https://ads.example/")
    assert (code, err) == (0, "")
    assert "once, within 24 hours" in out
    first = out.splitlines()[-1]
    assert first.startswith("https://ads.example/console/link/")
    code, out, _ = console.run("passwd", "ann", "--link")
    second = out.splitlines()[-1]
    assert second.startswith("http://127.0.0.1:8000/console/link/")
    now = console.look(audit.read).entries[0].entry.at
    token = second.rpartition("/")[2]
    assert console.look(lambda store: find_link(store, first.rpartition("/")[2], now)) is None
    assert console.look(lambda store: use_link(store, token, PASSWORD, now))
    assert console.look(lambda store: verify_password(store, "ann", PASSWORD))


def test_somebody_who_signs_in_by_the_provider_alone(console: Console) -> None:
    """
    They are added without any password.
    """
    assert console.run("add", "ann@courier.example", "--role", "viewer", "--no-password")[0] == 0
    person = console.look(lambda store: read_person(store, "ann@courier.example"))
    assert not person.has_password


def test_what_cannot_be_is_told_in_a_sentence(console: Console) -> None:
    """
    Exit code 1, and nothing is changed.
    """
    console.run("add", "boss", "--role", "admin", "--no-password")
    for arguments, says in (
        (("add", "a\nb", "--role", "sales", "--link"), "name"),
        (("add", "boss", "--role", "sales", "--link"), "there already"),
        (("add", "ann", "--role", "sales", "--password-file", "-"), "at least 12"),
        (("add", "ann", "--role", "sales", "--password-file", "/does/not/exist"), "No such file"),
        (("add", "ann", "--role", "sales"), "no terminal"),
        (("passwd", "boss", "--password-file", "-"), "at least 12"),
        (("passwd", "nobody", "--link"), "nobody is called"),
        (("role", "boss", "sales"), "last admin"),
        (("role", "nobody", "sales"), "nobody is called"),
        (("remove", "boss"), "last admin"),
        (("remove", "nobody"), "nobody is called"),
    ):
        code, out, err = console.run(*arguments, stdin="short\n")
        assert (code, out) == (1, ""), arguments
        assert says in err
        assert "Traceback" not in err
    assert len(json.loads(console.run("list", "--json")[1])) == 1
    assert len(console.look(audit.read).entries) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("add",), ("add", "ann"), ("add", "ann", "--role", "owner"), ("role", "ann"), ("passwd",), ("frobnicate",),
        ("add", "ann", "--role", "sales", "--link", "--password-file", "-"),
        ("add", "ann", "--role", "sales", "--link", "--no-password"), ("passwd", "ann", "--no-password"),
    ],
)  # fmt: skip
def test_a_slip_in_the_command_is_usage(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """
    Exit code 2.
    """
    with pytest.raises(SystemExit) as stop:
        main(["user", *arguments])
    assert stop.value.code == 2
    assert "usage: adserver" in capsys.readouterr().err


def test_a_store_that_is_away_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """
    Exit code 3: also where no service runs on the data directory.
    """
    (port,) = free_ports(1)
    for where in (["--redis-url", f"redis://127.0.0.1:{port}"], ["--data-dir", str(tmp_path)]):
        assert main(["user", "list", *where]) == 3
        assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize("action", [[], ["add"], ["passwd"], ["role"], ["remove"], ["list"]])
def test_help_is_the_manual(action: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """
    Every action says what it does; together they say what the roles may do and what a password has to be.
    """
    with pytest.raises(SystemExit) as stop:
        main(["user", *action, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    words = {
        "": ["viewer  reads", "sales   also", "admin   also", "audit log"],
        "add": ["--role", "--link", "--password-file", "--no-password", "12 to 200", "--data-dir"],
        "passwd": ["--link", "12 to 200", "end their sessions"],
        "role": ["{viewer,sales,admin}", "last admin"],
        "remove": ["API tokens", "last admin"],
        "list": ["--json"],
    }
    assert [word for word in words["".join(action)] if word not in said] == []


@pytest.mark.parametrize(("again", "code"), [(PASSWORD, 0), ("something else entirely", 1)])
def test_a_password_is_typed_twice_without_being_shown(again: str, code: int) -> None:
    """
    At a real terminal, and nothing of it comes back; two that differ change nothing.
    """
    with running_server("valkey") as server:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "adserver", "user", "add", "ann", "--role", "admin", "--redis-url", server.url]

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        with subprocess.Popen(
            command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=take_terminal,
        ) as process:  # fmt: skip
            os.close(theirs)
            said = b""
            for prompt, typed in ((b"Password for ann: ", PASSWORD), (b"The same again: ", again)):
                while prompt not in said:
                    said += os.read(ours, 1000)
                os.write(ours, f"{typed}\n".encode())
            while True:
                try:
                    said += os.read(ours, 1000)
                except OSError:  # the other end is closed: it has ended
                    break
            assert process.wait() == code
        os.close(ours)
        assert PASSWORD.encode() not in said
        assert (b"Added ann as admin." in said) is (code == 0)
        assert (b"differ; nothing was changed" in said) is (code == 1)


@pytest.mark.parametrize("action", ["add", "list"])
def test_it_works_beside_a_running_service(tmp_path: Path, action: str) -> None:
    """
    With nothing but its data directory, where the embedded store listens.
    """
    service = Service(tmp_path, workers=1)
    service.start()
    try:
        arguments = {"add": ["add", "ann", "--role", "admin", "--link"], "list": ["list", "--json"]}[action]
        command = [sys.executable, "-m", "adserver", "user", *arguments, "--data-dir", str(service.data)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.startswith("Added ann as admin." if action == "add" else "[")
    finally:
        service.stop()


def test_other_commands_do_not_wait_for_what_people_need() -> None:
    """
    The command line starts without loading what hashes passwords or speaks to a provider.
    """
    script = "import sys, adserver.cli; print([one for one in ('argon2', 'authlib', 'httpx') if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert issubclass(BadPerson, Exception)


def test_an_admin_revokes_a_token_of_somebody(console: Console) -> None:
    """
    By its id in the list; what is not there is said, with exit code 1, and nothing is changed.
    """
    console.run("add", "ann", "--role", "sales", "--no-password")
    console.run("add", "bob", "--role", "sales", "--no-password")

    def make(name: str) -> str:
        token: str = console.look(lambda store: make_token(store, name, f"of {name}", audit.Actor("test"), 1.0))
        return token

    def is_good(token: str) -> bool:
        return console.look(lambda store: find_token(store, token, 2.0)) is not None

    made = [make(name) for name in ("ann", "bob")]
    code, out, _ = console.run("tokens", "--json")
    assert code == 0
    ids = {row["person"]: row["id"] for row in json.loads(out)}
    assert "of bob" not in console.run("tokens", "ann")[1]
    assert "of ann" in console.run("tokens", "ann")[1]
    code, _, error = console.run("revoke", "ann", ids["bob"])
    assert code == 1
    assert "has no token" in error
    assert all(map(is_good, made))
    assert console.run("revoke", "ann", ids["ann"])[0] == 0
    assert list(map(is_good, made)) == [False, True]
    [newest, *_] = console.look(audit.read).entries
    assert (newest.entry.what, newest.entry.subject, newest.entry.detail) == ("revokes token", "ann", "of ann")
    assert console.run("revoke", "ann", ids["ann"])[0] == 1
