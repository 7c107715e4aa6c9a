"""`adserver import advanced-ads`, as it is typed, and the address that the plugin for WordPress calls."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from adserver.advanced_ads.kept import read_export
from adserver.advanced_ads.move import move
from tests.advanced_ads.test_files import FIRST
from tests.console.desks import Desk, desk, desk_service  # noqa: F401
from tests.console.test_api import Program


def run(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "adserver", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


def test_a_file_becomes_a_directory_that_check_finds_good(tmp_path: Path) -> None:
    """
    The files, the list of what has no equal and what to do next; a second time it says that files are there.
    """
    (tmp_path / "export.xml").write_text(FIRST)
    target = tmp_path / "new" / "config"
    done = run(
        "import", "advanced-ads", str(tmp_path / "export.xml"), "--to", str(target), "--time-zone", "Europe/Oslo"
    )
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[:3] == [f"{target}/site.toml", f"{target}/slots.toml", f"{target}/bookings.toml"]
    assert lines[3].startswith('not as before: placement top "Top": Advanced Ads put it in the head of each page')
    assert lines[4] == f"Look at them, then: adserver check {target} && adserver apply {target}"
    assert "a directory is the whole catalog" in lines[5]
    assert len(lines) == 6
    assert 'time_zone = "Europe/Oslo"' in (target / "site.toml").read_text()
    assert run("check", str(target)).returncode == 0

    again = run("import", "advanced-ads", "-", "--to", str(target), data=FIRST.encode())
    assert again.returncode == 1
    assert b"holds *.toml files already; name another directory or use --force" in again.stderr
    assert run("import", "advanced-ads", "-", "--to", str(target), "--force", data=FIRST.encode()).returncode == 0


def test_an_instant_is_of_the_zone_that_is_said_for_the_file(tmp_path: Path) -> None:
    """
    Where the file names no zone, --time-zone is that of its instants, too; where it names one, that one stays.
    """
    ad = {"id": 7, "title": "Soup", "status": "future", "date": "2027-07-02 03:04:05", "content": "Soup"}
    for zone, starts, said in (
        ("", "2027-07-02 03:04:05+02:00", ""),
        ("+05:00", "2027-07-02 00:04:05+02:00", ""),
        ("Europe/London", "2027-07-02 03:04:05+01:00", "keeps Europe/London, so Europe/Oslo is not written"),
    ):
        target = tmp_path / f"config{zone.replace('/', '-')}"
        export = {"advanced_ads_export": 1, "site": {"timezone": zone}, "ads": [ad]}
        done = run(
            "import", "advanced-ads", "-", "--to", str(target), "--time-zone", "Europe/Oslo",
            data=json.dumps(export).encode(),
        )  # fmt: skip
        assert f"starts = {starts}" in (target / "bookings.toml").read_text()
        assert said in done.stdout.decode()
        assert ("not as before: the time zone" in done.stdout.decode()) == bool(said)


def test_pictures_are_taken_from_the_uploads_and_from_nowhere_else(tmp_path: Path) -> None:
    """
    With --media a picture comes along; an address or a link that leads out of the directory is not followed.
    """
    out = io.BytesIO()
    Image.new("RGB", (300, 250), "red").save(out, "PNG")
    uploads = tmp_path / "uploads"
    (uploads / "2026").mkdir(parents=True)
    (uploads / "2026" / "caf\u00e9.png").write_bytes(out.getvalue())
    (tmp_path / "secret.png").write_bytes(out.getvalue())
    (uploads / "link.png").symlink_to(tmp_path / "secret.png")
    (uploads / "round.png").symlink_to(uploads / "round.png")
    names = [
        "2026/caf%C3%A9.png",
        "../secret.png",
        "link.png",
        "%2e%2e/secret.png",
        "2026",
        "none.png",
        "round.png",
        "%00",
    ]
    export = {
        "advanced_ads_export": 1,
        "site": {"timezone": "UTC"},
        "ads": [
            {"id": n, "title": "P", "status": "publish",
             "options": {"type": "image", "url": "https://x.example/", "width": 300, "height": 250, "image_id": n}}
            for n in range(1, len(names) + 1)
        ],
        "media": [
            {"id": n, "url": f"https://w.example/wp-content/uploads/{name}"} for n, name in enumerate(names, 1)
        ],
    }  # fmt: skip
    target = tmp_path / "config"
    done = run(
        "import", "advanced-ads", "-", "--to", str(target), "--media", str(uploads), data=json.dumps(export).encode()
    )
    assert done.returncode == 0, done.stderr
    assert f"{target}/assets\n" in done.stdout.decode()
    assert (target / "bookings.toml").read_text().count('kind = "image"') == 1
    assert run("check", str(target)).returncode == 0

    nowhere = run(
        "import", "advanced-ads", "-", "--to", str(tmp_path / "x"), "--media", str(tmp_path / "no"), data=b"{}"
    )
    assert nowhere.returncode == 1
    assert not (tmp_path / "x").exists()


def test_a_picture_at_no_address_does_not_keep_the_others_back(tmp_path: Path) -> None:
    """
    What somebody has mistyped in one ad is in the list, and the other ads are moved.
    """
    options = {"type": "image", "url": "https://x.example/", "width": 300, "height": 250}
    export = {
        "advanced_ads_export": 1,
        "site": {"timezone": "UTC"},
        "ads": [{"id": n, "title": "P", "status": "publish", "options": {**options, "image_id": n}} for n in (1, 2)],
        "media": [{"id": 1, "url": "https://[bad/uploads/1.png"}, {"id": 2, "url": "https://w.example/uploads/2.png"}],
    }
    target = tmp_path / "config"
    data = json.dumps(export).encode()
    done = run("import", "advanced-ads", "-", "--to", str(target), "--media", str(tmp_path), data=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (
        "not as before: ad 1 \"P\": is a picture at 'https://[bad/uploads/1.png', which is no address "
        "(Invalid IPv6 URL); upload it in the console"
    ) in done.stdout.decode().splitlines()
    assert (target / "slots.toml").read_text().count("[[slot]]") == 1
    assert run("check", str(target)).returncode == 0


def test_an_export_of_which_nothing_can_be_moved_is_told_so_and_leaves_no_file(tmp_path: Path) -> None:
    """
    A directory that `check` would refuse is not written; each ad's reason is said, and that nothing is left to do.
    """
    target = tmp_path / "config"
    ads = [
        {"id": 1, "title": "Soup", "status": "draft"},
        {"id": 2, "status": "publish", "options": {"type": "adsense"}},
    ]
    for found, words in (
        (ads, "-: none of what it holds could be moved, for the reasons above; nothing is written"),
        ([], "-: holds no ads; nothing is written"),
    ):
        data = json.dumps({"advanced_ads_export": 1, "ads": found}).encode()
        done = run("import", "advanced-ads", "-", "--to", str(target), data=data)
        told = done.stderr.decode().splitlines()
        assert (done.returncode, done.stdout, told[-1]) == (1, b"", words)
        assert [line.split(":")[:2] for line in told[:-1]] == [
            ["not moved", f" ad {one['id']}" + (' "Soup"' if one["id"] == 1 else "")] for one in found
        ]
        assert not target.exists()


def test_what_is_wrong_with_the_command_is_said(tmp_path: Path) -> None:
    """
    A zone that is none, uploads that are not there, a directory that cannot be made: each is said, and no file is left.
    """
    (tmp_path / "export.xml").write_text(FIRST)
    (tmp_path / "taken").write_text("")
    file = str(tmp_path / "export.xml")
    for more, words in (
        (
            ("--to", str(tmp_path / "x"), "--time-zone", "Oslo"),
            "--time-zone is 'Oslo'; expected the name of a time zone",
        ),
        (("--to", str(tmp_path / "x"), "--media", file), f"--media {file}: is no directory"),
        (("--to", str(tmp_path / "taken")), f"{tmp_path / 'taken'} cannot be written: File exists"),
        (("--to", str(tmp_path / "taken" / "x")), "cannot be written: Not a directory"),
    ):
        done = run("import", "advanced-ads", file, *more)
        assert done.returncode == 1
        assert words in done.stderr.decode()
        assert b"Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.xml", "taken"]


@pytest.mark.parametrize("file", ["missing.json", "bad.json"])
def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path, file: str) -> None:
    """
    The refusal names the file, and no directory is made.
    """
    (tmp_path / "bad.json").write_text("<rss/>")
    done = run("import", "advanced-ads", str(tmp_path / file), "--to", str(tmp_path / "config"))
    assert done.returncode == 1
    assert done.stderr.decode().startswith(f"{tmp_path / file}: ")
    assert not (tmp_path / "config").exists()


def test_the_address_answers_the_same_as_the_command(desk: Desk) -> None:  # noqa: F811
    """
    Files and list as JSON, for who may sell; a refusal in words, a large export beside the requests, nothing published.
    """
    seller, viewer = Program(desk, "sales"), Program(desk, "viewer")
    found = {"advanced_ads_export": 1, "site": {"timezone": "UTC"}, "ads": [
        {"id": n, "title": f"Ad {n}", "status": "publish", "content": "Soup", "options": []} for n in range(1, 1501)
    ]}  # fmt: skip
    before = desk.http.get("/ads?id=889990").json()["version"]
    answer = seller.ask("POST", "/api/import/advanced-ads", json=found)
    assert answer.status_code == 200, answer.text
    same = move(read_export(json.dumps(found).encode()))
    assert answer.json()["files"] == same.files
    assert [(one["what"], one["why"]) for one in answer.json()["left"]] == [(one.what, one.why) for one in same.left]
    assert desk.http.get("/ads?id=889990").json()["version"] == before

    refused = seller.ask("POST", "/api/import/advanced-ads", json={"ads": []})
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("The body is no export of Advanced Ads; expected what")
    empty = seller.ask("POST", "/api/import/advanced-ads", json={**found, "ads": [{"id": 7, "status": "draft"}]})
    assert (empty.status_code, empty.json()["detail"]) == (
        422, "The body holds nothing that could be moved: ad 7: is not published there (draft)."
    )  # fmt: skip
    assert seller.ask("POST", "/api/import/advanced-ads", content=b"{").status_code == 400
    assert viewer.ask("POST", "/api/import/advanced-ads", json=found).status_code == 403
    assert desk.http.post("/api/import/advanced-ads", json=found).status_code == 401
