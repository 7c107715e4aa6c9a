"""Several workers, and what becomes of the counts when some or all of them are killed."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.service.live import Service, eventually, read_series
from tests.service.load import more, readers_of

READERS = 6


@pytest.fixture(autouse=True)
def restored(service: Service) -> Iterator[None]:
    """The next test finds as many workers as there should be."""
    yield
    if service.process.poll() is None:
        eventually(lambda: len(service.workers()) == 2, 5, "two workers")


def test_answers_are_the_same_whichever_worker_gives_them(service: Service) -> None:
    """
    /metrics, /readyz and the counts are the service's, not one worker's.
    """
    with service.each_worker() as workers:
        assert len(workers) == 2
        for http in workers.values():
            for _ in range(3):
                token = http.get("/ads/889990").text.partition("/i/")[2][:48]
                http.get(f"/i/{token}")
        seen = {
            path: {http.get(path).text for http in workers.values()} for path in ("/readyz", "/api/report", "/metrics")
        }

    assert len(seen["/readyz"]) == 1
    assert len(seen["/api/report"]) == 1
    assert service.counts()["impressions"] == 6
    assert service.counts()["served"] == 6
    for series in ('adserver_events_total{type="impression"}', 'adserver_served_total{slot="889990"}'):
        eventually(lambda series=series: service.metric(series) == 6, 10, series)  # type: ignore[misc]


def test_metrics_do_not_depend_on_the_worker_asked(service: Service) -> None:
    """
    Scraped from each worker in turn, every counter has one value.
    """
    with service.each_worker() as workers:

        def scrapes_agree() -> bool:
            scrapes = [read_series(http.get("/metrics").text) for http in workers.values()]
            for series in scrapes:
                del series['adserver_http_responses_total{route="other",status="200"}']  # counts the scrape itself
            return scrapes[0] == scrapes[1]

        eventually(scrapes_agree, 5, "equal scrapes")  # a background figure may move between two of them


def test_killed_worker_costs_only_the_requests_in_flight_on_it(service: Service) -> None:
    """
    kill -9 of a worker under load: the others answer, another starts within moments, and the counts are right.
    """
    before = eventually(service.settled)
    metrics_before = service.metric('adserver_events_total{type="impression"}')
    kills = []
    with readers_of(service, READERS) as load:
        for _ in range(2):
            eventually(more(load, 100), 10, "page views")
            victim, *others = service.workers()
            at = time.monotonic()
            victim.kill()
            kills.append(time.monotonic())
            eventually(
                lambda old=others: len(service.workers()) == 2 and len(set(service.workers()) - set(old)) == 1,  # type: ignore[misc]
                1.5,
                "a new worker process",
            )
            assert all(at - 0.5 < lost < at + 1 for lost, _ in load.unanswered[-READERS:] if lost > at)
            with service.each_worker():
                pass
            eventually(more(load, 100), 10, "more page views")

    assert load.unexpected() == {}
    assert load.refused == []
    assert not load.ignored
    assert len(load.unanswered) <= 2 * READERS
    after = eventually(service.settled, 10, "counting")
    eventually(lambda: load.agrees(service.counts(), before), 10, f"{load} in the counts")
    assert service.counts() == after
    shown = service.metric('adserver_events_total{type="impression"}') - metrics_before
    # Metrics are not the count: a worker hands over 50 times a second where it gets its turn, and what it has not yet
    # handed over dies with it.
    moments = [at for at, kind in load.acknowledged_at if kind == "impressions"]
    at_stake = sum(any(kill - 0.25 < at <= kill for kill in kills) for at in moments)
    assert shown >= load.acknowledged["impressions"] - at_stake - 2 * READERS
    assert service.http.get("/readyz").json()["status"] == "ok"


def test_hung_worker_does_not_stop_the_others(service: Service) -> None:
    """
    While one worker hangs, the others answer who connects to them; it goes on where it was.
    """
    victim = service.workers()[0]
    victim.suspend()
    try:
        answered = 0
        with readers_of(service, 8) as load:
            eventually(lambda: load.views > 50, 10, "page views beside a hung worker")
            answered = load.views
            victim.resume()
            eventually(more(load, 50), 10, "page views afterwards")
    finally:
        victim.resume()

    assert answered
    assert load.unexpected() == {}
    assert load.unanswered == []


def test_counts_survive_a_kill_of_everything(service: Service) -> None:
    """
    kill -9 of supervisor, workers and store at once: after a start what was acknowledged is counted, once.
    """
    before = eventually(service.settled)
    token, unused = service.token(), service.token()
    service.http.get(f"/i/{token}")
    with readers_of(service, READERS) as load:
        eventually(more(load, 200), 10, "page views")
        service.kill()

    assert load.unexpected() == {}
    service.start()
    eventually(lambda: service.settled() is not None, 10, "adoption")
    now = service.counts()
    now["impressions"] -= 1  # our own token
    now["served"] -= 2
    assert load.agrees(now, before)
    service.http.get(f"/i/{token}")
    assert service.counts()["impressions"] == now["impressions"] + 1
    service.http.get(f"/i/{unused}")
    assert service.counts()["impressions"] == now["impressions"] + 2


def test_workers_end_when_their_supervisor_is_killed(service: Service) -> None:
    """
    No worker lives on unsupervised, and the next start takes over the store that was left.
    """
    before = service.counts()
    workers = service.workers()
    service.process.send_signal(signal.SIGKILL)
    service.process.wait(5)

    gone, alive = psutil.wait_procs(workers, 5)

    assert len(gone) == 2
    assert alive == []
    service.start()
    assert service.counts() == before


def test_stop_under_load_drains(service: Service) -> None:
    """
    SIGTERM: every request that was taken is answered, no reader gets an error, and everything is counted.
    """
    before = eventually(service.settled)
    with readers_of(service, READERS) as load:
        eventually(more(load, 150), 10, "page views")
        began = time.monotonic()
        assert service.stop() == 0
        took = time.monotonic() - began

    assert load.unexpected() == {}
    assert took < 20
    assert "events left to count" in service.log()
    assert " 0 events left to count" in service.log().splitlines()[-1]
    service.start()
    assert load.agrees(eventually(service.settled, 10, "counts"), before)
    assert service.counts()["impressions"] == before["impressions"] + load.acknowledged["impressions"]


def test_interrupt_stops_as_well(new_service: Callable[..., Service]) -> None:
    """
    Ctrl-C, which reaches every process of the service, stops it without a worker being started anew.
    """
    service = new_service()
    service.start()
    family = [service.process.pid, *(one.pid for one in service.workers())]
    for pid in family:
        psutil.Process(pid).send_signal(signal.SIGINT)

    assert service.process.wait(20) == 0
    service.http.close()
    assert "another takes its place" not in service.log()


def test_second_service_on_the_same_data_directory_is_refused(service: Service) -> None:
    """
    Two services never write one directory: the second says so and ends with 3.
    """
    assert "in use by another adserver" in service.run("serve", "--port", "0", code=3).stderr


def test_port_that_is_taken_is_said(service: Service) -> None:
    """
    A port in use is a sentence and exit code 3, not a traceback.
    """
    elsewhere = str(service.home / "elsewhere")
    done = service.run("serve", "--port", str(service.port), "--data-dir", elsewhere, code=3)

    assert "--port" in done.stderr


def test_it_runs_in_a_deep_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    A data directory, and a temporary one, too deep for a socket's path: served, counted, and nothing left below /tmp.
    """
    home = tmp_path_factory.mktemp("s") / ("d" * 60)
    service = Service(home, workers=1)
    assert service.settings.store_socket.parent.parent == Path("/tmp")
    service.start()
    try:
        service.http.get(f"/i/{service.token()}")
        assert eventually(service.settled, 10, "counts")["impressions"] == 1
    finally:
        code = service.stop()
    assert code == 0
    assert not service.settings.store_socket.parent.exists()
