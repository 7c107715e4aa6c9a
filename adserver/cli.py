"""The command line: `adserver serve`, `check`, `apply`, `export`, `report`, `journal`, `torture`.

See also `asking` and `accounts`.

Exit codes: 0 done, 1 the input is at fault, 2 usage, 3 something it needs is away.
"""

import argparse
import asyncio
import csv
import io
import os
import sys
import types
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from adserver import __version__, accounts, asking, importing
from adserver.asking import BadQuestion
from adserver.columns import columns
from adserver.errors import (
    AdserverError,
    BadPerson,
    ConfigError,
    Conflict,
    JournalUnavailable,
    StoreRefused,
    StoreUnavailable,
)
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
    except (ConfigError, Conflict, BadQuestion, BadPerson) as error:
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
    from adserver.archive import open_book
    from adserver.supervisor import serve

    open_book(settings.archive_url, settings.data)  # says what is wrong with it before a worker does
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
    from adserver.archive import open_book
    from adserver.reporting import BadRange, parse_request, read_report
    from adserver.store import open_store

    try:
        request = parse_request(options.first, options.last, options.by)

        async def read() -> Any:
            async with open_store(settings.store_url) as store:
                book = open_book(settings.archive_url, settings.data)
                return await read_report(store, book, settings.journals, request, _REPORT_PATIENCE_S)

        found = asyncio.run(read())
    except BadRange as error:
        return _say(error, INPUT_AT_FAULT)
    if options.csv:
        for sentence in _late(found):
            print(sentence, end="", file=sys.stderr)
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
        f"Delivery by {found.by}, {period}, {found.zone} time\n\n"
        + "\n".join(line.rstrip() for line in lines)
        + "\n"
        + "".join(f"\n{sentence}" for sentence in _late(found))
    )


def _late(found: Any) -> list[str]:
    """A line for each closed day that events came for afterwards."""
    from adserver.report import FIGURES

    sentences = []
    for row in found.late:
        figures = [f"{getattr(row, figure):,} {figure}" for figure in FIGURES if getattr(row, figure)]
        figures += [f"{n:,} invalid:{reason}" for reason, n in sorted(row.invalid.items()) if n]
        if figures:
            sentences.append(f"late, after {row.name} was closed, not in the figures: {', '.join(figures)}\n")
    return sentences


def _journal_status(settings: Settings, options: argparse.Namespace) -> int:
    from adserver.archive import open_book
    from adserver.days import Days
    from adserver.reconcile import read_status
    from adserver.store import open_store

    async def read() -> Any:
        book = open_book(settings.archive_url, settings.data)
        async with open_store(settings.store_url) as store:
            try:
                await store.check()
            except (StoreUnavailable, StoreRefused) as error:
                print(f"warning: {error}", file=sys.stderr)
                return await read_status(None, book, settings.journals)
            return await read_status(store, book, settings.journals)

    found = _reading(read)
    if options.json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
        return DONE
    titles = ["producer", "state", "records", "counted", "bytes", "set aside", "days"]
    rows = []
    for one in found:
        on = [Days.date(day).isoformat() for day in one.days]
        days = " to ".join(dict.fromkeys([on[0], on[-1]])) if on else "-"
        rows.append([one.producer, one.state, one.records, one.counted, one.bytes, one.set_aside, days])
    sys.stdout.write(columns(titles, rows))
    return DONE


def _journal_reconcile(settings: Settings, options: argparse.Namespace) -> int:
    from adserver.archive import open_book
    from adserver.days import Days
    from adserver.reconcile import reconcile
    from adserver.reporting import settle
    from adserver.store import open_store

    async def read() -> Any:
        async with open_store(settings.store_url) as store:
            await settle(store, settings.journals, _REPORT_PATIENCE_S)
            return await reconcile(store, open_book(settings.archive_url, settings.data), settings.journals)

    found = _reading(read)
    if options.json:
        sys.stdout.write(msgspec.json.encode({"equal": found.equal, **msgspec.to_builtins(found)}).decode() + "\n")
    else:
        rows = [
            [Days.date(one.day).isoformat(), one.producer, one.journal, one.store, one.archive, _verdict(one)]
            for one in found.lines
        ]
        sys.stdout.write(columns(["day", "producer", "journal", "store", "archive", ""], rows))
        for one in found.differences:
            print(f"{Days.date(one.day)} {one.field}: {one.n:,} in the {one.here}, {one.m:,} in the {one.there}")
        print("Equal." if found.equal else "Something is away." if found.away else "Different.")
        if found.not_recounted:
            n = len(found.not_recounted)
            print(f"Of {n} {'day' if n == 1 else 'days'} the cursors were compared and the figures not recounted.")
    return DONE if found.equal else AWAY if found.away else INPUT_AT_FAULT


def _verdict(line: Any) -> str:
    if line.not_recounted and line.trouble:
        return f"{line.trouble}; not recounted"
    return line.trouble or (f"not recounted: {line.not_recounted}" if line.not_recounted else "equal")


def _journal_salvage(_: Settings, options: argparse.Namespace) -> int:
    from adserver.salvage import apply_salvage, read_salvage, set_aside

    path = Path(options.path)
    directory = path if path.is_dir() else path.parent
    try:
        if not set_aside(directory):
            print(f"{directory} holds no *.corrupt or *.quarantined segment; nothing is to be salvaged.")
            return INPUT_AT_FAULT
        found = read_salvage(directory)
        print(f"{directory}: {found.records:,} valid records in segments set aside, {found.missing:,} missing.")
        for first, last in found.holes:
            print(f"missing: record {first:,}" if first == last else f"missing: records {first:,} to {last:,}")
        if not options.apply:
            print("Nothing was changed; --apply puts them back, and what was counted before is not counted again.")
            return DONE
        apply_salvage(directory, found)
    except ValueError:
        print(
            f"{directory} is no journal: expected a directory named by 16 hex digits, or a file in it", file=sys.stderr
        )
        return INPUT_AT_FAULT
    except OSError as error:
        print(f"{path}: {error.strerror or error}", file=sys.stderr)
        return AWAY
    print("They are back in the journal. A running service counts them within a minute, another when it starts.")
    return DONE


def _reading(read: Callable[[], Any]) -> Any:
    try:
        return asyncio.run(read())
    except OSError as error:
        raise JournalUnavailable(f"the journals cannot be read: {error}") from error


def _torture(settings: Settings, options: argparse.Namespace) -> int:
    from adserver.torture.command import run

    return run(settings, options)


# The parser


def _parser() -> argparse.ArgumentParser:
    from adserver.torture.manual import add_arguments

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
    apply.add_argument("--author", default=accounts.os_user(), help="who publishes (default: %(default)s)")
    apply.add_argument("--note", default="", help="why, for the history")
    apply.add_argument(
        "--force", action="store_true", help="overwrite a live version these files were not written from"
    )
    _add_store(apply)
    export = _add(commands, "export", _export, "write the live version as files that 'apply' takes back")
    export.add_argument("directory", help="directory to write; it is created")
    export.add_argument("--force", action="store_true", help="write into a directory that holds *.toml files already")
    _add_store(export)
    asking.add_commands(partial(_add, commands), _add_store)
    report = _add(commands, "report", _report, "requests, served, impressions, viewables, clicks and loads")
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
    importing.add_commands(commands, _add)
    accounts.add_commands(commands, _add, _add_store)
    _add_journal(commands)
    torture = _add(
        commands, "torture", _torture, "kill, cut off and roll back a service of its own, and add up afterwards"
    )
    add_arguments(torture)
    return parser


_STATUS = """
state      live: its writer is alive; adopted: its writer is gone, and another worker has taken it over (told within
           a minute); dead: nobody ships it now; held: one of the first two, the store being away
records    the number of its last valid record
counted    how far the store or the archive has it, - when the store is away
set aside  segments that wait for 'journal salvage'
"""
_RECONCILE = """
Reads every journal of the data directory and adds it up anew, then compares per producer and day: the journal's last
record, the store's cursor, the archive's cursor, and every figure of every day. Changes nothing. Run it where all the
journals are; give it a quiet moment or a day that is over, for what arrives meanwhile is not counted yet.

Exit codes: 0 equal, 1 different, 3 something needed to tell is away.
"""
_SALVAGE = """
A segment is set aside as *.corrupt when a record in it is damaged and others follow, and as *.quarantined when it
turned up after weeks. PATH is the journal's directory, or such a file in it. Without --apply it only tells what is
there. With it, the valid records go back into the journal under their own numbers and the shippers pass over the hole,
so that each is counted once, whatever was counted before. What belongs to a closed day is counted as late.
"""


def _add_journal(commands: Any) -> None:
    journal = commands.add_parser(
        "journal", help="look after the journals: status, reconcile, salvage", description="Look after the journals."
    )
    actions = journal.add_subparsers(required=True, metavar="ACTION")
    status = _add(actions, "status", _journal_status, "list the journals here and how far each is counted")
    reconcile = _add(actions, "reconcile", _journal_reconcile, "prove that journals, store and archive agree")
    salvage = _add(actions, "salvage", _journal_salvage, "read what lies behind a hole, or in a segment too old")
    for parser, text in ((status, _STATUS), (reconcile, _RECONCILE), (salvage, _SALVAGE)):
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = text
    for parser in (status, reconcile):
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--archive-url", help="the archive, where it is not in the data directory (ADSERVER_ARCHIVE_URL)"
        )
        _add_store(parser)
    salvage.add_argument("path", metavar="PATH", help="a journal's directory, or a segment set aside in it")
    salvage.add_argument("--apply", action="store_true", help="put the records back, to be counted once")


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


if __name__ == "__main__":
    sys.exit(main())
