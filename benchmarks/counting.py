"""What counting costs: processor time beside the obvious way, commands sent to the store, and memory per token."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from struct import Struct as Layout

import redis
from msgspec import Struct

from adserver.days import Days
from adserver.events import STORED, Event, Type, stored
from adserver.secret import read_keys
from adserver.settings import Settings
from adserver.ship import MOST_TOKEN_EVENTS
from adserver.store import Applied, open_store, partition
from adserver.tally import tally
from adserver.token import Mint, verify
from benchmarks import load
from benchmarks.load import CONNECTIONS, Load, WrongAnswers
from benchmarks.processes import CannotRun, Service, StoreServer, ask, cpu_s
from benchmarks.readers import BROWSER
from benchmarks.table import Bound, Row

TOKENS = 1_000_000
_PRODUCERS = 4
_BATCH = 500
_INSIDE = 2
"""Commands that one run of the script runs itself: HMGET and HSET."""
_COUNT_S = 60.0
_SERIAL = Layout("<I")


class Cost(Struct, frozen=True):
    """One run: events answered and counted, in how many seconds, and what that took. Processor time in seconds."""

    events: int
    seconds: float
    worker_s: float
    store_s: float
    commands: Counter[str]

    @property
    def per_worker_s(self) -> float:
        return self.events / self.worker_s

    @property
    def per_cpu_s(self) -> float:
        return self.events / (self.worker_s + self.store_s)

    def batches(self) -> float:
        """Scripts that the store ran for 1,000 events: one for each batch."""
        return (self.commands["evalsha"] + self.commands["eval"]) / self.events * 1000

    def sent(self) -> float:
        """All commands sent to the store for 1,000 events; a script is one."""
        return self.ran() - _INSIDE * self.batches()

    def ran(self) -> float:
        """All commands the store ran for 1,000 events: those sent, and those within scripts."""
        return self.commands.total() / self.events * 1000


class Side:
    """One service with its own tokens, whose beacons are counted."""

    def __init__(self, service: Service, *, journalled: bool) -> None:
        self.service = service
        self._journalled = journalled
        self._mint = mint_for(service)[0]

    def measure(self, scripts: Path, seconds: int, most: float, connections: int = CONNECTIONS) -> Cost:
        """Load it with fresh tokens until all of them are counted. Raises WrongAnswers."""
        file = scripts / "tokens"
        file.write_text("".join(f"{self._mint()}\n" for _ in range(int(most * seconds) + 1000)))
        self.service.settle()
        shipped = self._shipped()
        answered = self.service.answers().get(("impression", "200"), 0)
        commands, worker_s, store_s = self._commands(), *self._cpu()
        sending = Load("targets", "/out-of-tokens", file, (f"user-agent: {BROWSER}",))
        took = load.run(sending, self.service.port, seconds, scripts, connections).seconds
        events = self.service.answers().get(("impression", "200"), 0) - answered
        deadline = time.monotonic() + _COUNT_S
        while self._journalled and self._shipped() - shipped < events:
            if time.monotonic() > deadline:
                raise CannotRun(f"the service has not counted its events within {_COUNT_S:.0f} s")
            time.sleep(0.1)
        worker_after, store_after = self._cpu()
        spent = self._commands() - commands
        del spent["info"]
        counted = spent["hincrby"] if not self._journalled else self._shipped() - shipped
        if counted != events:
            raise WrongAnswers(f"{events:,} beacons were answered, {counted:,.0f} of them counted")
        return Cost(events, took, worker_after - worker_s, store_after - store_s, spent)

    def _shipped(self) -> float:
        return self.service.series()["adserver_shipped_total"]

    def _cpu(self) -> tuple[float, float]:
        """What the worker and the store have taken so far."""
        return cpu_s(self.service.workers()[0]), cpu_s(self.service.store())

    def _commands(self) -> Counter[str]:
        """How often the store has run each command, within scripts or not."""
        with redis.Redis(unix_socket_path=str(Settings(data_dir=str(self.service.data)).store_socket)) as client:
            found = client.info("commandstats")
        return Counter({name.removeprefix("cmdstat_"): int(stats["calls"]) for name, stats in found.items()})


def mint_for(service: Service) -> tuple[Callable[[], str], int]:
    """Makes a beacon's path with a token never used before, signed with the service's own keys; and the tokens' day."""
    keys = read_keys(Settings(data_dir=str(service.data)))
    snippet = ask(service.port, "GET", "/ads/889990").body
    served = verify(keys, snippet.split(b"/i/")[1][:48])
    mint = Mint(keys, secrets.token_bytes(5))
    return lambda: f"/i/{mint.token(served.ad, served.day, time.time(), served.allowed).decode()}", served.day


class Compared(Struct, frozen=True):
    """Both sides' runs, round by round, and ours on a single connection."""

    ours: list[Cost]
    inline: list[Cost]
    quiet: Cost

    def pairs(self, of: Callable[[Cost], float]) -> list[float]:
        return [of(one) / of(other) for one, other in zip(self.ours, self.inline, strict=True)]


def compare(
    ours: Service, inline: Service, scripts: Path, rounds: int, seconds: int, progress: Callable[[str], None]
) -> Compared:
    """Measure both in turns, the order turned around each time; the first short run only warms up."""
    sides = {"ours": Side(ours, journalled=True), "inline": Side(inline, journalled=False)}
    runs: dict[str, list[Cost]] = {name: [] for name in sides}
    most = 60_000.0  # more than any machine asks for
    for number in range(rounds + 1):
        for name in sorted(sides, reverse=number % 2 == 0):
            cost = sides[name].measure(scripts, seconds if number else 1, most)
            if number:
                runs[name].append(cost)
        progress(f"counting round {number} of {rounds}")
    quiet = sides["ours"].measure(scripts, seconds, most, connections=1)
    return Compared(runs["ours"], runs["inline"], quiet)


class Memory(Struct, frozen=True):
    """Bytes that *tokens* tokens take in the store: how much more it uses, and what it says of the key."""

    server: str
    tokens: int
    used: int
    key: int


def measure_memory(server: StoreServer, tokens: int = TOKENS) -> Memory:
    """Count one impression of each of as many tokens, issued one after the other by four workers."""
    server.start()
    day = Days("UTC").locate(time.time())[0]
    with server.client() as client:
        before = int(client.info("memory")["used_memory"])
        asyncio.run(_count_tokens(server.url, day, tokens))
        after = int(client.info("memory")["used_memory"])
        key = int(client.execute_command("MEMORY", "USAGE", partition(day), "SAMPLES", 0))
        info = client.info("server")
    server.kill()
    version = info.get("valkey_version") or info["redis_version"]
    return Memory(f"{server.kind} {version}", tokens, after - before, key)


async def _count_tokens(url: str, day: int, tokens: int) -> None:
    subject = bytes.fromhex("0b5d1122334455") + b"\0"
    share = tokens // _PRODUCERS
    async with open_store(url) as store:
        for _ in range(_PRODUCERS):
            producer = secrets.token_bytes(8)
            template = stored([Event(Type.IMPRESSION, 0, day, 14, producer[:5], 0, subject, 0)])
            assert len(template) == STORED
            for start in range(0, share, _BATCH):
                end = min(share, start + _BATCH)
                data = b"".join([template[:10] + _SERIAL.pack(serial) + template[14:] for serial in range(start, end)])
                outcome = await store.apply(producer, tally(day, start, end, data))
                if outcome != Applied(end, 0):
                    raise WrongAnswers(f"the store answered {outcome} to a fresh batch")


def rows(found: Compared) -> list[Row | Bound]:
    def row(of: Callable[[Cost], float], what: str, to_reach: float | None) -> Row:
        sides = (median(map(of, found.ours)), median(map(of, found.inline)))
        return Row(
            f"beacons counted per CPU second of {what}",
            "one HINCRBY awaited in each",
            *sides,
            to_reach,
            found.pairs(of),
        )

    sent, ran = (median(map(of, found.ours)) for of in (Cost.sent, Cost.ran))
    rate = found.quiet.events / found.quiet.seconds
    return [
        row(lambda one: one.per_worker_s, "the worker", 1.7),
        row(lambda one: one.per_cpu_s, "worker and store", 1.7),
        Bound("commands sent to the store per 1,000 beacons", "all; a script is one", sent, 20),
        Bound("the same and those within scripts", "all that INFO commandstats shows", ran, 20),
        Bound(
            "scripts per 1,000 beacons on one connection", f"{rate:,.0f} beacons a second", found.quiet.batches(), None
        ),
    ]


def footnote(found: Compared) -> str:
    of: tuple[Callable[[Cost], float], ...] = (lambda one: one.per_worker_s, lambda one: one.per_cpu_s)
    spread = "; ".join(f"{min(pairs):.2f} to {max(pairs):.2f}" for pairs in map(found.pairs, of))
    rate, n = median(one.events / one.seconds for one in found.ours), len(found.ours)
    return f"""\
Medians of {n} runs, both sides in turns, one worker each, {CONNECTIONS} connections; ours took {rate:,.0f} a second.
Processor time is user and kernel, from before the first request until all is counted. HTTP, token and filters are in
both sides; syncing to disk, shipping and remembering tokens in ours alone. Ratios of single rounds:
{spread}.
A batch goes ten times a second, or for {MOST_TOKEN_EVENTS} beacons: the fewer come, the more commands for 1,000.
Checked: every beacon answered was counted."""


MEMORY_NOTE = f"""\
{TOKENS:,} tokens of {_PRODUCERS} workers with one impression each, serials without gaps, counted by the service's own
batches. A token has three bits more for its other events, which take no further room."""


def memory_rows(found: Memory) -> list[Row | Bound]:
    figure = f"bytes per token at {found.tokens:,}, {found.server}"
    return [
        Bound(figure, "growth of used_memory", found.used / found.tokens, 4),
        Bound(figure, "MEMORY USAGE of the day's key", found.key / found.tokens, 4),
    ]
