"""What ops see: metrics from the start, a listener of their own, logs that can be read and collected."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest

from tests.service.live import SLOTS, Service, client, eventually, free_port, read_series, tokens

EVENTS = ("impression", "measured", "viewable", "click")
OPS = ["/metrics", "/readyz", "/openapi.json", "/api/report"]


@pytest.fixture(scope="module")
def apart(new_service: Callable[..., Service]) -> Service:
    """A service with an ops port, JSON logs, an access log and a trusted proxy on this machine."""
    service = new_service(
        "--ops-port", str(free_port()), "--log-format", "json", "--access-log",
        port=free_port(),
        environ={"ADSERVER_TRUSTED_PROXIES": "127.0.0.1", "ADSERVER_PUBLIC_URL": "https://ads.example.com"},
    )  # fmt: skip
    service.start()
    return service


def ops_url(apart: Service) -> str:
    return f"http://127.0.0.1:{apart.flags[apart.flags.index('--ops-port') + 1]}"


def test_every_series_is_there_from_the_start(service: Service) -> None:
    """
    Before any reader comes, every counter exists and is 0, so that a rate over it is right from the first event.
    """
    series = service.series()

    expected = {f'adserver_{name}_total{{slot="{slot}"}}' for name in ("requests", "served") for slot in SLOTS}
    expected |= {f'adserver_events_total{{type="{name}"}}' for name in EVENTS}
    expected |= {
        f'adserver_events_rejected_total{{reason="{reason}"}}'
        for reason in ("malformed", "forged", "expired", "future", "not-allowed", "duplicate")
    }
    expected |= {
        f'adserver_events_invalid_total{{reason="{why}",type="{type_}"}}'
        for why in ("bot", "no-user-agent", "prefetch", "method", "navigation", "rate", "staff", "address-list")
        for type_ in EVENTS
    }
    expected |= {f'adserver_events_suspect_total{{type="{type_}"}}' for type_ in EVENTS}
    expected |= {
        f'adserver_config_reload_failures_total{{cause="{why}"}}'
        for why in ("problems", "conflict", "store", "addresses")
    }
    expected |= {
        f'adserver_http_refused_total{{reason="{why}"}}' for why in ("malformed", "timeout", "host", "framing")
    }
    expected |= {'adserver_unfilled_total{reason="unknown-slot"}', "adserver_events_waiting", "adserver_store_up"}
    expected |= {
        "adserver_journal_synced_total",
        "adserver_journals_set_aside",
        "adserver_partitions_set_aside",
        "adserver_journal_disk_free_bytes",
    }
    assert expected <= set(series)
    counters = {name: n for name, n in series.items() if re.match(r"adserver_\w+_total\b", name)}
    traffic = ("adserver_http_responses_total", "adserver_journals_adopted_total", "adserver_ship_errors_total")
    assert {name: n for name, n in counters.items() if n and not name.startswith(traffic)} == {}
    eventually(lambda: service.metric("adserver_store_up") == 1, 5, "the store")
    assert series["adserver_catalog_version"] == 1


def test_every_record_is_written_then_synced_then_shipped(service: Service) -> None:
    """
    The three counters end at one figure, and whoever reads them in between sees none ahead of the one before it.
    """
    names = [f"adserver_{name}_total" for name in ("journal_written", "journal_synced", "shipped")]
    for _ in range(20):
        service.http.get("/ads/889990")
        series = service.series()
        written, synced, shipped = (series[name] for name in names)
        assert written >= synced >= shipped

    eventually(lambda: len({service.metric(name) for name in names}) == 1, 10, "all three to be equal")


def test_a_segment_set_aside_is_told_by_readiness(service: Service) -> None:
    """
    A damaged segment waits for a person: degraded, with words, until somebody has dealt with it.
    """
    directory = service.data / "journal" / "00112233445566aa"
    directory.mkdir(mode=0o700)
    (directory / f"{1:020}.corrupt").touch()

    def told() -> dict[str, object]:
        """What a worker says that has looked; each looks for itself."""
        answer: dict[str, object] = service.http.get("/readyz").json()
        return answer if "1 segment damaged" in str(answer["reasons"]) else {}

    assert eventually(told, 15, "words")["status"] == "degraded"
    assert service.metric("adserver_journals_set_aside") == 1

    (directory / f"{1:020}.corrupt").rename(directory / f"{1:020}.salvaged")
    eventually(lambda: service.http.get("/readyz").json()["status"] == "ok", 15, "readiness")


def test_traffic_adds_no_series(service: Service) -> None:
    """
    All events of all kinds, good and bad, move series that were there before.
    """
    before = set(service.series())
    http = service.http
    for slot in SLOTS:
        for token in tokens(http.get(f"/ads/{slot}").text):
            http.get(f"/i/{token}")
            http.post(f"/v/{token}", headers={"user-agent": "Googlebot"})
            http.get(f"/c/{token}", headers={"purpose": "prefetch"})
    http.get("/ads/1")
    http.get("/i/x")
    http.request("BREW", "/ads/889990")
    http.post("/render", content="[the_ad id=“889990”]", headers={"content-type": "text/html"})
    service.raw(b"nonsense\r\n\r\n")

    assert set(service.series()) == before


def test_every_metric_has_help_and_our_prefix(service: Service) -> None:
    """
    A metric is named by the field's words and says what it is.
    """
    text = service.http.get("/metrics").text
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))

    assert names
    assert all(name.startswith("adserver_") for name in names)
    assert all(helps[name].endswith(".") and "Multiprocess" not in helps[name] for name in names)


@pytest.mark.system
def test_promtool_finds_nothing_to_say(service: Service) -> None:
    """
    `promtool check metrics` is clean.
    """
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed")
    text = service.http.get("/metrics").text

    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_answers_are_counted_by_route_and_status(service: Service) -> None:
    """
    Each answer moves the series of its route and status, those of the plain pages too.
    """
    wanted = {
        "/ads/889990": 'adserver_http_responses_total{route="ad",status="200"}',
        "/ads/1": 'adserver_http_responses_total{route="ad",status="404"}',
        "/i/x": 'adserver_http_responses_total{route="impression",status="200"}',
        "/c/x": 'adserver_http_responses_total{route="click",status="302"}',
        "/healthz": 'adserver_http_responses_total{route="other",status="200"}',
        "/nothing": 'adserver_http_responses_total{route="other",status="404"}',
    }
    for path, series in wanted.items():
        before = service.metric(series)
        service.http.get(path)
        eventually(lambda series=series, before=before: service.metric(series) > before, 10, path)  # type: ignore[misc]


def test_signing_key_is_made_at_the_first_start(service: Service) -> None:
    """
    The key is readable by its owner alone, and so is the data directory.
    """
    assert (service.data / "keys").stat().st_mode & 0o777 == 0o600
    assert service.data.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("path", OPS)
@pytest.mark.parametrize("spelling", ["{}", "/%{:x}"])
def test_ops_routes_move_to_their_own_port(apart: Service, path: str, spelling: str) -> None:
    """
    With --ops-port the public listener does not know ops' routes, however they are spelled.
    """
    spelled = path if spelling == "{}" else f"/%{ord(path[1]):x}{path[2:]}"

    assert apart.http.get(spelled).status_code == 404
    with client(ops_url(apart)) as http:
        assert http.get(spelled).status_code == 200


def test_probes_and_delivery_stay_where_they_were(apart: Service) -> None:
    """
    /healthz answers on both listeners; ads, pages and files on the public one.
    """
    with client(ops_url(apart)) as ops:
        assert [http.get("/healthz").status_code for http in (apart.http, ops)] == [200, 200]
        assert [http.get("/").status_code for http in (apart.http, ops)] == [200, 404]
    assert apart.http.get("/ads/889990").status_code == 200


def test_addresses_come_from_the_settings_alone(apart: Service) -> None:
    """
    What a request says of hosts and schemes is in no URL of an answer.
    """
    evil = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "javascript"}

    html = apart.http.get("/ads/889990", headers=evil).text

    assert "https://ads.example.com/i/" in html
    assert "evil" not in html
    with client(ops_url(apart)) as http:
        assert http.get("/openapi.json", headers=evil).json()["servers"] == [{"url": "https://ads.example.com"}]


def log_lines(service: Service) -> list[dict[str, object]]:
    return [json.loads(line) for line in service.log().splitlines()]


def test_access_log_has_request_ids_and_truncated_addresses(apart: Service) -> None:
    """
    A line for each request, as JSON: its id, its status, the reader's network and no address, no query.
    """
    apart.http.get("/ads/889990?reader=SECRET", headers={"x-forwarded-for": "198.51.100.77", "x-request-id": "abc-1"})
    apart.http.get("/nothing", headers={"x-forwarded-for": "2001:db8:1:2:3:4:5:6"})

    def lines() -> list[dict[str, object]]:
        return [line for line in log_lines(apart) if str(line.get("event")).startswith("GET /")]

    eventually(lambda: any(line["event"] == "GET /nothing" for line in lines()), 5, "the access log")
    ours = next(line for line in lines() if line.get("request_id") == "abc-1")
    assert (ours["event"], ours["status"], ours["client"], ours["level"]) == (
        "GET /ads/889990", 200, "198.51.100.0", "info",
    )  # fmt: skip
    other = next(line for line in lines() if line["event"] == "GET /nothing")
    assert other["client"] == "2001:db8:1::"
    assert other["status"] == 404
    assert re.fullmatch("[0-9a-f]{16}", str(other["request_id"]))
    assert "198.51.100.77" not in apart.log()
    assert "SECRET" not in apart.log()


def test_every_log_line_is_json(apart: Service) -> None:
    """
    With --log-format json each line is an object with an event, a level and a time.
    """
    for line in log_lines(apart):
        assert {"event", "level", "timestamp"} <= set(line)


def test_log_lines_cannot_be_forged(apart: Service) -> None:
    """
    Control characters of a path and a strange request id do not make lines of their own.
    """
    apart.http.get("/x%E2%80%A8y", headers={"x-request-id": 'a" b'})
    apart.raw(b"GET /forged%0a{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    apart.http.get("/" + "long" * 400)

    eventually(lambda: "longlong" in apart.log(), 5, "the access log")
    lines = log_lines(apart)
    assert not any(line["event"] in ("y", "{}") for line in lines)
    assert not any(line.get("request_id") == 'a" b' for line in lines)
    assert max(len(str(line["event"])) for line in lines) <= 257


def test_ops_metrics_are_the_services(apart: Service) -> None:
    """
    The ops listener shows what the public one counted.
    """
    with client(ops_url(apart)) as http:
        before = read_series(http.get("/metrics").text)['adserver_served_total{slot="889991"}']
        apart.http.get("/ads/889991")
        assert read_series(http.get("/metrics").text)['adserver_served_total{slot="889991"}'] == before + 1
