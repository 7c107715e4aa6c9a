"""Outages of the store: readers notice nothing, and afterwards the counts add up."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from tests.service.live import Service, eventually, free_port
from tests.service.load import counted, more, readers_of

OUTAGE_S = 3.0


class RedisServer:
    """Debian's redis-server on a port of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.home),
                 "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"],
                stdout=log, stderr=log,
            )  # fmt: skip
        eventually(self.answers, 10, "redis-server")

    def answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(10)

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed")
    server = RedisServer(tmp_path_factory.mktemp("r"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def on_redis(external: RedisServer, new_service: Callable[..., Service]) -> Iterator[Service]:
    """A service whose store is Debian's redis-server."""
    service = new_service(environ={"ADSERVER_REDIS_URL": external.url})
    service.start()
    yield service
    service.stop()


def status(service: Service) -> str:
    """What /readyz says. Degraded by the store alone; pacing says so for up to a second longer, until it asks again."""
    answer = service.http.get("/readyz")
    assert answer.status_code == 200  # degraded is still ready
    found = answer.json()
    if found["status"] == "degraded":
        store = [reason for reason in found["reasons"] if "store" in reason and "journals" in reason]
        pacing = [reason for reason in found["reasons"] if reason.startswith("goals are paced by what was last heard")]
        assert store or pacing
        assert len(store) + len(pacing) == len(found["reasons"])
    return str(found["status"])


@pytest.mark.system
@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
def test_outage_of_redis_costs_readers_nothing(on_redis: Service, external: RedisServer, blow: signal.Signals) -> None:
    """
    Redis hangs or dies for seconds under load: zero answers but the usual ones, and afterwards the counts add up.
    """
    before = eventually(on_redis.settled, 20, "counts")
    with readers_of(on_redis) as load:
        eventually(more(load, 50), 10, "page views")
        external.signal(blow)
        away_until = time.monotonic() + OUTAGE_S
        eventually(lambda: status(on_redis) == "degraded", 5, "degraded")
        eventually(lambda: time.monotonic() > away_until and more(load, 50)() is not None, OUTAGE_S + 1)
        assert on_redis.http.get("/api/report").status_code == 503
        if blow == signal.SIGSTOP:
            external.signal(signal.SIGCONT)
        else:
            external.start()
        eventually(lambda: status(on_redis) == "ok", 20, "readiness")
        eventually(more(load, 50), 10, "page views afterwards")

    assert load.unexpected() == {}
    assert load.unanswered == []
    assert load.refused == []
    after = eventually(counted(on_redis, load, before), 15, repr(load))
    assert after["impressions"] - before["impressions"] == load.acknowledged["impressions"]
    assert after["served"] - before["served"] == load.acknowledged["served"]
    assert "counting is put off" in on_redis.log()


@pytest.mark.system
def test_wiped_redis_is_counted_anew_from_the_journals(on_redis: Service, external: RedisServer) -> None:
    """
    After FLUSHALL the catalog is there again and every count is what it was.
    """
    token = on_redis.token()
    on_redis.http.get(f"/i/{token}")
    before = eventually(on_redis.settled, 20, "counts")
    names = {row["creative"]: row["served"] for row in on_redis.report("creative")}
    with redis.Redis(port=external.port) as client:
        client.flushall()

    assert on_redis.http.get("/ads/889990").status_code == 200
    before["served"] += 1
    before["requests"] += 1
    eventually(lambda: on_redis.settled() == before, 15, f"{before} again")
    on_redis.http.get(f"/i/{token}")
    assert on_redis.counts()["impressions"] == before["impressions"]
    assert (
        sum({row["creative"]: row["served"] for row in on_redis.report("creative")}.values()) == sum(names.values()) + 1
    )
    assert None not in [row["creative"] for row in on_redis.report("creative")]
    assert on_redis.run("apply", str(on_redis.config)).stdout.startswith("Nothing to change")


@pytest.mark.system
def test_start_without_redis_serves_from_the_snapshot(on_redis: Service, external: RedisServer) -> None:
    """
    A restart while Redis is away serves the last live version from disk, degraded in words, and counts later.
    """
    slots = on_redis.config / "slots.toml"
    slots.write_text(
        slots.read_text()
        .replace("First box", "first box")
        .replace('size = "160x600"', 'size = "160x600"\nlabel = "From the snapshot"')
    )
    on_redis.run("apply", str(on_redis.config))
    with on_redis.each_worker() as workers:
        for one in workers.values():
            eventually(lambda one=one: "From the snapshot" in one.get("/ads/889984").text, 5, "the new version")  # type: ignore[misc]
    before = eventually(on_redis.settled, 20, "counts")
    version = on_redis.http.get("/readyz").json()["catalog_version"]
    on_redis.stop()
    external.signal(signal.SIGKILL)

    on_redis.start("degraded")

    assert on_redis.http.get("/readyz").json()["catalog_version"] == version
    html = on_redis.http.get("/ads/889984").text
    assert "From the snapshot" in html
    image = html.partition("/assets/")[2].partition('"')[0]
    assert not image or on_redis.http.get(f"/assets/{image}").status_code == 200
    assert on_redis.http.get(f"/i/{on_redis.token(889984)}").status_code == 200
    external.start()
    eventually(lambda: status(on_redis) == "ok", 20, "readiness")
    eventually(lambda: (on_redis.settled() or before)["impressions"] > before["impressions"], 20, "the impression")
    assert on_redis.counts()["impressions"] == before["impressions"] + 1


@pytest.mark.system
def test_services_with_different_keys_on_one_store_are_noticed(
    on_redis: Service, external: RedisServer, new_service: Callable[..., Service]
) -> None:
    """
    Two services that cannot verify each other's tokens say so; each counts its own, exactly.
    """
    before = eventually(on_redis.settled, 20, "counts")
    other = new_service(workers=1, environ={"ADSERVER_REDIS_URL": external.url})
    other.start("degraded")

    assert any("signing keys" in reason for reason in other.readiness["reasons"])
    token = on_redis.token()
    assert other.http.get(f"/i/{token}").headers["adserver-ignored"] == "forged"
    assert "adserver-ignored" not in on_redis.http.get(f"/i/{token}").headers
    assert "adserver-ignored" not in other.http.get(f"/i/{other.token()}").headers
    eventually(lambda: other.counts()["impressions"] == before["impressions"] + 2, 20, "both impressions")
    assert on_redis.counts() == other.counts()
    other.stop()


@pytest.mark.system
def test_first_start_without_redis_serves_from_the_files(
    external: RedisServer, new_service: Callable[..., Service]
) -> None:
    """
    On a fresh data directory and without Redis, ads come from the config directory.
    """
    service = new_service(workers=1, environ={"ADSERVER_REDIS_URL": f"redis://127.0.0.1:{free_port()}"})

    service.start("degraded")

    assert service.http.get("/ads/889990").status_code == 200
    assert service.http.get(f"/i/{service.token()}").status_code == 200
    assert service.run("report", code=3).stdout == ""
    service.stop()


def test_embedded_store_is_started_again(service: Service) -> None:
    """
    The embedded store killed with -9 under load is replaced at once; readers notice nothing and the counts add up.
    """
    before = eventually(service.settled, 20, "counts")
    with readers_of(service) as load:
        eventually(more(load, 50), 10, "page views")
        old = service.store()
        old.kill()

        def is_replaced() -> bool:
            try:
                return bool(service.store().pid != old.pid)
            except StopIteration:
                return False

        eventually(is_replaced, 10, "another store")
        eventually(lambda: status(service) == "ok", 20, "readiness")
        eventually(more(load, 50), 10, "page views afterwards")

    assert load.unexpected() == {}
    assert load.unanswered == []
    eventually(counted(service, load, before), 15, repr(load))
    assert service.settled() is not None
    assert "started again" in service.log()


def test_wiped_embedded_store_is_counted_anew(service: Service) -> None:
    """
    FLUSHALL of the embedded store loses nothing.
    """
    service.http.get(f"/i/{service.token()}")
    before = eventually(service.settled, 20, "counts")
    with service.redis() as client:
        client.flushall()

    eventually(lambda: service.settled() == before, 15, f"{before} again")


def test_key_that_holds_no_number_is_said_and_never_a_500(service: Service) -> None:
    """
    A count that somebody else overwrote with words degrades the report, not the ads.
    """
    service.http.get(f"/i/{service.token()}")
    eventually(service.settled, 20, "counts")
    with service.redis() as client:
        key = next(key for key in client.scan_iter("as:{[0-9]*}"))
        field = next(name for name in client.hkeys(key) if name[:1].isdigit())
        kept = client.hget(key, field)
        client.hset(key, field, "1e309")
        try:
            answer = service.http.get("/api/report")
            printed = service.run("report", code=None)
            assert service.http.get("/ads/889990").status_code == 200
        finally:
            client.hset(key, field, kept or b"0")

    assert answer.status_code == 503
    assert printed.returncode == 3
