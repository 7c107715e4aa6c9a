"""The command line: `adserver serve`, `check`, `apply`, `export`, `report`.

Exit codes: 0 done, 1 the input is at fault, 2 usage, 3 something it needs is away.
"""

import argparse
import asyncio
import csv
import getpass
import io
import os
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from adserver import __version__
from adserver.errors import AdserverError, ConfigError, Conflict, StoreRefused, StoreUnavailable
from adserver.settings import PREFIX, BadSetting, Settings, descriptions, read_settings, unknown_variables

DONE, INPUT_AT_FAULT, USAGE, AWAY = 0, 1, 2, 3
_REPORT_PATIENCE_S = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the return value is the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except BadSetting as error:
        return _say(error, USAGE)
    except (StoreUnavailable, StoreRefused) as error:
        return _say(error, AWAY)
    except (ConfigError, Conflict) as error:
        return _say(error, INPUT_AT_FAULT)
    except AdserverError as error:
        return _say(error, AWAY)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return 130


def _say(error: Exception, code: int) -> int:
    print(error, file=sys.stderr)
    return code


def _run(options: argparse.Namespace) -> int:
    flags = {name: value for name, value in vars(options).items() if name in Settings.__struct_fields__}
    settings = read_settings(os.environ, flags)
    for sentence in unknown_variables(os.environ):
        print(f"warning: {sentence}", file=sys.stderr)
    command: Callable[[Settings, argparse.Namespace], int] = options.run
    return command(settings, options)


# The commands


def _serve(settings: Settings, _: argparse.Namespace) -> int:
    from adserver.supervisor import serve

    serve(settings)
    return DONE


def _check(settings: Settings, options: argparse.Namespace) -> int:
    from adserver.config_files import read_config

    directory = Path(options.directory or settings.config)
    try:
        document = read_config(directory).document
    except ConfigError as error:
        print(error)
        n = len(error.problems)
        print(f"{directory}: {n} problem{'s' if n > 1 else ''}; nothing was published.", file=sys.stderr)
        return INPUT_AT_FAULT
    print(
        f"{directory}: good. {len(document.slots)} slots, {len(document.line_items)} line items, "
        f"{len(document.creatives)} creatives of {len(document.advertisers)} advertisers."
    )
    return DONE


def _apply(settings: Settings, options: argparse.Namespace) -> int:
    from adserver.config_files import read_config
    from adserver.publish import publish_files
    from adserver.store import open_store

    files = read_config(Path(options.directory or settings.config))

    async def publish() -> Any:
        async with open_store(settings.store_url) as store:
            return await publish_files(store, files, author=options.author, note=options.note, force=options.force)

    done = asyncio.run(publish())
    for change in done.changes:
        print(change)
    if not done.changes:
        print(f"Nothing to change: version {done.number} is live.")
        return DONE
    if done.overwrote:
        print(f"Overwrote version {done.overwrote}.")
    print(f"Version {done.number} is live.")
    return DONE


def _export(settings: Settings, options: argparse.Namespace) -> int:
    from adserver.config_files import write_config
    from adserver.publish import export
    from adserver.store import open_store

    target = Path(options.directory)
    if target.exists() and any(target.glob("*.toml")) and not options.force:
        print(f"{target} holds *.toml files already; name another directory or use --force.", file=sys.stderr)
        return INPUT_AT_FAULT

    async def read() -> Any:
        async with open_store(settings.store_url) as store:
            return await export(store)

    found = asyncio.run(read())
    if found is None:
        print("Nothing is published yet.", file=sys.stderr)
        return INPUT_AT_FAULT
    version, assets = found
    for path in write_config(target, version.document, assets, version.number):
        print(path)
    return DONE


def _report(settings: Settings, options: argparse.Namespace) -> int:
    from adserver.reporting import BadRange, parse_request, read_report
    from adserver.store import open_store

    try:
        request = parse_request(options.first, options.last, options.by)

        async def read() -> Any:
            async with open_store(settings.store_url) as store:
                return await read_report(store, settings.journals, request, _REPORT_PATIENCE_S)

        found = asyncio.run(read())
    except BadRange as error:
        return _say(error, INPUT_AT_FAULT)
    if found.waiting:
        print(f"warning: {found.waiting} journals hold events that are not counted yet", file=sys.stderr)
    if options.json:
        sys.stdout.write(msgspec.json.encode(found.as_dict()).decode() + "\n")
    elif options.csv:
        sys.stdout.write(_as_csv(found))
    else:
        sys.stdout.write(_as_table(found))
    return DONE


def _cells(found: Any) -> tuple[list[str], list[list[Any]]]:
    from adserver.report import EVENT_FIGURES, FIGURES

    reasons = sorted({reason for row in found.rows for reason in row.invalid})
    titles = [found.by, *FIGURES, "suspect", *(f"gross:{figure}" for figure in EVENT_FIGURES)]
    titles += [f"invalid:{reason}" for reason in reasons]
    rows = [
        ["-" if row.name is None else row.name]
        + [getattr(row, figure) for figure in FIGURES]
        + [sum(row.suspect.values()), *row.gross.values()]
        + [row.invalid.get(reason, 0) for reason in reasons]
        for row in found.rows
    ]
    return titles, rows


def _as_csv(found: Any) -> str:
    titles, rows = _cells(found)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    return out.getvalue()


def _as_table(found: Any) -> str:
    titles, rows = _cells(found)
    sums = ["total", *(sum(column) for column in list(zip(*rows, strict=True))[1:])] if rows else []
    shown = [
        [f"{cell:,}" if isinstance(cell, int) and n else str(cell) for n, cell in enumerate(row)]
        for row in [*rows, *([sums] if rows else [])]
    ]
    widths = [max(len(line[n]) for line in [titles, *shown]) for n in range(len(titles))]
    lines = [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [titles, *shown]
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    period = f"{found.first} to {found.last}" if found.first != found.last else str(found.first)
    return (
        f"Delivery by {found.by}, {period}, {found.zone} time\n\n" + "\n".join(line.rstrip() for line in lines) + "\n"
    )


# The parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adserver",
        description="A direct-sold ad server that a newsroom can run itself.",
        epilog="Exit codes: 0 done, 1 the input is at fault, 2 usage, 3 something it needs is away.",
    )
    parser.add_argument("--version", action="version", version=f"adserver {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands)
    check = _add(commands, "check", _check, "list every problem of a config directory, and publish nothing")
    check.add_argument("directory", nargs="?", help="directory of *.toml files (default: config)")
    apply = _add(commands, "apply", _apply, "make a config directory the live version, for all workers within 2 s")
    apply.add_argument("directory", nargs="?", help="directory of *.toml files (default: config)")
    apply.add_argument("--author", default=_user(), help="who publishes (default: %(default)s)")
    apply.add_argument("--note", default="", help="why, for the history")
    apply.add_argument(
        "--force", action="store_true", help="overwrite a live version these files were not written from"
    )
    _add_store(apply)
    export = _add(commands, "export", _export, "write the live version as files that 'apply' takes back")
    export.add_argument("directory", help="directory to write; it is created")
    export.add_argument("--force", action="store_true", help="write into a directory that holds *.toml files already")
    _add_store(export)
    report = _add(commands, "report", _report, "requests, served, impressions, viewables and clicks")
    report.add_argument("--from", dest="first", metavar="DATE", help="first day, such as 2026-03-01 (default: today)")
    report.add_argument("--to", dest="last", metavar="DATE", help="last day (default: today)")
    report.add_argument(
        "--by",
        default="slot",
        choices=("slot", "line_item", "creative", "day", "hour"),
        help="a row for each (default: slot)",
    )
    form = report.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    _add_store(report)
    return parser


def _add(commands: Any, name: str, run: Callable[[Settings, argparse.Namespace], int], about: str) -> Any:
    parser = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _add_store(parser: Any) -> None:
    parser.add_argument("--data-dir", help="the running service's data directory (ADSERVER_DATA_DIR; default: var)")
    parser.add_argument("--redis-url", help="the store, where it is not the embedded one (ADSERVER_REDIS_URL)")


def _add_serve(commands: Any) -> None:
    serve = _add(commands, "serve", _serve, "run the service")
    serve.formatter_class = argparse.RawTextHelpFormatter
    for name, (about, type_, default) in descriptions().items():
        shown = "" if default is None or default == "" else f" (default: {default})"
        flag, text = f"--{name.replace('_', '-')}", f"{about}{shown}\n[{PREFIX}{name.upper()}]"
        if type_ is bool:
            serve.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            serve.add_argument(flag, default=None, metavar=_metavar(type_), help=text)


def _metavar(type_: Any) -> str:
    if get_origin(type_) in (types.UnionType, Union):
        type_ = next(one for one in get_args(type_) if one is not type(None))
    if get_origin(type_) is Annotated:
        type_ = get_args(type_)[0]
    if get_args(type_):
        return "|".join(map(str, get_args(type_)))
    return {int: "N", float: "SECONDS"}.get(type_, "TEXT")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return str(os.getuid())


if __name__ == "__main__":
    sys.exit(main())
