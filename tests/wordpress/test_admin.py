"""What the site's owner sees: settings, the connection test, the block and the widget; and what is left at the end."""

import html
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.client.peers import FAULTS, OK, peer
from tests.page.conftest import ARGUMENTS, CHROMIUM
from tests.service.live import Service, free_port
from tests.wordpress.site import PASSWORD, USER, WordPress, program
from tests.wordpress.test_pages import ARTICLE, SIX, slots

PAGE = "/wp-admin/options-general.php?page=adserver"


@pytest.fixture(scope="module")
def owner(site: WordPress) -> Iterator[httpx.Client]:
    with site.signed_in() as http:
        yield http


def fields(page: str, action: str) -> dict[str, str]:
    """The hidden fields of the form that goes to *action*."""
    [form] = [one for one in re.findall(r"<form.*?</form>", page, re.DOTALL) if f"{action}" in one]
    found = re.findall(r'<input type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form.replace("'", '"'))
    return {html.unescape(name): html.unescape(value) for name, value in found}


def save(owner: httpx.Client, **typed: str) -> str:
    """What the page says once these settings were sent."""
    hidden = fields(owner.get(PAGE).text, 'action="options.php"')
    answer = owner.post(
        "/wp-admin/options.php", data=hidden | {f"adserver[{name}]": text for name, text in typed.items()}
    )
    return answer.text


def notices(page: str) -> list[str]:
    found = re.findall(
        r"<div id='setting-error-[^']*' class='notice notice-(\w+)[^>]*>\s*<p><strong>(.*?)</strong>", page
    )
    return [f"{kind}: {html.unescape(text)}" for kind, text in found]


def test_settings_are_saved_and_shown(site: WordPress, service: Service, owner: httpx.Client) -> None:
    """
    What is typed is kept, tidied; what cannot be meant is refused in words, shown harmlessly, and changes nothing.
    """
    site.set()
    said = save(owner, url=f" {service.url}/ ", public_url=service.url, mode="snippet")
    assert notices(said) == ["success: Settings saved."]
    kept = {"url": service.url, "public_url": service.url, "mode": "snippet"}
    assert site.php("return get_option( 'adserver' );") == kept
    page = owner.get(PAGE).text
    assert f'name="adserver[url]" value="{service.url}"' in page
    assert 'value="snippet" checked' in re.sub(r"='([^']*)'", r'="\1"', page)
    bad = '"><script>alert(1)</script>'
    for typed in (
        "ftp://127.0.0.1",
        "127.0.0.1:8000",
        "http://",
        "http://a b",
        "http://u:p@host",
        "http://h/?x=1",
        bad,
    ):
        said = save(owner, url=typed, public_url=service.url, mode="<b>")
        assert "<script>alert" not in said
        [notice] = notices(said)
        assert "is not the address of a service: expected such as http://127.0.0.1:8000" in notice
        assert site.php("return get_option( 'adserver' );") == kept
    said = save(owner, url=service.url, public_url="", mode="placeholder")
    assert any("write the public address, too" in one for one in notices(said))


def test_only_who_may_manage_the_site_sees_and_changes_settings(site: WordPress, owner: httpx.Client) -> None:
    """
    Without the right or without the form's own token nothing is saved and nothing is tested.
    """
    site.set(url="http://127.0.0.1:1")
    site.php("return wp_insert_user( array( 'user_login' => 'writer', 'user_pass' => 'w', 'role' => 'editor' ) );")
    with site.signed_in("writer", "w") as writer:
        assert writer.get(PAGE).status_code == 403
        assert writer.post("/wp-admin/admin-post.php", data={"action": "adserver_test"}).status_code == 403
    stranger = {"option_page": "adserver", "action": "update", "adserver[url]": "http://127.0.0.1:2"}
    assert owner.post("/wp-admin/options.php", data=stranger).status_code == 403
    assert owner.post("/wp-admin/admin-post.php", data={"action": "adserver_test"}).status_code == 403
    assert site.php("return get_option( 'adserver' );") == {"url": "http://127.0.0.1:1"}


def press_test(owner: httpx.Client) -> list[str]:
    """What the connection test says, by its button."""
    hidden = fields(owner.get(PAGE).text, "admin-post.php")
    return notices(owner.post("/wp-admin/admin-post.php", data=hidden).text)


def test_the_connection_test_finds_nothing_wrong(site: WordPress, service: Service, owner: httpx.Client) -> None:
    """
    A service that answers, and lets the site's pages read its answers, is one good sentence; an outage is over by it.
    """
    site.set(url=service.url, public_url=service.url)
    site.php("Adserver\\Outage::failed( 'it was away <b>' ); return 1;")
    assert "it was away &lt;b&gt;" in owner.get(PAGE).text
    [said] = press_test(owner)
    assert re.fullmatch(rf"success: {service.url} answers as adserver does, after 0\.\d+ s\.", said)
    assert "has been away" not in owner.get(PAGE).text


def _slowly(connection: socket.socket, stopping: threading.Event) -> None:
    stopping.wait(0.6)
    connection.sendall(OK + b"content-length: 0\r\n\r\n")


WRONG: list[tuple[str, Any, str]] = [
    ("hangs", None, "did not answer within 3 s: it hangs"),
    ("sends elsewhere", None, "sends elsewhere, to http://127.0.0.1:1/. Write the address at which adserver itself"),
    ("is another server", None, "(status 200), but it is not adserver. Are host, port and path right?"),
    ("fails", None, "fails (status 500): adserver, or a proxy before it, is in trouble."),
    ("speaks no UTF-8", None, "(status 200), but it is not adserver."),
    ("hangs up", None, "could not be asked: "),
    ("wants a login", b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "refuses this server (status 401)"),
    ("is not there", b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "(status 404), but it is not adserver."),
]


@pytest.mark.parametrize(("fault", "answer", "sentence"), WRONG, ids=[one[0] for one in WRONG])
def test_the_connection_test_says_what_is_wrong(
    site: WordPress, owner: httpx.Client, fault: str, answer: bytes | None, sentence: str
) -> None:
    """
    Each fault of whatever answers has its own sentence, with the address and what to do.
    """
    how = (lambda connection, _: connection.sendall(answer)) if answer else FAULTS[fault]
    with peer(fault, answer=how) as there:
        site.set(url=there.url)
        [said] = press_test(owner)
    assert said.startswith("error: ")
    assert there.url in said
    assert sentence in said


def test_the_connection_test_says_what_cannot_be_reached(
    site: WordPress, service: Service, owner: httpx.Client
) -> None:
    """
    No address, nobody there, an unknown name, a host that WordPress may not call, http taken for https.
    """
    nobody = f"http://127.0.0.1:{free_port()}"
    unknown = f"{'.'.join(['x' * 60] * 5)}.invalid"  # too long for any name server to be asked
    for url, sentence in (
        ("", "No address of the service is set: write it above"),
        (nobody, f"Nothing listens at {nobody}. Is adserver running, and is this its port?"),
        (f"http://{unknown}", f"No machine is called {unknown}."),
        ("http://ads.example.com", "Add ads.example.com to WP_ACCESSIBLE_HOSTS in wp-config.php."),
        (service.url.replace("http:", "https:"), "Does it speak https at this port"),
    ):
        site.set(url=url)
        [said] = press_test(owner)
        assert said.startswith("error: ")
        assert sentence in said


def test_the_connection_test_sees_what_readers_would_miss(
    site: WordPress, service: Service, owner: httpx.Client
) -> None:
    """
    A slow service, a public address with no script, one that refuses the site's pages, a page cache without boxes.
    """
    with peer("slow", answer=_slowly) as there:
        site.set(url=there.url)
        [slow, unmeasured] = press_test(owner)
    assert re.search(r"warning: .* answered after 0\.\d\d s, and pages wait for 0\.3 s only", slow)
    assert "nobody measures which ads were viewable" in unmeasured
    site.set(url=service.url)
    with site.page_cache():
        assert any("warning: A page cache is on, and no public address is set" in one for one in press_test(owner))
    with peer("is another server") as there:
        site.set(url=service.url, public_url=there.url)
        assert any(f"there is no adserver at {there.url}/loader.js" in one for one in press_test(owner))
    site.set(url=service.url, public_url=service.url)
    site.php("update_option( 'home', str_replace( '127.0.0.1', 'localhost', get_option( 'siteurl' ) ) );")
    try:
        other = site.url.replace("127.0.0.1", "localhost")
        said = press_test(owner)
        assert any(f'start it with ADSERVER_ALLOWED_ORIGINS="{other}"' in one for one in said), said
        site.php("update_option( 'home', 'https://news.example.com' );")
        assert any("the public address must begin with https" in one for one in press_test(owner))
    finally:
        site.php("update_option( 'home', get_option( 'siteurl' ) );")


def test_an_editor_puts_an_ad_with_the_block(site: WordPress, service: Service, owner: httpx.Client) -> None:
    """
    In the real block editor the block is inserted, given its id by typing, and published; writing asks for no ad.
    """
    if not shutil.which(CHROMIUM):
        pytest.skip("Chromium is not installed: run tools/install-system-programs")
    site.set(url=service.url)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(30_000)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{site.url}/wp-login.php")
        page.fill("#user_login", USER)
        page.fill("#user_pass", PASSWORD)
        page.click("#wp-submit")
        page.goto(f"{site.url}/wp-admin/post-new.php")
        page.wait_for_function("window.wp?.blocks?.getBlockType('adserver/ad') && wp.data.select('core/editor')")
        page.evaluate(
            """() => {
                wp.data.dispatch('core/edit-post').toggleFeature('welcomeGuide');
                wp.data.dispatch('core/editor').editPost({ title: 'By hand' });
                wp.data.dispatch('core/block-editor').insertBlock(wp.blocks.createBlock('adserver/ad'));
            }"""
        )
        field = page.get_by_label("Its id, such as 889990")
        field.wait_for()
        field.fill("889990")
        link = page.evaluate(
            """async () => {
                wp.data.dispatch('core/editor').editPost({ status: 'publish' });
                await wp.data.dispatch('core/editor').savePost();
                return wp.data.select('core/editor').getPermalink();
            }"""
        )
        text = page.evaluate("wp.data.select('core/editor').getEditedPostContent()")
        browser.close()
    assert complaints == []
    assert text == '<!-- wp:adserver/ad {"id":"889990"} /-->'
    assert slots(site.read(link.removeprefix(site.url)).text) == ["889990"]


def test_a_widget_takes_ids_only(site: WordPress) -> None:
    """
    The widget's form shows what it keeps, and keeps only what can be an ad's kind and id.
    """
    made = site.php(
        "$w = new Adserver\\Widget(); $w->_set( 2 ); ob_start();"
        "$w->form( array( 'kind' => 'the_ad_group', 'id' => 'rail' ) );"
        "$form = ob_get_clean(); return array( $form,"
        " $w->update( array( 'kind' => 'the_ad_placement', 'id' => ' top ' ), array() ),"
        " $w->update( array( 'kind' => '\"><b>', 'id' => '\"><script>' ), array() ), $w->update( 'x', array() ) );"
    )
    assert 'value="rail"' in made[0]
    assert re.search(r'value="the_ad_group" selected', made[0].replace("'", '"'))
    assert made[1] == {"kind": "the_ad_placement", "id": "top"}
    assert made[2] == made[3] == {"kind": "the_ad", "id": ""}


def dump(site: WordPress) -> list[str]:
    """All tables of the database, a row a line."""
    done = subprocess.run(
        [
            program("mariadb-dump"), "--no-defaults", f"--socket={site.home}/db.sock", "--skip-extended-insert",
            "--skip-comments", "--compact", "--order-by-primary", "wordpress",
        ],
        capture_output=True, check=True, encoding="utf-8",
    )  # fmt: skip
    return done.stdout.splitlines()


def test_uninstalling_leaves_nothing(site: WordPress, stoppable: Service) -> None:
    """
    After the plugin was used in every way and deleted, all tables hold what they held before it was switched on.
    """
    plugin = (
        "require_once ABSPATH . 'wp-admin/includes/plugin.php'; require_once ABSPATH . 'wp-admin/includes/file.php';"
    )
    path = site.post(ARTICLE)
    keep = "update_option( 'sidebars_widgets', array( 'rail' => array( 'search-9' ), 'array_version' => 3 ) );"
    wipe = f"{plugin} deactivate_plugins( 'adserver/adserver.php' ); include WP_PLUGIN_DIR . '/adserver/uninstall.php';"
    site.set()
    site.php(f"{keep} {wipe}", {"WP_UNINSTALL_PLUGIN": "adserver/adserver.php"})
    site.read(path)
    site.php("return 1;")
    before = dump(site)

    site.php(f"{plugin} return activate_plugin( 'adserver/adserver.php' );")
    with site.signed_in() as owner:
        save(owner, url=stoppable.url, public_url=stoppable.url, mode="snippet")
        press_test(owner)
        owner.get("/wp-login.php?action=logout")
    site.php(
        "update_option( 'widget_adserver_ad', array( 2 => array( 'kind' => 'the_ad', 'id' => '889992' ) ) );"
        "update_option( 'sidebars_widgets',"
        " array( 'rail' => array( 'adserver_ad-2', 'search-9' ), 'array_version' => 3 ) );"
    )
    assert slots(site.read(path).text) == [*SIX, "889992"]
    stoppable.stop()
    site.read(site.post("[the_ad id=889991]", post_title="Gone"))
    used = dump(site)
    assert any("adserver_kept" in row for row in used)
    assert any("adserver_outage" in row for row in used)
    assert any("adserver_look_for_loader" in row for row in used)
    assert any("widget_adserver_ad" in row for row in used)

    site.php(
        "foreach ( get_posts( array( 'title' => 'Gone' ) ) as $post ) { wp_delete_post( $post->ID, true ); }"
        "global $wpdb; $wpdb->query( \"DELETE FROM $wpdb->usermeta WHERE meta_key = 'session_tokens'\" ); return 1;"
    )
    site.php(f"{plugin} deactivate_plugins( 'adserver/adserver.php' );")
    site.php(f"{plugin} return uninstall_plugin( 'adserver/adserver.php' );")
    after = dump(site)
    try:
        assert not [row for row in after if "adserver" in row and "[the_ad" not in row and "wp_posts" not in row]
        assert bare(after) == bare(before)
    finally:
        site.php(f"{plugin} return activate_plugin( 'adserver/adserver.php' );")


def bare(rows: list[str]) -> list[str]:
    """Without what WordPress itself writes whenever somebody signs in or it runs, and without numbers of rows."""
    own = re.compile(
        r"_(?:site_)?transient_|session_tokens|wp_user-settings|dashboard_quick_press|community-events|AUTO_INCREMENT"
    )
    return [re.sub(r"(wp_options` VALUES \()\d+", r"\1", row) for row in rows if not own.search(row)]
