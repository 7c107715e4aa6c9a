"""What the service costs, each figure beside its baseline from the same run. The parts, by default the first three:

  http      requests per second: ads, articles and beacons, beside a bare function on the same server
  counting  beacons counted per second of processor time, of the worker alone and with the store, beside the same
            service with one HINCRBY awaited in each request; commands the store gets for 1,000 beacons
  catalogs  requests per second with goals, targeting, hours and page rules in use, and in a catalog of 10,000 slots
            and 100,000 line items; seconds until that catalog is served, and the slowest request meanwhile
  memory    bytes the store keeps for each of 1,000,000 tokens with one event each, on Valkey and on Redis
  backlog   1,000,000 events left behind by dead workers while the store was away: seconds until they are counted,
            how long live events wait meanwhile, and memory; about two minutes
  forecast  seconds until a month of 18 slots is foretold, with what helps goals that fall short, however many
  console   milliseconds that each page of the console takes with 10,000 line items, and the slowest ad meanwhile
  outage    the store is away for --away seconds under a steady load of --pages, and the same workers go on

A machine does what it likes from minute to minute, so a figure says nothing by itself: ours and its baseline are
measured in turns, and only their ratio is to be compared with anything. Exit codes: 0 measured, 1 an answer or a
count was wrong, 2 usage, 3 something the benchmark needs is missing.
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from adserver.days import Days
from adserver.settings import cores
from benchmarks import backlog, catalogs, counting, foretelling, load, pages, workers
from benchmarks.articles import SLOTS, write_articles
from benchmarks.counting import mint_for
from benchmarks.load import CONNECTIONS, HOW_TO_GET_WRK, Load, Run, WrongAnswers
from benchmarks.processes import (
    Answer,
    CannotRun,
    Service,
    ask,
    find_nginx,
    find_redis,
    running_bare,
    running_nginx,
    running_service,
    store_server,
)
from benchmarks.readers import BROWSER
from benchmarks.table import Bound, Row, table

_ARTICLES = 10_000
_AD = f"/ads/{SLOTS[0]}"


class Bench:
    """Measures the rows, one after the other."""

    def __init__(self, service: Service, directory: Path, rounds: int, seconds: int, parts: ExitStack) -> None:
        self.service = service
        self.directory = directory
        self.rounds = rounds
        self.seconds = seconds
        self.rows: list[Row] = []
        self.beacons = 0
        self.day = 0
        self._parts = parts

    def measure_ads(self) -> None:
        answer = self._typical_snippet()
        (self.directory / "snippet").write_bytes(answer.replay())
        bare = self._bare("answer", str(self.directory / "snippet"))
        sides = {"ours": (self.service.port, Load("plain", _AD)), "bare": (bare, Load("plain", _AD))}
        nginx = find_nginx()
        if nginx:
            port = self._parts.enter_context(running_nginx(nginx, self.directory / "nginx", answer.body))
            sides["nginx"] = (port, Load("plain", "/snippet.html"))
        runs = self._race(sides)
        figure, size = f"GET {_AD}", f"{len(answer.body):,} bytes"
        self._add(figure, f"bare function, same {size} and headers", runs["ours"], runs["bare"], 0.85)
        if nginx:
            self._add(figure, f"nginx, static file of {size} (ceiling)", runs["ours"], runs["nginx"], None)

    def measure_sides(self, rich: Service, small: Service, large: Service) -> None:
        """Ads of a catalog with everything in use beside a bare function, and of a large one beside a small one."""
        answer = ask(rich.port, "GET", "/ads/100000?section=business&tag=rates")
        (self.directory / "snippet").write_bytes(answer.replay())
        bare = self._bare("answer", str(self.directory / "snippet"))
        names = ("rich", "small", "large", "many")
        loads = {name: Load("cycle", "/", self.directory / f"{name}-targets") for name in names}
        runs = self._race({"ours": (rich.port, loads["rich"]), "bare": (bare, loads["rich"])})
        figure = "GET /ads/{id}?section=…, goals, targeting, hours and page rules in use"
        self._add(figure, "bare function, same bytes and headers", runs["ours"], runs["bare"], 0.80)
        runs = self._race({"ours": (large.port, loads["large"]), "small": (small.port, loads["small"])})
        figure = "GET /ads/{id}, 10,000 slots and 100,000 line items"
        self._add(figure, "the same at 18 slots and 30 line items", runs["ours"], runs["small"], 0.90)
        runs = self._race({"ours": (large.port, loads["many"]), "few": (large.port, loads["large"])})
        figure = "the same catalog, 300 slots and their 3,000 ads asked for"
        self._add(figure, "18 slots and their 180 ads asked for", runs["ours"], runs["few"], None)

    def measure_render(self) -> None:
        articles = list(write_articles(_ARTICLES))
        rendered = ask(self.service.port, "POST", "/render", articles[0], {"content-type": "text/html"})
        if rendered.headers.get("adserver-filled") != str(len(SLOTS)) or b"[the_ad" in rendered.body:
            raise WrongAnswers(f"/render: expected {len(SLOTS)} ads and no shortcode left; got {rendered.headers}")
        bare = self._bare("echo")
        for name, bodies, to_reach in (
            ("the same article", articles[:1], 0.40),
            (f"{len(articles):,} different articles", articles, 0.20),
        ):
            file = self.directory / "bodies"
            load.write_bodies(file, bodies)
            sending = Load("bodies", "/render", file)
            runs = self._race({"ours": (self.service.port, sending), "bare": (bare, sending)})
            size = sum(map(len, bodies)) // len(bodies)
            figure = f"POST /render, {name}, {len(SLOTS)} shortcodes"
            self._add(figure, f"bare function, echoing {size:,} bytes", runs["ours"], runs["bare"], to_reach)

    def measure_beacons(self) -> None:
        mint, self.day = mint_for(self.service)
        gif = ask(self.service.port, "GET", mint(), headers={"user-agent": BROWSER})
        if gif.status != 200 or "adserver-ignored" in gif.headers:
            raise WrongAnswers(f"a fresh token's impression was not counted: {gif.status} {gif.headers}")
        (self.directory / "gif").write_bytes(gif.replay())
        bare = self._bare("answer", str(self.directory / "gif"))
        file = self.directory / "tokens"
        # Behind the last token wrk asks for this path, which the service refuses: none is sent twice unnoticed.
        sending = Load("targets", "/out-of-tokens", file, (f"user-agent: {BROWSER}",))

        def write_tokens(seconds: int, rate: float) -> None:
            file.write_text("".join(f"{mint()}\n" for _ in range(int(rate * seconds) + 1000)))

        write_tokens(1, 60_000)
        most = 1.5 * load.run(sending, bare, 1, self.directory).rate  # also of a bare function, which counts nothing
        runs = self._race(
            {"ours": (self.service.port, sending), "bare": (bare, sending)},
            before=lambda seconds: write_tokens(seconds, most),
        )
        self.beacons += sum(run.answered for run in runs["ours"]) + 1
        figure = f"GET /i/{{token}}, synced to disk, {CONNECTIONS} connections"
        self._add(figure, f"bare function, same {len(gif.body)} bytes and headers", runs["ours"], runs["bare"], 0.45)

    def check_counts(self) -> None:
        """Every answer is a 200, and the report has counted each of them: no more, no less."""
        self.service.settle()
        answers = self.service.answers()
        wrong = {key: n for key, n in answers.items() if key not in _RIGHT and key[0] != "other"}  # our own questions
        if wrong:
            raise WrongAnswers(f"answers by route and status that should not be: {wrong}")
        ads, articles, impressions = (answers[key] for key in _RIGHT)
        counted = self.service.report(Days.date(self.day).isoformat())
        expected = {
            "requests": ads + articles * len(SLOTS),
            "served": ads + articles * len(SLOTS),
            "impressions": impressions,
            "invalid": 0,
        }
        if counted != expected:
            raise WrongAnswers(f"the report counts {counted}; the answers given say {expected}")
        # wrk does not read what is still on its way when its time is up.
        on_their_way = impressions - self.beacons
        if not 0 <= on_their_way <= CONNECTIONS * (self.rounds + 1):
            raise WrongAnswers(f"wrk read {self.beacons:,} beacons' answers, the service sent {impressions:,}")
        print(
            f"Checked: every answer a 2xx; report = answers: {counted['impressions']:,} impressions "
            f"({self.beacons:,} read by wrk, {on_their_way} on their way when a run ended), "
            f"{counted['served']:,} served."
        )

    def _bare(self, *arguments: str) -> int:
        return self._parts.enter_context(running_bare(*arguments, log=self.directory / "bare.log"))

    def _race(
        self, sides: dict[str, tuple[int, Load]], before: Callable[[int], None] | None = None
    ) -> dict[str, list[Run]]:
        """Measure the sides in turns, the order turned around each time; the first short run only warms up."""
        runs: dict[str, list[Run]] = {name: [] for name in sides}
        warming = 0
        for number in range(self.rounds + 1):
            seconds = self.seconds if number else 1
            if before:
                before(seconds)
            for name in sorted(sides, reverse=number % 2 == 0):
                port, sending = sides[name]
                self.service.settle()
                run = load.run(sending, port, seconds, self.directory)
                if number:
                    runs[name].append(run)
                elif name == "ours" and sending.kind == "targets":
                    warming = run.answered
            progress(f"{sides['ours'][1].path} round {number} of {self.rounds}")
        self.beacons += warming
        return runs

    def _add(self, figure: str, against: str, ours: list[Run], baseline: list[Run], to_reach: float | None) -> None:
        pairs = [one.rate / other.rate for one, other in zip(ours, baseline, strict=True)]
        rates = (median(run.rate for run in ours), median(run.rate for run in baseline))
        self.rows.append(Row(figure, against, *rates, to_reach, pairs))

    def _typical_snippet(self) -> Answer:
        """Ads take turns and differ in length: the answer of middle length among a hundred."""
        answers = [ask(self.service.port, "GET", _AD) for _ in range(101)]
        if any(answer.status != 200 or not answer.body for answer in answers):
            raise WrongAnswers(f"{_AD}: expected an ad each time, and one answer had none")
        return sorted(answers, key=lambda answer: len(answer.body))[50]


_RIGHT = (("ad", "200"), ("render", "200"), ("impression", "200"))


def progress(what: str) -> None:
    """For the person who waits; not part of the output."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)


def footnote(bench: Bench, sync_ms: float) -> str:
    spread = "; ".join(f"{min(row.pairs):.2f} to {max(row.pairs):.2f}" for row in bench.rows)
    python, n = platform.python_version(), cores()
    return f"""\
Requests per second: medians of {bench.rounds} runs of {bench.seconds} s each, ours and baseline in turns, one worker,
{CONNECTIONS} keep-alive connections. Ratios of single rounds, row by row: {spread}.
{platform.system()}, {n} cores, Python {python}; syncing 32 bytes takes {sync_ms:.2f} ms here (median of 50).
While it answers, ours also counts: its shipper runs in the worker, and the embedded store beside it. These and wrk
share the {n} cores. A figure means nothing without the baseline from the same run."""


def time_sync(directory: Path) -> float:
    """Milliseconds that 32 bytes take to reach the disk."""
    took = []
    with (directory / "sync").open("wb", buffering=0) as file:
        file.write(b"\0" * 65536)
        os.fsync(file.fileno())
        for n in range(50):
            began = time.perf_counter()
            os.pwrite(file.fileno(), b"\1" * 32, n * 32)
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    return median(took)


def measure_http(options: argparse.Namespace, directory: Path) -> None:
    sync_ms = time_sync(directory)
    with ExitStack() as parts:
        service = parts.enter_context(running_service(directory / "data"))
        bench = Bench(service, directory, options.rounds, options.seconds, parts)
        bench.measure_ads()
        bench.measure_render()
        bench.measure_beacons()
        progress("")
        print(table([*bench.rows]), footnote(bench, sync_ms), sep="\n\n", flush=True)
        bench.check_counts()


def measure_counting(options: argparse.Namespace, directory: Path) -> None:
    with (
        running_service(directory / "counted") as ours,
        running_service(directory / "inline", module="benchmarks.inline") as inline,
    ):
        found = counting.compare(ours, inline, directory, options.rounds, options.seconds, progress)
    progress("")
    print(table(counting.rows(found)), counting.footnote(found), sep="\n\n", flush=True)


def measure_catalogs(options: argparse.Namespace, directory: Path) -> None:
    with ExitStack() as parts:
        services = [parts.enter_context(running_service(directory / name)) for name in ("rich", "small", "large")]
        rich, small, large = services
        published = catalogs.while_publishing(large, catalogs.made_up(*catalogs.LARGE), progress)
        catalogs.publish(rich, catalogs.made_up(*catalogs.SMALL, rich=True))
        catalogs.publish(small, catalogs.made_up(*catalogs.SMALL))
        time.sleep(3)  # until the pace of the goals is known
        bench = Bench(rich, directory, options.rounds, options.seconds, parts)
        same = catalogs.SMALL[0]  # slots that are asked for: what a large catalog costs, and nothing else
        for name, slots, query, busy in (
            ("rich", catalogs.SMALL[0], "?section=business&tag=rates", same),
            ("small", catalogs.SMALL[0], "", same),
            ("large", catalogs.LARGE[0], "", same),
            ("many", catalogs.LARGE[0], "", 300),
        ):
            catalogs.write_targets(directory / f"{name}-targets", slots, query=query, busy_slots=busy)
        bench.measure_sides(rich, small, large)
        progress("")
        rows: list[Row | Bound] = [
            *bench.rows,
            Bound("publishing 100,000 line items", "seconds until served", published.seconds, 2),
            Bound(
                "slowest request meanwhile, ms",
                f"p99 before: {published.p99_ms:.1f} ms; slowest: {published.before_ms:.1f}",
                published.meanwhile_ms,
                2 * published.p99_ms,
            ),
        ]
        print(table(rows), footnote(bench, time_sync(directory)), sep="\n\n", flush=True)


def measure_memory(_: argparse.Namespace, directory: Path) -> None:
    rows: list[Row | Bound] = []
    for kind in ("valkey", "redis") if find_redis() else ("valkey",):
        with store_server(kind, directory / kind) as server:
            rows += counting.memory_rows(counting.measure_memory(server))
    progress("memory of a worker")
    rows += workers.rows(directory)
    progress("")
    print(table(rows), counting.MEMORY_NOTE, sep="\n\n", flush=True)


def measure_backlog(options: argparse.Namespace, directory: Path) -> None:
    found = backlog.measure_left_behind(directory, options.events)
    print(table(backlog.rows_left_behind(found)), backlog.footnote(found), sep="\n\n", flush=True)


def measure_outage(options: argparse.Namespace, directory: Path) -> None:
    found = backlog.measure_outage(directory, options.away, options.pages)
    print(table(backlog.rows_outage(found)), backlog.footnote(found), sep="\n\n", flush=True)


def measure_forecast(_: argparse.Namespace, __: Path) -> None:
    rows: list[Row | Bound] = [
        Bound(what, f"seconds; {used:.1f} s of processor time", took, most)
        for what, took, used, most in foretelling.measure(progress)
    ]
    progress("")
    print(table(rows), flush=True)


def measure_console(_: argparse.Namespace, directory: Path) -> None:
    with running_service(directory / "data") as service:
        catalogs.publish(service, pages.document(foretelling.sample()))
        time.sleep(3)  # until the pace of the goals is known
        rows: list[Row | Bound] = [one.row for one in pages.measure_all(service, progress)]
    progress("")
    print(table(rows), flush=True)


_PARTS = {
    "http": measure_http,
    "counting": measure_counting,
    "catalogs": measure_catalogs,
    "memory": measure_memory,
    "backlog": measure_backlog,
    "forecast": measure_forecast,
    "console": measure_console,
    "outage": measure_outage,
}
_USUAL = ("http", "counting", "memory")
_LOADED_BY_WRK = {"http", "counting", "catalogs"}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The parts of an answer by themselves, in microseconds: python -m benchmarks.micro",
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(_PARTS)} (default: {' '.join(_USUAL)})")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="runs of each side (default: 7)")
    parser.add_argument("--seconds", type=int, default=2, metavar="S", help="whole seconds a run takes (default: 2)")
    parser.add_argument(
        "--events", type=int, default=1_000_000, metavar="N", help="backlog: events left behind (default: 1000000)"
    )
    parser.add_argument(
        "--away", type=int, default=600, metavar="S", help="outage: seconds without a store (default: 600)"
    )
    parser.add_argument(
        "--pages",
        type=int,
        default=500,
        metavar="N",
        help="outage: page views a second, 2.55 events each (default: 500)",
    )
    parser.add_argument(
        "--directory",
        metavar="PATH",
        help="where the service's data is kept meanwhile: the disk that beacons are synced to (default: TMPDIR)",
    )
    options = parser.parse_args(arguments)
    if not 1 <= options.rounds <= 100 or not 1 <= options.seconds <= 60:
        parser.error("expected 1 to 100 rounds of 1 to 60 seconds")
    if (
        not 1000 <= options.events <= 100_000_000
        or not 1 <= options.away <= 86_400
        or not 1 <= options.pages <= 100_000
    ):
        parser.error("expected 1,000 to 100,000,000 events, 1 to 86,400 seconds away, 1 to 100,000 pages a second")
    parts = dict.fromkeys(options.parts or _USUAL)
    if unknown := parts.keys() - _PARTS.keys():
        parser.error(f"{min(unknown)!r} is not a part; expected {', '.join(_PARTS)}")
    if parts.keys() & _LOADED_BY_WRK and not load.find_wrk():
        print(HOW_TO_GET_WRK, file=sys.stderr)
        return 3
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        with tempfile.TemporaryDirectory(prefix="adserver-bench-", dir=options.directory) as directory:
            for number, part in enumerate(parts):
                if number:
                    print()
                (home := Path(directory) / part).mkdir()
                load.write_scripts(home)
                _PARTS[part](options, home)
    except WrongAnswers as error:
        print(f"Wrong: {error}", file=sys.stderr)
        return 1
    except (CannotRun, OSError) as error:
        print(error, file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
