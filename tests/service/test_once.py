"""One token counts once: a thousand copies at the same moment over four workers."""

import asyncio
from collections import Counter
from collections.abc import Callable

import psutil  # type: ignore[import-untyped]

from adserver.events import TOKEN_BIT, Type
from adserver.report import FIGURES
from adserver.secret import read_keys
from adserver.settings import Settings
from adserver.store import partition
from adserver.tally import TOKENS_A_CHUNK
from adserver.token import verify
from tests.service.live import BROWSER, Service, eventually

COPIES = 1000
WORKERS = 4
CONNECTIONS_EACH = 20
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def held(service: Service) -> Counter[int]:
    """How many readers' connections each worker holds."""
    found: Counter[int] = Counter()
    for worker in service.workers():
        connections: list[psutil._common.pconn] = worker.net_connections("tcp")
        found[worker.pid] = sum(one.status == psutil.CONN_ESTABLISHED for one in connections)
    return found


async def connect(service: Service) -> list[Connection]:
    """So many connections that every worker holds some of them."""
    opened: list[Connection] = []
    async with asyncio.timeout(20):
        while True:
            opened += [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(WORKERS)]
            if len(opened) % 40 == 0:
                holding = await asyncio.to_thread(held, service)
                if len(holding) == WORKERS and min(holding.values()) >= CONNECTIONS_EACH:
                    return opened


async def send_copies(service: Service, path: str) -> list[bytes]:
    """The heads of the answers to COPIES of one beacon, all of them sent before the first answer is read."""
    connections = await connect(service)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {BROWSER}\r\n\r\n".encode()
    shares = [COPIES // len(connections) + (n < COPIES % len(connections)) for n in range(len(connections))]
    for (_, writer), share in zip(connections, shares, strict=True):
        writer.write(request * share)

    async def read(connection: Connection, share: int) -> list[bytes]:
        reader, writer = connection
        heads = []
        for _ in range(share):
            heads.append((await reader.readuntil(b"\r\n\r\n")).lower())
            size = next(line for line in heads[-1].split(b"\r\n") if line.startswith(b"content-length: "))
            await reader.readexactly(int(size.split()[1]))
        writer.close()
        return heads

    async with asyncio.timeout(60):
        found = await asyncio.gather(*map(read, connections, shares))
    return [head for heads in found for head in heads]


def test_a_thousand_copies_at_once_over_four_workers_count_once(new_service: Callable[..., Service]) -> None:
    """
    Every copy is answered 200, whichever worker gets it; the report, the count and the token's bits know one event.
    """
    service = new_service(workers=WORKERS)
    service.start()
    text = service.token()
    token = verify(read_keys(Settings(data_dir=str(service.data))), text.encode())

    heads = asyncio.run(send_copies(service, f"/i/{text}"))

    assert Counter(head.split(b" ", 2)[1] for head in heads) == {b"200": COPIES}
    new = [head for head in heads if b"adserver-ignored" not in head]
    assert 1 <= len(new) <= WORKERS  # two workers may both be syncing it; the store counts the first
    assert sum(b"adserver-ignored: duplicate" in head for head in heads) == COPIES - len(new)
    expected = {**dict.fromkeys(FIGURES, 0), "requests": 1, "served": 1, "impressions": 1}
    assert eventually(lambda: service.settled() == expected, 10, "one impression")
    assert [row["gross"]["impressions"] for row in service.report() if row["gross"]["impressions"]] == [1]
    place = token.serial % TOKENS_A_CHUNK * 4 + TOKEN_BIT[Type.IMPRESSION]
    with service.redis() as client:
        fields = client.hgetall(partition(token.day))
    chunk = b"b:" + token.issuer + (token.serial // TOKENS_A_CHUNK).to_bytes(4, "big")
    assert {name: bits for name, bits in fields.items() if name[:2] == b"b:"} == {
        chunk: (1 << place).to_bytes(32, "little")
    }
    assert [n for name, n in fields.items() if name[:2] == b"3:"] == [b"1"]
