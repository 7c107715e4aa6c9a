"""Commands about people who may use the console: `user add`, `passwd`, `role`, `remove`, `list`, `tokens` and `revoke`.

What they need is imported when they run, so that other commands start quickly.
"""

import argparse
import asyncio
import getpass
import os
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from adserver.asking import BadQuestion
from adserver.columns import columns
from adserver.errors import BadPerson
from adserver.settings import Settings

if TYPE_CHECKING:
    from adserver.store import Store

DONE = 0
ROLES = ("viewer", "sales", "admin")
T = TypeVar("T")


def add(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadPerson, BadQuestion, StoreUnavailable or StoreRefused."""
    from adserver.console.links import make_link
    from adserver.console.people import add_person, parse_new_password, parse_person_name, parse_role

    name, role = parse_person_name(options.name), parse_role(options.role)
    password = None if options.link or options.no_password else _password(options, name)
    if password is not None:
        parse_new_password(name, password)

    async def change(store: "Store") -> str | None:
        now = time.time()
        await add_person(store, name, role, _actor(), now, password)
        return await make_link(store, name, _actor(), now) if options.link else None

    token = _with_store(settings, change)
    print(f"Added {name} as {role.value}.")
    _print_link(settings, name, token)
    return DONE


def passwd(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadPerson, BadQuestion, StoreUnavailable or StoreRefused."""
    from adserver.console.links import make_link
    from adserver.console.people import parse_new_password, parse_person_name, read_person, set_password

    name = parse_person_name(options.name)

    async def find(store: "Store") -> bool:
        return await read_person(store, name) is not None

    if not _with_store(settings, find):
        raise BadPerson(f"nobody is called {name!r}; see: adserver user list")
    password = None if options.link else parse_new_password(name, _password(options, name))

    async def change(store: "Store") -> str | None:
        if password is None:
            return await make_link(store, name, _actor(), time.time())
        await set_password(store, name, password, _actor(), time.time())
        return None

    token = _with_store(settings, change)
    if token is None:
        print(f"{name} has another password; their sessions have ended.")
    _print_link(settings, name, token)
    return DONE


def role(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadPerson, StoreUnavailable or StoreRefused."""
    from adserver.console.people import parse_person_name, parse_role, set_role

    name, wanted = parse_person_name(options.name), parse_role(options.role)
    _with_store(settings, lambda store: set_role(store, name, wanted, _actor(), time.time()))
    print(f"{name} is {wanted.value} now.")
    return DONE


def remove(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadPerson, StoreUnavailable or StoreRefused."""
    from adserver.console.people import parse_person_name, remove_person

    name = parse_person_name(options.name)
    _with_store(settings, lambda store: remove_person(store, name, _actor(), time.time()))
    print(f"Removed {name}; their sessions, links and API tokens have ended.")
    return DONE


def show(settings: Settings, options: argparse.Namespace) -> int:
    """Raises StoreUnavailable or StoreRefused."""
    from adserver.console.people import list_people

    people = _with_store(settings, list_people)
    rows = [
        {
            "name": one.name,
            "role": one.role.value,
            "added": _instant(one.added),
            "last_sign_in": None if one.last_sign_in is None else _instant(one.last_sign_in),
            "has_password": one.has_password,
        }
        for one in people
    ]
    if options.json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return DONE
    cells = [
        [row["name"], row["role"], row["added"], row["last_sign_in"] or "never", "yes" if row["has_password"] else "no"]
        for row in rows
    ]
    sys.stdout.write(columns(["name", "role", "added", "last sign-in", "password"], cells))
    return DONE


def tokens(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadPerson, StoreUnavailable or StoreRefused."""
    from adserver.console.api_tokens import list_tokens
    from adserver.console.people import parse_person_name

    name = None if options.name is None else parse_person_name(options.name)
    found = _with_store(settings, lambda store: list_tokens(store, name))
    rows = [
        {
            "id": one.id,
            "person": one.person,
            "label": one.label,
            "made": _instant(one.made),
            "last_used": one.last_used,
        }
        for one in found
    ]
    if options.json:
        sys.stdout.write(msgspec.json.encode(rows).decode() + "\n")
        return DONE
    cells = [[row["id"], row["person"], row["label"], row["made"], row["last_used"] or "never"] for row in rows]
    sys.stdout.write(columns(["id", "person", "for", "made", "last used"], cells))
    return DONE


def revoke(settings: Settings, options: argparse.Namespace) -> int:
    """Raises BadPerson, StoreUnavailable or StoreRefused."""
    from adserver.console.api_tokens import revoke_token
    from adserver.console.people import parse_person_name

    name = parse_person_name(options.name)
    if not _with_store(settings, lambda store: revoke_token(store, name, options.id, _actor(), time.time())):
        raise BadPerson(f"{name!r} has no token {options.id!r:.40}; see: adserver user tokens")
    print(f"Revoked the token {options.id} of {name}; it lets nobody in any more.")
    return DONE


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _with_store(settings: Settings, body: Callable[["Store"], Awaitable[T]]) -> T:
    from adserver.store import open_store

    async def run() -> T:
        async with open_store(settings.store_url) as store:
            return await body(store)

    return asyncio.run(run())


def _actor() -> Any:
    from adserver.console.audit import Actor

    return Actor(f"command line:{os_user()}")


def os_user() -> str:
    """Who runs this command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())


def _password(options: argparse.Namespace, name: str) -> str:
    """From the file that was named, or typed twice at the terminal. Raises BadQuestion."""
    path = options.password_file
    if path is not None:
        try:
            text = sys.stdin.readline() if path == "-" else Path(path).read_text("utf-8").partition("\n")[0]
        except OSError as error:
            raise BadQuestion(f"--password-file {path}: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise BadQuestion(f"--password-file {path}: expected text in UTF-8") from None
        return text.rstrip("\r\n")
    if not sys.stdin.isatty():
        raise BadQuestion("there is no terminal to type a password at; use --password-file - or --link")
    try:
        typed = getpass.getpass(f"Password for {name}: ")
        again = getpass.getpass("The same again: ")
    except EOFError:
        raise BadQuestion("no password was typed") from None
    if typed != again:
        raise BadQuestion("the two passwords differ; nothing was changed")
    return typed


def _print_link(settings: Settings, name: str, token: str | None) -> None:
    if token is not None:
        from adserver.console.links import address

        print(f"By this link {name} sets a password, once, within 24 hours:\n{address(settings.base_url, token)}")


# The parser

_ABOUT = """
People sign in to the console at PUBLIC_URL/console. Each has one role:

viewer  reads: what runs, calendar, reports
sales   also books, publishes, pauses, and makes report links
admin   also manages people and their API tokens, and reads the audit log

Run it beside the service: with the embedded store name its --data-dir, with a store of your own its --redis-url.
Every change is in force at once, and in the audit log as done by 'command line:' and your user name.
"""
_NAME = """
NAME is an e-mail address (needed for sign-in through a provider) or plain words; capitals are made small.
"""
_HOW = """
A password has 12 to 200 characters and is not the name. It is asked for without being shown, or read from the first
line of a file, '-' being standard input. With --link nobody but its owner ever knows it: hand them the link.
"""


def add_commands(
    commands: Any, add_command: Callable[..., argparse.ArgumentParser], add_store: Callable[[Any], None]
) -> None:
    """Add `user` and its actions to the command line."""
    user = commands.add_parser(
        "user",
        help="who may use the console: add, passwd, role, remove, list, tokens, revoke",
        description="Manage the people who may use the console.",
        epilog=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = user.add_subparsers(required=True, metavar="ACTION")
    added = add_command(actions, "add", add, "add a person")
    added.add_argument("--role", required=True, choices=ROLES, help="what they may do")
    changed = add_command(actions, "passwd", passwd, "set a person's password, and end their sessions")
    for parser, others in ((added, True), (changed, False)):
        parser.epilog = _NAME + _HOW
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--password-file", metavar="FILE", help="read the password from a file; - for standard input")
        how.add_argument("--link", action="store_true", help="print a one-time link by which they set it themselves")
        if others:
            how.add_argument(
                "--no-password", action="store_true", help="they sign in through the sign-in provider only"
            )
        parser.add_argument("--public-url", help="what the link begins with (ADSERVER_PUBLIC_URL)")
    given = add_command(actions, "role", role, "give a person another role, and end their sessions")
    removed = add_command(actions, "remove", remove, "remove a person with their sessions, links and API tokens")
    listed = add_command(actions, "list", show, "list the people")
    held = add_command(actions, "tokens", tokens, "list API tokens, everybody's or one person's")
    held.add_argument("name", metavar="NAME", nargs="?", help="whose; everybody's without")
    for parser in (listed, held):
        parser.add_argument("--json", action="store_true", help="print JSON")
    revoked = add_command(actions, "revoke", revoke, "revoke an API token of a person")
    for parser in (added, changed, given, removed, revoked):
        parser.add_argument("name", metavar="NAME", help="whom")
    revoked.add_argument("id", metavar="ID", help="which, as 'tokens' lists it")
    given.add_argument("role", choices=ROLES, help="what they may do from now on")
    for parser in (given, removed):
        parser.epilog = f"{_NAME}The last admin stays an admin: make somebody else one first.\n"
    for parser in (added, changed, given, removed, listed, held, revoked):
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        add_store(parser)
