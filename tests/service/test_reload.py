"""Publishing: three ways to make a configuration live on all workers within two seconds, and none to break them."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service.live import Service, eventually

CONTRACT_S = 2.0


@pytest.fixture(scope="module")
def service(new_service: Callable[..., Service]) -> Service:
    service = new_service("--watch")
    service.start()
    return service


@pytest.fixture(scope="module")
def quiet(new_service: Callable[..., Service]) -> Service:
    """A service that does not watch its configuration."""
    service = new_service()
    service.start()
    return service


def label_first_box(config: Path, label: str) -> None:
    """Change what the first box at the end of an article is labelled with."""
    path = config / "slots.toml"
    head, mark, tail = path.read_text().partition('name = "End of article, first box"\n')
    assert mark
    if tail.startswith("label"):
        tail = tail.partition("\n")[2]
    path.write_text(f'{head}{mark}label = "{label}"\n{tail}')


def wait_for_label(service: Service, label: str) -> None:
    """Every worker shows *label*, and did so within the contract's two seconds from now."""
    began = time.monotonic()
    with service.each_worker() as workers:
        for http in workers.values():
            eventually(lambda http=http: f">{label}<" in http.get("/ads/889990").text, CONTRACT_S, label)  # type: ignore[misc]
    assert time.monotonic() - began < CONTRACT_S + 1


def live(service: Service) -> int:
    return int(service.http.get("/readyz").json()["catalog_version"])


def failures(service: Service, cause: str) -> float:
    return service.metric(f'adserver_config_reload_failures_total{{cause="{cause}"}}')


def test_saving_publishes_with_watch(service: Service) -> None:
    """
    With --watch a saved file is live on all workers within two seconds.
    """
    version = live(service)
    label_first_box(service.config, "Saved")

    wait_for_label(service, "Saved")

    assert live(service) == version + 1
    assert "changes slot '889990'" in service.log() or "changes slot 889990" in service.log()


def test_saving_a_bad_file_changes_nothing(service: Service) -> None:
    """
    A bad save leaves the live version; log and metric say so; the mended file goes live.
    """
    version, before = live(service), failures(service, "problems")
    path = service.config / "slots.toml"
    good = path.read_text()
    path.write_text(good.replace('size = "160x600"', 'size = "160 by 600"'))

    eventually(lambda: failures(service, "problems") > before, 5, "the metric")

    assert live(service) == version
    assert "the live version stays" in service.log()
    assert "slot 889984" in service.log() or "slot '889984'" in service.log()
    path.write_text(good)
    label_first_box(service.config, "Mended")
    wait_for_label(service, "Mended")


def test_half_written_file_changes_nothing(service: Service) -> None:
    """
    A file cut in the middle is refused as a whole.
    """
    version, before = live(service), failures(service, "problems")
    path = service.config / "house.toml"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2 + 1])

    eventually(lambda: failures(service, "problems") > before, 5, "the metric")

    assert live(service) == version
    assert service.http.get("/ads/889990").status_code == 200
    path.write_bytes(good)


def test_hangup_signal_publishes(quiet: Service) -> None:
    """
    SIGHUP makes the config directory live on all workers within two seconds; nobody is restarted.
    """
    workers = quiet.workers()
    version = live(quiet)
    label_first_box(quiet.config, "Signalled")
    quiet.process.send_signal(signal.SIGHUP)

    wait_for_label(quiet, "Signalled")

    assert live(quiet) == version + 1
    assert quiet.workers() == workers
    eventually(lambda: quiet.metric("adserver_catalog_version") == version + 1, 5, "the metric")
    assert quiet.metric("adserver_store_up") == 1


def test_hangup_signal_with_a_bad_configuration_changes_nothing(quiet: Service, tmp_path: Path) -> None:
    """
    SIGHUP on a bad directory: every problem is logged, the metric counts it, and the last good version serves.
    """
    version, before = live(quiet), failures(quiet, "problems")
    kept = tmp_path / "kept"
    shutil.copytree(quiet.config, kept)
    path = quiet.config / "slots.toml"
    path.write_text(path.read_text().replace("weight = 1.5", "weight = -1").replace('"728x90"', '"728xx90"'))
    quiet.process.send_signal(signal.SIGHUP)

    eventually(lambda: failures(quiet, "problems") > before, 5, "the metric")

    assert live(quiet) == version
    log = quiet.log()
    assert "side-rail" in log
    assert "728xx90" in log
    shutil.copytree(kept, quiet.config, dirs_exist_ok=True)


def test_apply_publishes_and_shows_the_difference(quiet: Service) -> None:
    """
    `adserver apply` says what it changes, in words, and all workers follow within two seconds.
    """
    version = live(quiet)
    label_first_box(quiet.config, "Applied")

    shown = quiet.run("apply", str(quiet.config), "--note", "a test").stdout

    assert 'label from "Signalled" to "Applied"' in shown
    assert f"Version {version + 1} is live." in shown
    wait_for_label(quiet, "Applied")
    again = quiet.run("apply", str(quiet.config)).stdout
    assert again == f"Nothing to change: version {version + 1} is live.\n"


def test_apply_of_bad_files_lists_every_problem_and_exits_1(quiet: Service, tmp_path: Path) -> None:
    """
    `adserver apply` and `adserver check` name all problems at once, and nothing is published.
    """
    version = live(quiet)
    bad = tmp_path / "bad"
    shutil.copytree(quiet.config, bad)
    (bad / "tests.toml").write_text(
        """
        colour = 1
        [[slot]]
        id = 889990
        name = "Twice"
        size = "300x250"
        [[line_item]]
        id = "backwards"
        name = "Backwards"
        campaign = "hous"
        priority = "standard"
        slots = [889990, 123]
        creatives = ["house-tide-table"]
        starts = 2026-02-01T00:00:00Z
        ends = 2026-01-01T00:00:00Z
        [[line_item]]
        id = "weightless"
        name = "Weightless"
        campaign = "house"
        priority = "house"
        slots = [889990]
        creatives = ["house-tide-table"]
        weight = -1
        """
    )

    applied, checked = quiet.run("apply", str(bad), code=1), quiet.run("check", str(bad), code=1)

    for said in (applied.stdout + applied.stderr, checked.stdout + checked.stderr):
        for words in ("colour", "slot 889990", "did you mean 'house'", "123", "ends before it starts", "weight"):
            assert words in said, (words, said)
        assert "tests.toml" in said
    assert live(quiet) == version
    assert "good." in quiet.run("check", str(quiet.config)).stdout


def test_export_is_what_apply_takes_back(quiet: Service, tmp_path: Path) -> None:
    """
    What `adserver export` writes, unchanged, is no change; changed, it is published on top.
    """
    exported = tmp_path / "exported"
    version = live(quiet)

    listed = quiet.run("export", str(exported)).stdout.split()

    assert {Path(name) for name in listed} == {path for path in exported.rglob("*") if path.is_file()}
    assert quiet.run("check", str(exported)).returncode == 0
    assert "Nothing to change" in quiet.run("apply", str(exported)).stdout
    assert live(quiet) == version
    assert "*.toml" in quiet.run("export", str(exported), code=1).stderr
    quiet.run("export", str(exported), "--force")


def test_apply_after_somebody_else_published_is_a_conflict(quiet: Service, tmp_path: Path) -> None:
    """
    Files written from an older version are refused with 1; --force overwrites and says what.
    """
    exported = tmp_path / "exported"
    quiet.run("export", str(exported))
    label_first_box(quiet.config, "Meanwhile")
    quiet.run("apply", str(quiet.config))
    version = live_after(quiet, "Meanwhile")
    site = exported / "site.toml"
    site = (
        site
        if site.exists()
        else next(path for path in exported.glob("*.toml") if "The Zoutmond Courier" in path.read_text())
    )
    site.write_text(site.read_text().replace("The Zoutmond Courier", "The Zoutmond Herald"))

    refused = quiet.run("apply", str(exported), code=1)

    assert f"version {version} is live" in refused.stderr
    assert "--force" in refused.stderr
    assert live(quiet) == version
    forced = quiet.run("apply", str(exported), "--force").stdout
    assert f"Overwrote version {version}." in forced
    assert f"Version {version + 1} is live." in forced
    wait_for_label(quiet, "Applied")


def live_after(service: Service, label: str) -> int:
    wait_for_label(service, label)
    return live(service)


def test_clicks_of_the_previous_version_still_arrive(quiet: Service) -> None:
    """
    A page loaded before a publish keeps working: its pixel counts and its click arrives.
    """
    html = quiet.http.get("/ads/889990").text
    token = html.partition("/i/")[2][:48]
    label_first_box(quiet.config, "Newer")
    quiet.run("apply", str(quiet.config), "--force")
    wait_for_label(quiet, "Newer")

    pixel, click = quiet.http.get(f"/i/{token}"), quiet.http.get(f"/c/{token}")

    assert "adserver-ignored" not in pixel.headers
    assert click.status_code == 302
    assert "adserver-ignored" not in click.headers


def test_commands_without_a_store_say_so_with_3(quiet: Service, tmp_path: Path) -> None:
    """
    apply and export need the store; without it they end with 3.
    """
    nowhere = str(tmp_path / "nowhere")

    assert "store" in quiet.run("apply", str(quiet.config), "--data-dir", nowhere, code=3).stderr
    assert "store" in quiet.run("export", str(tmp_path / "e"), "--data-dir", nowhere, code=3).stderr


def test_service_does_not_start_on_a_bad_configuration_alone(new_service: Callable[..., Service]) -> None:
    """
    With nothing but bad files to begin with, the service lists every problem and ends with 1.
    """

    def spoil(config: Path) -> None:
        (config / "site.toml").write_text('[site]\nname = 1\ntime_zone = "Europe/Amsterdamm"\ncolour = 2\n')

    done = new_service(configure=spoil).run("serve", "--port", "0", "--workers", "2", code=1)

    for words in ("name", "Europe/Amsterdam", "colour"):
        assert words in done.stderr


def test_restart_with_a_bad_configuration_serves_the_live_version(new_service: Callable[..., Service]) -> None:
    """
    Bad files do not matter to a service that has a live version: it starts with that.
    """
    service = new_service(workers=1)
    service.start()
    service.stop()
    (service.config / "site.toml").write_text("[[")

    service.start()

    assert service.http.get("/ads/889990").status_code == 200
    service.stop()
