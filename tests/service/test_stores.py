"""The whole service on a store of several servers: behind sentinels, on a cluster, and with a replica that confirms."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edges.servers import Cluster, Process, Sentinels, cluster, pair, sentinels
from tests.service.live import Service, client, eventually
from tests.service.load import counted, more, readers_of
from tests.service.test_outage import status

pytestmark = pytest.mark.system

Made = Callable[..., Service]


@pytest.fixture
def behind_sentinels() -> Iterator[Sentinels]:
    with sentinels("valkey") as found:
        yield found


@pytest.fixture
def on_cluster() -> Iterator[Cluster]:
    with cluster("valkey") as found:
        yield found


@pytest.fixture
def servers() -> Iterator[list[Process]]:
    with pair("valkey", "--appendonly", "yes", "--appendfsync", "always") as found:
        yield found


def live_through(service: Service, kill: Callable[[], None]) -> None:
    """Start, publish, count, lose the primary under load, and have every count in the end."""
    service.start()
    slots = service.config / "slots.toml"
    slots.write_text(slots.read_text().replace('size = "160x600"', 'size = "160x600"\nlabel = "Published"'))
    assert '"Published"' in service.run("apply", str(service.config)).stdout
    before = eventually(service.settled, 10, "counts")
    with readers_of(service) as load:
        eventually(more(load, 50), 15, "page views")
        kill()
        eventually(more(load, 50), 15, "page views meanwhile")
        eventually(lambda: status(service) == "ok", 20, "readiness")
        eventually(more(load, 50), 15, "page views afterwards")

    assert load.unexpected() == {}
    assert load.unanswered == []
    after = eventually(counted(service, load, before), 20, repr(load))
    assert after["impressions"] - before["impressions"] == load.acknowledged["impressions"]
    assert after["served"] - before["served"] == load.acknowledged["served"]
    assert sum(row["impressions"] for row in service.report()) == after["impressions"]
    assert service.run("apply", str(service.config)).stdout.startswith("Nothing to change")
    assert service.stop() == 0


def test_primary_behind_sentinels_is_killed_under_load(behind_sentinels: Sentinels, new_service: Made) -> None:
    """
    The replica takes over; readers notice nothing and every acknowledged event is counted once.
    """

    def kill() -> None:
        old = behind_sentinels.primary()
        old.kill()
        eventually(lambda: behind_sentinels.have_moved_from(old), 20, "the failover")

    live_through(new_service(environ={"ADSERVER_REDIS_URL": behind_sentinels.url}), kill)


def test_primary_of_a_cluster_is_killed_under_load(on_cluster: Cluster, new_service: Made) -> None:
    """
    The same when a third of the cluster dies: its replica takes its place.
    """
    first, replica = on_cluster.servers[0], on_cluster.servers[3]

    def kill() -> None:
        first.kill()
        eventually(lambda: replica.is_primary() and on_cluster.is_whole(), 20, "the failover")

    live_through(new_service(environ={"ADSERVER_REDIS_URL": on_cluster.url}), kill)


def ask_for_level_3(config: Path) -> None:
    for path in config.glob("*.toml"):
        path.write_text(path.read_text().replace("[[advertiser]]", "[[advertiser]]\ncount_level = 3"))


def test_level_3_is_reached_with_a_replica_and_said_when_not(servers: list[Process], new_service: Made) -> None:
    """
    A beacon's answer says 3 when a replica has it; without the replica it says 2, within its time, and counts once.
    """
    primary, replica = servers
    service = new_service(
        environ={"ADSERVER_REDIS_URL": f"redis://127.0.0.1:{primary.port}/0"}, configure=ask_for_level_3
    )
    service.start()
    before = eventually(service.settled, 10, "counts")
    with client(service.url) as http:
        token = service.token()
        assert http.get(f"/i/{token}").headers["x-count-level"] == "3"
        assert http.post(f"/v/{token}").headers["x-count-level"] == "3"
        clicked = http.get(f"/c/{token}")
        assert (clicked.status_code, clicked.headers["x-count-level"] in "23") == (302, True)
        assert "x-count-level" not in http.get(f"/i/{token}").headers  # a repeat: acknowledged before
        replica.kill()
        eventually(lambda: status_says(service, "count_level 3"), 10, "words in /readyz")
        began = time.monotonic()
        answer = http.get(f"/i/{service.token()}")
        assert time.monotonic() - began < 3
        assert (answer.status_code, answer.headers["x-count-level"]) == (200, "2")
        degraded = eventually(
            lambda: service.metric('adserver_ack_degraded_total{type="impression"}'), 5, "the degraded acknowledgement"
        )
        assert degraded == 1

    after = eventually(service.settled, 10, "counts")
    assert after["impressions"] - before["impressions"] == 2
    assert after["viewables"] - before["viewables"] == 1
    assert after["clicks"] - before["clicks"] == 1
    assert service.stop() == 0


def status_says(service: Service, words: str) -> bool:
    found = service.http.get("/readyz").json()
    return found["status"] == "degraded" and any(words in reason for reason in found["reasons"])


def test_level_3_on_the_embedded_store_is_told_as_out_of_reach(new_service: Made) -> None:
    """
    It has no replica: /readyz is degraded in words, and a beacon is answered at once at level 2.
    """
    service = new_service(workers=1, configure=ask_for_level_3)
    service.start("degraded")

    assert status_says(service, "count_level 3 get level 2")
    began = time.monotonic()
    assert service.http.get(f"/i/{service.token()}").headers["x-count-level"] == "2"
    assert time.monotonic() - began < 1.5
    eventually(service.settled, 10, "counts")
    assert service.stop() == 0
