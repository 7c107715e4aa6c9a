"""A disk that fills up under load, for real: what is refused in words, and nothing acknowledged that could be lost."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edges.servers import BINARIES, Server, running_server
from tests.service.live import Service, eventually, tokens, totals

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mount"), reason="mounting a small disk needs root"
)
PAGE = "".join('[the_ad id="889990"]' for _ in range(100))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB, to be the data directory."""
    path = tmp_path / "s" / "data"
    path.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", path], check=True)


@pytest.fixture
def careful() -> Iterator[Server]:
    kind = "redis" if BINARIES["redis"] else "valkey"
    with running_server(kind, "--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


def fill(disk: Path) -> Path:
    """Leave no free block."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            return ballast


def test_the_ladder_of_a_full_disk(tmp_path: Path, disk: Path, careful: Server) -> None:
    """
    Step by step: the prepared segments are used up; then snippets go on uncounted and beacons go straight to a store
    that syncs every write; without it they are sent back; with room again, all is as before and the counts add up.
    """
    service = Service(tmp_path / "s", workers=1, environ={"ADSERVER_REDIS_URL": careful.url})
    try:
        service.start("ok", "degraded")
        early = service.token()
        ballast = fill(disk)

        def exhausted() -> bool:
            for _ in range(100):
                answer = service.http.post("/render", content=PAGE, headers={"content-type": "text/plain"})
                assert answer.status_code == 200
                assert answer.headers["adserver-filled"] != "0"
            return service.metric("adserver_served_uncounted_total") > 0

        eventually(exhausted, 120, "a journal without room")
        assert service.http.get("/readyz").json()["status"] == "failing"

        # Step 2: the store takes beacons; the same one counts once, however it is sent.
        late = tokens(service.http.get("/ads/889991").text)[0]
        ahead = service.http.get(f"/i/{late}", headers={"sec-purpose": "prefetch;prerender"})
        assert ahead.status_code == 503  # it has no bit in the store by which a second is told
        for token in (early, late, early, late):
            answer = service.http.get(f"/i/{token}")
            assert answer.status_code == 200
        assert answer.headers["adserver-ignored"] == "duplicate"
        assert service.metric("adserver_events_direct_total") == 2
        assert service.http.get(f"/c/{late}").status_code == 302

        # Step 3: the store is away as well. Snippets still come, beacons are sent back, a click is not held up.
        third = service.token()
        careful.kill()
        refused = eventually(lambda: _refused(service, third), 20, "a beacon sent back")
        assert refused == "2"
        assert service.http.get("/ads/889990").status_code == 200
        assert service.http.get(f"/c/{third}").status_code == 302
        careful.start()

        # Room again: the journal goes on, and what was sent back counts once when it comes again.
        ballast.unlink()
        eventually(lambda: service.http.get("/readyz").json()["status"] == "degraded", 20, "readiness")
        assert "MiB free" in service.http.get("/readyz").text  # so small a disk is always nearly full
        assert service.http.get(f"/i/{third}").status_code == 200
        assert service.http.get(f"/i/{early}").headers["adserver-ignored"] == "duplicate"
        counts = eventually(service.settled, 60, "counting")
        assert counts["impressions"] == 3
        assert counts["clicks"] == 1
    finally:
        service.kill()


def _refused(service: Service, token: str) -> str | None:
    answer = service.http.get(f"/i/{token}")
    return answer.headers["retry-after"] if answer.status_code == 503 else None


def test_a_forgetful_store(tmp_path: Path, disk: Path) -> None:
    """
    With the embedded store, which syncs once a second, beacons are sent back while the disk is full: 503, not a loss.
    """
    service = Service(tmp_path / "s", workers=1)
    try:
        service.start("ok", "degraded")
        token = service.token()
        ballast = fill(disk)

        def exhausted() -> bool:
            for _ in range(100):
                service.http.post("/render", content=PAGE, headers={"content-type": "text/plain"})
            return service.metric("adserver_served_uncounted_total") > 0

        eventually(exhausted, 120, "a journal without room")
        assert service.http.get(f"/i/{token}").status_code == 503
        assert service.http.get("/ads/889990").status_code == 200
        ballast.unlink()
        eventually(lambda: service.http.get(f"/i/{token}").status_code == 200, 60, "an impression")
        rows = eventually(lambda: _settled_rows(service), 60, "counting")
        assert totals(rows)["impressions"] == 1
    finally:
        service.kill()


def _settled_rows(service: Service) -> list[dict[str, object]] | None:
    answer = service.http.get("/api/report")
    if answer.status_code != 200 or answer.json()["waiting"]:
        return None
    rows: list[dict[str, object]] = answer.json()["rows"]
    return rows


def test_a_disk_that_can_only_be_read(tmp_path: Path) -> None:
    """
    The journals' disk is read-only when the service starts: ads come, beacons are sent back, and nothing is said to be
    counted. Once it can be written a worker with a journal takes over, and counts.
    """
    with running_server("valkey") as store:
        service = Service(tmp_path / "s", workers=1, environ={"ADSERVER_REDIS_URL": store.url})
        journals = tmp_path / "s" / "data" / "journal"
        journals.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", journals], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,ro", journals], check=True)
            service.start("failing")
            assert "takes no records" in " ".join(service.http.get("/readyz").json()["reasons"])
            token = service.token()
            assert service.http.get(f"/i/{token}").status_code == 503
            assert service.metric("adserver_served_uncounted_total") >= 1
            [before] = service.workers()
            subprocess.run(["mount", "-o", "remount,rw", journals], check=True)
            eventually(lambda: service.workers() not in ([], [before]), 30, "a worker with a journal")
            eventually(lambda: service.http.get("/readyz").json()["status"] != "failing", 30, "a journal")
            assert service.http.get(f"/i/{token}").status_code == 200
            counts = eventually(service.settled, 30, "counting")
            assert counts["impressions"] == 1
        finally:
            service.kill()
            subprocess.run(["umount", journals], check=True)
