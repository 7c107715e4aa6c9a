"""Moving from Advanced Ads: what it keeps in a real database, exported, and turned into files by the service's API."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.peers import peer
from tests.console.desks import Desk
from tests.console.test_api import Program
from tests.service.live import REPOSITORY, Service, eventually, free_port
from tests.wordpress.site import WordPress, quote

IMAGE = {
    "type": "image",
    "url": "https://garden.example/?a=1&b=2",
    "width": 300,
    "height": 250,
    "output": {"image_id": "%MEDIA%", "position": "center"},
    "expiry_date": 1893456000,
    "conditions": [{"type": "posttypes", "operator": "is", "value": ["post"]}],
    "weekdays": {"enabled": 1, "day_indexes": [1, 2, 3]},
}
PLACEMENTS = {
    "after-third": {"type": "post_content", "name": "After the third", "item": "group_%GROUP%", "options": {"p": 3}},
    "top": {"type": "header", "name": 'Top "of" page – é', "item": "ad_%AD%", "options": {}},
}
_SEED = """
global $wpdb;
$picture = array( 'post_title' => 'Tulips', 'post_mime_type' => 'image/png' );
$attachment = wp_insert_attachment( $picture, '2026/01/tulips.png' );
wp_update_attachment_metadata( $attachment, array( 'width' => 300, 'height' => 250, 'file' => '2026/01/tulips.png' ) );
update_post_meta( $attachment, '_wp_attachment_image_alt', 'Tulips "in" May' );
$ads = array();
foreach ( %s as $ad ) {
	$wpdb->insert( $wpdb->posts, array( 'post_type' => 'advanced_ads', 'post_excerpt' => '', 'to_ping' => '',
		'pinged' => '', 'post_content_filtered' => '', 'post_title' => $ad['title'], 'post_status' => $ad['status'],
		'post_date' => '2026-01-02 03:04:05', 'post_content' => $ad['content'] ) );
	$ads[] = $wpdb->insert_id;
	$options = json_decode( str_replace( '"%%MEDIA%%"', $attachment, json_encode( $ad['options'] ) ), true );
	$wpdb->insert( $wpdb->postmeta, array( 'post_id' => $wpdb->insert_id, 'meta_key' => 'advanced_ads_ad_options',
		'meta_value' => serialize( $options ) ) );
}
register_taxonomy( 'advanced_ads_groups', 'advanced_ads' );
$group = wp_insert_term( 'Side & rail', 'advanced_ads_groups' )['term_id'];
wp_set_object_terms( $ads[0], array( $group ), 'advanced_ads_groups' );
wp_set_object_terms( $ads[1], array( $group ), 'advanced_ads_groups' );
$about = array( 'type' => 'ordered', 'ad_count' => 2, 'options' => array() );
update_option( 'advads-ad-groups', array( $group => $about ) );
update_option( 'advads-ad-weights', array( $group => array( $ads[0] => '10', $ads[1] => 3 ) ) );
$placements = str_replace( array( '%%GROUP%%', '%%AD%%' ), array( $group, $ads[0] ), %s );
update_option( 'advads-ads-placements', json_decode( $placements, true ) );
update_option( 'timezone_string', 'Europe/Berlin' );
return array( 'ads' => $ads, 'group' => $group, 'media' => $attachment );
"""
ADS = [
    {"title": "Tulips", "status": "publish", "content": "", "options": IMAGE},
    {
        "title": 'Old <b>"code"</b>',
        "status": "draft",
        "content": '<img class="wp-image-%d" src="x">\nline [the_ad id="1"] \\ back',
        "options": {"type": "plain", "allow_php": 0},
    },
    {"title": "Binned", "status": "trash", "content": "", "options": {}},
    {
        "title": "Seeds",
        "status": "publish",
        "content": '<a href="https://garden.example/seeds">Seeds for every garden</a>',
        "options": {"type": "plain", "width": 300, "height": 250},
    },
]


@pytest.fixture(scope="module")
def seeded(site: WordPress) -> Iterator[dict[str, Any]]:
    """A site whose database has what Advanced Ads 1.x leaves there; the plugin itself is gone."""
    found: dict[str, Any] = site.php(_SEED % (quote(ADS), quote(json.dumps(PLACEMENTS))))
    yield found
    site.php(
        "array_map( 'delete_option', array( 'advads-ad-groups', 'advads-ad-weights', 'advads-ads-placements' ) );"
        f"foreach ( {quote([*found['ads'], found['media']])} as $id ) wp_delete_post( $id, true );"
        "register_taxonomy( 'advanced_ads_groups', 'advanced_ads' );"
        f"wp_delete_term( {found['group']}, 'advanced_ads_groups' ); update_option( 'timezone_string', '' ); return 1;"
    )


def test_there_may_be_nothing_to_import(site: WordPress, tmp_path: Path) -> None:
    """
    A site that never had Advanced Ads is told so, and the connection can be tested from the command line, too.
    """
    site.set(url=f"http://127.0.0.1:{free_port()}")
    code, said = site.command("adserver import", str(tmp_path / "config"))
    assert (code, said) == (1, "Error: There are no ads, groups or placements of Advanced Ads in this site's database.")
    code, said = site.command("adserver test")
    assert code == 1
    assert "Nothing listens at" in said


def test_the_export_holds_all_that_advanced_ads_keeps(site: WordPress, seeded: dict[str, Any], tmp_path: Path) -> None:
    """
    Ads with their options as they are, groups with weights, placements and pictures, as docs/integrations.md has it.
    """
    file = tmp_path / "export.json"
    assert site.command("adserver export-advanced-ads", str(file)) == (0, f"Success: Written to {file}.")
    export = json.loads(file.read_text("utf-8"))
    [shown] = re.findall(r"```json\n(.*?)```", (REPOSITORY / "docs" / "integrations.md").read_text("utf-8"), re.DOTALL)
    described = json.loads(shown)
    assert list(described) == list(export)
    for part in ("ads", "groups", "media"):
        assert list(described[part][0]) == list(export[part][0])
    first, second, _, last = seeded["ads"]
    group, media = seeded["group"], seeded["media"]
    assert list(export) == ["advanced_ads_export", "site", "ads", "groups", "placements", "media"]
    assert export["advanced_ads_export"] == 1
    assert export["site"] == {"url": site.url, "name": "The Courier", "timezone": "Europe/Berlin"}
    assert [one["id"] for one in export["ads"]] == [first, second, last], "what lies in the bin is not moved"
    assert export["ads"][0] == {
        "id": first,
        "title": "Tulips",
        "status": "publish",
        "date": "2026-01-02 03:04:05",
        "content": "",
        "options": {**IMAGE, "output": {"image_id": media, "position": "center"}},
        "groups": [group],
    }
    assert export["ads"][1]["content"] == ADS[1]["content"]
    assert export["ads"][1]["title"] == ADS[1]["title"]
    assert export["groups"] == [
        {
            "id": group,
            "name": "Side & rail",
            "slug": "side-rail",
            "options": {"type": "ordered", "ad_count": 2, "options": []},
            "weights": {str(first): 10, str(second): 3},
        }
    ]
    assert export["placements"]["top"]["name"] == PLACEMENTS["top"]["name"]
    assert export["placements"]["top"]["item"] == f"ad_{first}"
    assert export["media"] == [
        {
            "id": media,
            "url": f"{site.url}/wp-content/uploads/2026/01/tulips.png",
            "width": 300,
            "height": 250,
            "alt": 'Tulips "in" May',
            "mime": "image/png",
        }
    ]


def answering(status: str, said: Any) -> Any:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()

    def answer(connection: socket.socket, stopping: threading.Event) -> None:
        connection.settimeout(0.2)
        try:  # the rest of the request
            while connection.recv(65536):
                pass
        except TimeoutError:
            pass
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)

    return answer


GOOD = {
    "files": {"slots.toml": "[[slot]]\n", "campaigns.toml": "é\n"},
    "left": [{"what": "ad 3", "why": "it runs PHP"}],
}


def test_import_writes_the_files_and_says_what_was_left_out(
    site: WordPress, seeded: dict[str, Any], tmp_path: Path
) -> None:
    """
    The export goes to the service's API with the token; its files are written, and each thing without an equal is said.
    """
    heard: list[bytes] = []
    with peer("imports", answer=answering("200 OK", GOOD), heard=heard) as there:
        site.set(url=there.url)
        code, said = site.command("adserver import", str(tmp_path / "new" / "config"), token="t0ken")
        again = site.command("adserver import", str(tmp_path / "new" / "config"), environ={"ADSERVER_API_TOKEN": "e"})
        forced, _ = site.command("adserver import", str(tmp_path / "new" / "config"), force=True)
    directory = tmp_path / "new" / "config"
    assert (code, forced) == (0, 0)
    assert said == (
        "Warning: not as before: ad 3: it runs PHP\n"
        f"Success: Files in {directory}: 2. Not as before: 1. Look at them, then: adserver check {directory}"
    )
    assert {file.name: file.read_text("utf-8") for file in directory.iterdir()} == GOOD["files"]
    assert again == (
        1,
        f"Error: {directory}/slots.toml is there already. Say another directory, or --force to overwrite it.",
    )
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/import/advanced-ads HTTP/1.1")
    assert b"Authorization: Bearer t0ken" in head
    assert b"Authorization: Bearer e" in heard[1]
    assert b"authorization" not in heard[2].lower()
    assert body.startswith(b'{"advanced_ads_export":1,')


@pytest.mark.parametrize(
    ("status", "said", "sentence"),
    [
        ("401 No", {"detail": "The token is not known."}, "answered 401: The token is not known. Say --token="),
        ("400 Bad", {"detail": "ads[3] has no id."}, "answered 400: ads[3] has no id."),
        ("404 No", b"<h1>no</h1>", "answered 404."),
        ("200 OK", b"<h1>It works</h1>", "did not answer as adserver does"),
        ("200 OK", {"files": {"../evil.toml": "x"}, "left": []}, "names a file that is none of adserver's"),
        ("200 OK", {"files": {"a.toml": "x", "b.php": "x"}, "left": []}, "names a file that is none of adserver's"),
        ("200 OK", {"files": {"a.toml": ["x"]}, "left": []}, "names a file that is none of adserver's"),
    ],
)
def test_import_writes_nothing_when_something_is_wrong(
    site: WordPress, seeded: dict[str, Any], tmp_path: Path, status: str, said: Any, sentence: str
) -> None:
    """
    A refusal is passed on in the service's words, and no answer makes the command write outside its directory.
    """
    with peer("imports", answer=answering(status, said)) as there:
        code, text = site.command("adserver import", str(tmp_path / "config"), service=there.url)
    assert code == 1
    assert text.startswith("Error: ")
    assert sentence in text
    assert not (tmp_path / "config").exists()
    assert list(tmp_path.iterdir()) == []


def test_import_says_what_is_missing(site: WordPress, seeded: dict[str, Any], tmp_path: Path) -> None:
    """
    No directory, no address, nobody there: each is said with what to do.
    """
    site.set()
    assert "wp adserver import config" in site.command("adserver import")[1]
    assert "--service=http://127.0.0.1:8000" in site.command("adserver import", str(tmp_path))[1]
    nobody = f"http://127.0.0.1:{free_port()}"
    assert f"{nobody} could not be asked" in site.command("adserver import", str(tmp_path), service=nobody)[1]
    assert "could not be written" in site.command("adserver export-advanced-ads", str(tmp_path / "no" / "x"))[1]


def test_what_the_second_generation_keeps_is_read_where_it_keeps_it(
    site: WordPress, seeded: dict[str, Any], tmp_path: Path
) -> None:
    """
    Advanced Ads 2 makes posts of placements, keeps a copy of what they were, and keeps weights with their groups.
    """
    first, second, *_ = seeded["ads"]
    newer = {"ad_weights": {first: 4, second: 0}, "ad_count": "all", "options": []}
    made = [
        ["after-third", "After the fourth", f"group_{seeded['group']}", "draft"],
        ["made-since", "Since", f"ad_{second}", "publish"],
    ]
    site.php(
        "$kept = get_option( 'advads-ads-placements' ); $kept['after_third'] = $kept['after-third'];"
        "unset( $kept['after-third'] ); update_option( 'advads-ads-placements_backup', $kept );"
        "update_option( 'advads-ads-placements', array() );"
        f"foreach ( {quote(made)} as $one ) {{"
        " $id = wp_insert_post( array( 'post_type' => 'advanced_ads_plcmnt', 'post_title' => $one[1],"
        " 'post_name' => $one[0], 'post_status' => $one[3] ) );"
        " update_post_meta( $id, 'type', 'post_content' ); update_post_meta( $id, 'item', $one[2] );"
        " update_post_meta( $id, 'options', array( 'display' => array( array( 'type' => 'general' ) ) ) ); }"
        f"update_term_meta( {seeded['group']}, '_advads_group_type', 'grid' );"
        f"update_term_meta( {seeded['group']}, 'advanced_ads_group_options', {quote(newer)} ); return 1;"
    )
    file = tmp_path / "export.json"
    assert site.command("adserver export-advanced-ads", str(file))[0] == 0
    export = json.loads(file.read_text("utf-8"))
    assert list(export["placements"]) == ["top", "after_third", "made-since"]
    assert export["placements"]["after_third"] == {
        "type": "post_content",
        "name": "After the fourth",
        "item": f"group_{seeded['group']}",
        "options": {"display": [{"type": "general"}]},
        "status": "draft",
    }
    assert export["placements"]["top"]["item"] == f"ad_{first}", "of what is no post the copy is all there is"
    [group] = export["groups"]
    assert group["options"] == {"type": "grid", "ad_count": "all", "options": []}
    assert group["weights"] == {str(first): 4, str(second): 0}


def test_a_site_is_moved_to_a_real_service_and_shows_its_ads_there(
    site: WordPress, seeded: dict[str, Any], tmp_path: Path
) -> None:
    """
    `wp adserver import` against a running service; its files pass `check`, are published, and show the site's own ad.
    """
    service = Service(tmp_path / "service", workers=1, port=free_port())
    service.start()
    try:
        token = Program(Desk(service), "sales").headers["authorization"].removeprefix("Bearer ")
        directory = tmp_path / "moved"
        code, said = site.command("adserver import", str(directory), service=service.url, token=token)
        assert code == 0, said
        assert "Warning: not as before: ad" in said
        service.run("check", str(directory))
        service.run("apply", str(directory), "--force")
        shown = seeded["ads"][-1]
        eventually(lambda: service.http.get(f"/ads/{shown}").status_code == 200, 10, "the moved ad")
        answer = service.http.get(f"/ads/{shown}")
        assert "Seeds for every garden" in answer.text
        assert 'data-line-item="ad-' in answer.text
    finally:
        service.stop()
