"""`adserver torture`: rounds against real processes, the negative controls, or the simulator; a table at the end."""

import argparse
import asyncio
import secrets
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from adserver.config_files import read_config
from adserver.settings import Settings
from adserver.torture.broken import VARIANTS
from adserver.torture.ledger import Verdict
from adserver.torture.manual import CONTROL_EVENTS, CONTROL_ROUNDS, MOST_GROWN_MB
from adserver.torture.rounds import Done, Round, play
from adserver.torture.simulator import MUTANTS, worlds
from adserver.torture.stores import CannotTorture, describe_server, find_server

MUTANT_SEEDS = 100
"""The rarest mutant shows itself in about one world of twelve."""
SERVERS = ("embedded", "redis-server", "cluster:redis-server", "cluster:embedded")

T = TypeVar("T")


def run(settings: Settings, options: argparse.Namespace) -> int:
    """The exit code. Raises CannotTorture when something it needs is not here."""
    if options.simulate:
        return _simulate(options.first_seed, options.simulate)
    if not sys.platform.startswith("linux"):
        raise CannotTorture("the torture looks into /proc; run it on Linux")
    if options.controls or options.broken:
        names = list(VARIANTS) if options.controls else [options.broken]
        return _in_loop(_controls(names, settings, options))
    return _in_loop(_rounds(settings, options))


def _in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* so that Ctrl-C and SIGTERM leave nothing running."""

    async def main() -> T:
        task = asyncio.current_task()
        assert task
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class _Sum(Struct):
    """One line of the table."""

    rounds: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    replays: int = 0
    forgiven: int = 0
    lost: int = 0
    double: int = 0
    differs: int = 0

    def add(self, verdict: Verdict) -> None:
        self.rounds += 1
        for figure in self.__struct_fields__[1:]:
            setattr(self, figure, getattr(self, figure) + getattr(verdict, figure))


async def _rounds(settings: Settings, options: argparse.Namespace) -> int:
    kinds = _kinds(options.server)
    config, slots = _read_slots(settings)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    rounds, events = options.rounds or 20, options.events or 50_000
    sums = {kind: _Sum() for kind in kinds}
    bar = _Bar(rounds * events)
    exact = True

    async def one(number: int) -> None:
        nonlocal exact
        kind = kinds[number % len(kinds)]
        wanted = Round(
            program=kind.program,
            clustered=kind.clustered,
            config=config,
            slots=slots,
            events=events,
            faults=options.faults,
            seed=seed + number,
            workers=options.workers,
            connections=options.connections,
            keep=options.keep,
        )
        done = await play(wanted, partial(bar.show, number))
        sums[kind].add(done.verdict)
        _tell(f"round {number + 1} of {rounds}, {kind}, seed {wanted.seed}: {_words(done)}")
        if not done.verdict.exact():
            exact = False
            _explain(done)

    await _at_once(options.jobs, [partial(one, number) for number in range(rounds)])
    lines = [[str(kind), *_figures(line)] for kind, line in sums.items() if line.rounds]
    if len(lines) > 1:
        total = [sum(getattr(line, figure) for line in sums.values()) for figure in _Sum.__struct_fields__]
        lines.append(["sum", *(f"{n:,}" for n in total)])
    print(
        _table(
            [["server", "rounds", "acknowledged", "unanswered", "replays", "A1", "lost", "double", "differs"], *lines]
        )
    )
    print("exact" if exact else "NOT EXACT")
    return 0 if exact else 1


async def _controls(names: Sequence[str], settings: Settings, options: argparse.Namespace) -> int:
    """Each broken service must be caught, or the proof proves nothing."""
    config, slots = _read_slots(settings)
    default = next(kind for kind in reversed(_kinds(options.server)) if not kind.clustered)
    rounds, events = options.rounds or CONTROL_ROUNDS, options.events or CONTROL_EVENTS
    bar = _Bar(len(names) * events)
    lines: dict[str, list[str]] = {}

    async def one(name: str) -> None:
        variant = VARIANTS[name]
        program = find_server(variant.server) if variant.server else default.program
        sums, caught = _Sum(), False
        while not caught and sums.rounds < rounds:
            wanted = Round(
                program=program,
                clustered=False,
                config=config,
                slots=slots,
                events=events,
                faults=variant.faults,
                seed=(options.seed or 0) + sums.rounds,
                workers=options.workers,
                connections=options.connections,
                broken=name,
                quiet_s=3,
                beacons=variant.beacons,
            )
            done = await play(wanted, partial(bar.show, names.index(name)))
            sums.add(done.verdict)
            caught = bool(done.verdict.lost or done.verdict.double or done.verdict.differs)
        _tell(f"{name}: {'caught' if caught else 'NOT CAUGHT'} in round {sums.rounds}, {describe_server(program)}")
        figures = (sums.rounds, sums.lost, sums.double, sums.differs)
        lines[name] = [name, "yes" if caught else "NO", *(f"{n:,}" for n in figures)]

    await _at_once(options.jobs, [partial(one, name) for name in names])
    print(
        _table(
            [["broken on purpose", "caught", "rounds", "lost", "double", "differs"], *(lines[name] for name in names)]
        )
    )
    return 0 if all(line[1] == "yes" for line in lines.values()) else 1


async def _at_once(jobs: int, works: Sequence[Callable[[], Coroutine[Any, Any, None]]]) -> None:
    """Do all *works*, at most *jobs* at the same time. The first that fails ends the others and is raised."""
    places = asyncio.Semaphore(jobs)

    async def in_turn(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with places:
            await work()

    try:
        async with asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(in_turn(work))
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


def _simulate(first: int, count: int) -> int:
    """The worlds as they are, where nothing may be violated; then each mutant, which must be."""
    began = time.monotonic()
    broken = 0
    bar = _Bar(count)
    for number, (seed, violation) in enumerate(worlds(first, count), 1):
        if number % 50 == 0:
            bar.show(0, number)
        if violation:
            broken += 1
            _tell(f"seed {seed}: {violation}; run it alone: adserver torture --simulate 1 --first-seed {seed}")
    _tell(f"{count:,} worlds in {time.monotonic() - began:.0f} s")
    lines = [["as it is", f"{count:,}", f"{broken:,}"]]
    caught_all = True
    for name in MUTANTS:
        caught = sum(violation is not None for _, violation in worlds(0, MUTANT_SEEDS, name))
        caught_all &= caught > 0
        lines.append([name, f"{MUTANT_SEEDS:,}", f"{caught:,}"])
    print(_table([["simulated", "worlds", "violated"], *lines]))
    print("no violation, and every mutant caught" if caught_all and not broken else "NOT PROVED")
    return 0 if caught_all and not broken else 1


class Kind(Struct, frozen=True):
    """A kind of store to play rounds on."""

    program: str
    clustered: bool

    def __str__(self) -> str:
        return f"{'cluster, ' if self.clustered else ''}{describe_server(self.program)}"


def _kinds(names: str | None) -> list[Kind]:
    """The stores that were asked for by *names*, or all there are. Raises CannotTorture."""
    if names:
        return [_kind(name.strip()) for name in names.split(",")]
    found = []
    for name in SERVERS:
        try:
            found.append(_kind(name))
        except CannotTorture as error:
            _tell(str(error))
    if not found:
        raise CannotTorture("no store server is installed; install adserver[embedded], or name one with --server")
    return found


def _kind(name: str) -> Kind:
    program = name.removeprefix("cluster:")
    return Kind(find_server(program), clustered=program != name)


def _read_slots(settings: Settings) -> tuple[Path, tuple[int, ...]]:
    """The configuration to serve, and its slots. Raises ConfigError."""
    config = Path(settings.config).absolute()
    return config, tuple(slot.id for slot in read_config(config).document.slots)


# Saying it


class _Bar:
    """How far all is, on standard error, where somebody looks at it."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = time.monotonic()
        self._done: dict[int, int] = {}

    def show(self, part: int, done: int) -> None:
        """*part* of the whole has *done* so much."""
        self._done[part] = done
        if sys.stderr.isatty():
            total = min(self._total, sum(self._done.values()))
            filled = total * 30 // self._total
            bar = "#" * filled + "." * (30 - filled)
            seconds = time.monotonic() - self._began
            sys.stderr.write(f"\r[{bar}] {total:,} of {self._total:,}, {seconds:.0f} s\033[K")
            sys.stderr.flush()


def _tell(sentence: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    print(sentence, file=sys.stderr, flush=True)


def _words(done: Done) -> str:
    verdict = done.verdict
    faults = ", ".join(f"{n} {name}" for name, n in sorted(done.faults.items())) or "no faults"
    said = "exact" if verdict.exact() else "NOT EXACT"
    refused = f" ({verdict.refused:,} too old or too early, as clocks jumped)" if verdict.refused else ""
    grown = f"; {verdict.grown / 2**20:.1f} MB grown without the store" if verdict.grown else ""
    return f"{said}, {verdict.acknowledged:,} acknowledged{refused} in {done.seconds:.0f} s; {faults}{grown}"


def _explain(done: Done) -> None:
    verdict = done.verdict
    _tell(f"  lost {verdict.lost}, double {verdict.double}, differs {verdict.differs}, never counted {verdict.waiting}")
    if verdict.grown > MOST_GROWN_MB << 20:
        _tell(f"  a worker grew by {verdict.grown / 2**20:.1f} MB without the store, and may by {MOST_GROWN_MB}")
    for what, n in verdict.unexpected.items():
        _tell(f"  {n} times {what}")
    for what in verdict.missing:
        _tell(f"  acknowledged and in no journal: {what}")
    if done.kept:
        _tell(f"  kept in {done.kept}")
    for line in done.log.splitlines()[-40:]:
        _tell(f"  | {line}")


def _figures(line: _Sum) -> list[str]:
    return [f"{getattr(line, figure):,}" for figure in line.__struct_fields__]


def _table(rows: list[list[str]]) -> str:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)
