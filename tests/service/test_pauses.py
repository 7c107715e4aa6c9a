"""A pause on a running service: in force once published, known to explain and previews, over by itself."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.service.live import Service, eventually

SLOT = 889991
PAUSE = '[[pause]]\nid = "no-{0}"\nadvertiser = "{0}"\nstarts = {1}\nends = {2}\nreason = "air crash"\n'


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    service = new_service(workers=2)
    service.start()
    return service


def entry(http: httpx.Client, query: str = "", **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = http.get(f"/ads?id={SLOT}{query}", **more).json()["ads"][str(SLOT)]
    return found


def test_a_pause_begins_on_all_workers_and_ends_by_itself(service: Service) -> None:
    """
    Once published, no worker fills a slot whose advertisers are all paused, and explain says why; a preview of the
    time after shows them, and then they are served again with nothing more published.
    """
    owners = [path.stem.removeprefix("advertiser-") for path in service.config.glob("advertiser-*.toml")]
    begins, ends = datetime.now(UTC), (datetime.now(UTC) + timedelta(seconds=12)).replace(microsecond=0)
    tables = [PAUSE.format(owner, begins.isoformat(), ends.isoformat()) for owner in [*owners, "courier"]]
    (service.config / "pauses.toml").write_text("\n".join(tables))
    staff = {"authorization": f"Bearer {(service.data / 'staff-token').read_text().strip()}"}

    with service.each_worker() as workers:
        assert all(entry(http)["filled"] for http in workers.values())
        assert "adds pause 'no-courier'" in service.run("apply", str(service.config)).stdout
        for http in workers.values():
            eventually(lambda http=http: entry(http)["reason"] == "paused", 3, "the pause")  # type: ignore[misc]
            assert entry(http)["max_age"] <= 12
            answer = http.get(f"/ads/{SLOT}")
            assert (answer.status_code, answer.headers["adserver-reason"]) == (204, "paused")
            told = http.get(f"/api/explain/{SLOT}").json()
            assert "every booking whose flight is on is paused" in told["sentence"]
            assert {one["step"] for one in told["candidates"]} <= {"paused", "live window"}
        [http, *_] = workers.values()
        for at, reason in ((ends - timedelta(seconds=1), "paused"), (ends + timedelta(hours=1), None)):
            assert entry(http, f"&at={at.isoformat().replace('+', '%2B')}", headers=staff)["reason"] == reason
        for http in workers.values():
            eventually(lambda http=http: entry(http)["filled"], 15, "the end of the pause")  # type: ignore[misc]
        assert time.time() >= ends.timestamp()
    assert service.series()['adserver_unfilled_total{reason="paused"}'] >= 4
