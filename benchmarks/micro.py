"""The parts of an answer by themselves, in microseconds: `python -m benchmarks.micro`.

Best of 5 on a machine that also does other things: what a part costs when nothing comes between.
"""

import asyncio
import tempfile
import time
import timeit
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from adserver import metrics, repair
from adserver.catalog import Catalog
from adserver.config_files import read_config
from adserver.context import MOST_IDS
from adserver.decide import Filled, Page, decide
from adserver.events import Type
from adserver.journal import create_journal
from adserver.metrics import Meter
from adserver.model import Format, SlotId
from adserver.render import compile_snippet
from adserver.token import Keys, Mint, verify
from benchmarks.articles import SLOTS, write_articles
from benchmarks.processes import PROJECT

_ALLOWED = 7


def microseconds(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call)
    number, _ = timer.autorange()
    number = max(1, number // 4)
    return min(timer.repeat(5, number)) / number * 1e6


async def measure(root: Path) -> list[tuple[str, float]]:
    document = read_config(PROJECT / "config").document
    catalog = Catalog(document, 1)
    now = time.time()
    day = int(now // 86400)
    keys = Keys({1: bytes(32)}, 1)
    mint = Mint(keys, b"bench")
    journal = create_journal(root)
    one, page = Page((SlotId(SLOTS[0]),)), Page(tuple(map(SlotId, SLOTS)))
    draws: dict[int | str, int] = defaultdict(int)
    [decision] = decide(catalog, now, one, draws)
    assert isinstance(decision, Filled)
    ad = decision.ad
    snippet = compile_snippet(catalog, ad, Format.HTML, "http://127.0.0.1:8000", eager=True)
    token = mint.token(ad.key, day, now, _ALLOWED)
    [body] = write_articles(1)
    article = body.decode()
    meter = Meter()
    counter = metrics.SERVED.labels(str(ad.slot.id))
    meter.add(counter)
    parts: list[tuple[str, Callable[[], object]]] = [
        ("decide, one slot", lambda: decide(catalog, now, one, draws)),
        (f"decide, a page of {len(SLOTS)}", lambda: decide(catalog, now, page, draws)),
        ("mint a token", lambda: mint.token(ad.key, day, now, _ALLOWED)),
        ("verify a token", lambda: verify(keys, token)),
        (
            "journal append",
            lambda: journal.append(Type.SERVED, 0, day, 12, journal.issuer, 1, ad.key, now),
        ),
        ("render: join token and snippet", lambda: token.join(snippet)),
        (f"parse an article of {len(body):,} bytes", lambda: repair.read(article, MOST_IDS)),
        ("Meter.add", lambda: meter.add(counter)),
        (f"compile the catalog of {len(catalog.slots)} slots", lambda: Catalog(document, 1)),
    ]
    found = [(name, microseconds(call)) for name, call in parts]
    await journal.close()
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="adserver-bench-") as directory:
        found = asyncio.run(measure(Path(directory) / "journal"))
    width = max(len(name) for name, _ in found)
    print(f"{'part'.ljust(width)}  µs, best of 5\n{'-' * width}  -------------")
    for name, took in found:
        print(f"{name.ljust(width)}  {took:13,.2f}")


if __name__ == "__main__":
    main()
