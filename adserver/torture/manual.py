"""What `adserver torture --help` says, and the words it takes. Light, for every command line is parsed with it."""

import argparse
from typing import Any

from adserver.torture.broken import VARIANTS

MOST_GROWN_MB = 24
"""How much a worker may grow while the store is away, in mebibytes. Over its first 80,000 events it grows by some 15
with the store and without, for its heap settles; after that by less than 1 in 30,000. Holding 100,000 waiting events
would take more: one costs 200 bytes and up as Python objects."""
CONTROL_EVENTS = 5_000
CONTROL_ROUNDS = 8
"""A broken service may get through a round by luck; nearly all are caught in the first."""

FAULTS = {
    "kill": "kill -9 of a worker",
    "power": "kill -9 of the whole service and a power cut: journals lose what no sync had made safe, or part of it",
    "redis": "kill -9 of the store, half of the time with a power cut: its append-only file loses what was not on disk",
    "failover": "to a replica made stale on purpose; the old primary is dead, or goes on taking writes for a while; in "
    "a cluster a primary is killed or hangs, and its replica takes over by itself",
    "wipe": "FLUSHALL",
    "cut": "the store hangs, connections break, or requests arrive and replies do not",
    "outage": "the whole store is dead or silent for long, and no worker's memory may grow by what waits meanwhile",
    "disk": "syncs fail with EIO and lose their pages, or no new segment can be made for want of room",
    "clock": "the wall clock jumps, by seconds or hours, also over midnight",
}

ABOUT = f"""Prove on this machine that every acknowledged event is counted once and none twice.

A round is a service of its own with its own store, on loopback and in a temporary directory. Readers ask it for
snippets and send the beacons of those; what is not answered they send again, and some of what is answered too.
Meanwhile one thing after the other goes wrong:

{chr(10).join(f"  {name:9} {about}" for name, about in FAULTS.items())}

Afterwards acknowledged events, journals and store are added up, by day, ad and type, and must agree:
acknowledged <= count <= acknowledged + unanswered, every token event exactly once, and the store to the last count
what the journals hold. Snippets are acknowledged at level A1: they survive kill -9, and those of the last 50 ms may
go with the power; what went that way is in the column "A1" and not in "lost". Where `outage` is all that goes wrong,
no worker may grow by more than {MOST_GROWN_MB} MB while the store is away.

Exit code 0: all rounds were exact (or every broken service was caught). 1: they were not.
"""

EPILOG = f"""Services broken on purpose, for --broken:
{chr(10).join(f"  {name:27} {variant.about}" for name, variant in VARIANTS.items())}

examples:
  adserver torture                              20 rounds of 50,000 events, on both servers and a cluster of each
  adserver torture --rounds 3 --events 10000    a short one
  adserver torture --faults kill,power --server redis-server --seed 7
  adserver torture --server cluster:redis-server
                                                three primaries with a replica each; killed ones are taken over
  adserver torture --faults outage --events 100000
                                                the store is away for most of it; workers' memory is watched
  adserver torture --controls                   every broken service must be caught
  adserver torture --simulate 5000              the protocol alone, in 5,000 made-up worlds
"""


def add_arguments(parser: Any) -> None:
    """Describe the command's flags to *parser*."""
    parser.description, parser.epilog = ABOUT, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--rounds", type=_count, metavar="N", help=f"rounds (default: 20; {CONTROL_ROUNDS} at most for a broken one)"
    )
    parser.add_argument(
        "--events",
        type=_count,
        metavar="N",
        help=f"events of a round (default: 50000; {CONTROL_EVENTS} for a broken one)",
    )
    parser.add_argument(
        "--faults",
        type=_faults,
        default=tuple(FAULTS),
        metavar="LIST",
        help="what may go wrong, of the list above, separated by commas; 'none' for nothing (default: all)",
    )
    parser.add_argument(
        "--server",
        metavar="LIST",
        help="stores, by commas, in turn: embedded, redis-server or a file, each also as a cluster, such as "
        "cluster:redis-server (default: the first two, alone and as clusters, where installed)",
    )
    parser.add_argument(
        "--seed", type=int, metavar="S", help="seed of the first round; each round prints its own (default: by chance)"
    )
    parser.add_argument("--workers", type=_count, default=2, metavar="N", help="workers of the service (default: 2)")
    parser.add_argument("--connections", type=_count, default=4, metavar="N", help="connections kept busy (default: 4)")
    parser.add_argument("--jobs", type=_count, default=1, metavar="N", help="rounds played at a time (default: 1)")
    parser.add_argument("--config", help="directory of *.toml files to serve (default: config)")
    parser.add_argument("--keep", action="store_true", help="keep the directory of a round that was not exact")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--broken", choices=list(VARIANTS), metavar="NAME", help="break the service on purpose; it must be caught"
    )
    how.add_argument("--controls", action="store_true", help="break it in every way of the list below")
    how.add_argument(
        "--simulate", type=_count, metavar="SEEDS", help="no processes: run the protocol in this many simulated worlds"
    )
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="the first world's seed (default: 0)")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _faults(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip() and name.strip() != "none")
    if strangers := [name for name in names if name not in FAULTS]:
        raise argparse.ArgumentTypeError(f"{strangers[0]!r} is none of {', '.join(FAULTS)}")
    return names
