"""Following the live version: swapped whole within a second, from the store, the snapshot or the files."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from adserver import reload, versions
from adserver.catalog import Catalog, ad_key
from adserver.config_files import Files, read_config
from adserver.documents import Document
from adserver.errors import ConfigError, Conflict
from adserver.model import LineItem
from adserver.publish import publish_files
from adserver.reload import LiveCatalog, Retired, follow_loop, letting_go, load_first, snapshot_path
from adserver.settings import Settings
from adserver.steps import at_once
from adserver.store import open_store
from adserver.versions import KEY, Version
from tests import make
from tests.edges.servers import Server

POLL_S = reload.POLL_S
ROOT = Path(__file__).parent.parent.parent
SAMPLE = ROOT / "config"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for the live version more often, so that a test need not wait."""
    monkeypatch.setattr(reload, "POLL_S", 0.02)


def settings_for(tmp_path: Path, server: Server | None) -> Settings:
    url = server.url if server else f"unix://{tmp_path}/none.sock"
    (tmp_path / "var").mkdir(exist_ok=True)
    return Settings(data_dir=str(tmp_path / "var"), redis_url=url, config=str(SAMPLE))


def ask(server: Server, *command: Any) -> Any:
    with server.client() as client:
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


async def publish(server: Server, document: Document, assets: dict[str, bytes] | None = None) -> int:
    """Make *document* live; a worker that seeds the empty store this very moment is no hindrance."""
    async with open_store(server.url) as store:
        given = Files(document, assets or {}, None)
        while True:
            with suppress(Conflict):
                return (await publish_files(store, given, author="ann", note="", force=True)).number


def a_document(*names: str) -> Document:
    creatives = [make.creative(f"{name}-loaf", image=None, image_size=None) for name in names]
    return make.document(*map(make.line_item, names), creatives=creatives)


def key_of(name: str) -> bytes:
    return ad_key(f"889990/{name}/{name}-loaf")


async def eventually(condition: Callable[[], object], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it may depend on anything
            await asyncio.sleep(0.005)


def saved(settings: Settings) -> int | None:
    path = snapshot_path(settings)
    return versions.decode(path.read_bytes()).number if path.exists() else None


def following(settings: Settings, body: Callable[[LiveCatalog], Awaitable[None]], *, load: bool = True) -> None:
    """Run *body* beside the loop that follows the store."""

    async def main() -> None:
        live, stopping = LiveCatalog(), asyncio.Event()
        if load:
            await load_first(live, settings)
        task = asyncio.create_task(follow_loop(live, settings, stopping))
        try:
            await body(live)
        finally:
            stopping.set()
            await asyncio.wait_for(task, 5)

    asyncio.run(main())


def test_a_published_version_is_live_within_a_second(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Each new version replaces the former as a whole, and is saved for the next start.
    """
    monkeypatch.setattr(reload, "POLL_S", POLL_S)
    settings = settings_for(tmp_path, server)

    async def body(live: LiveCatalog) -> None:
        await eventually(lambda: live.trouble is None and server and ask(server, "HGET", KEY, "live"))
        for name in ("one", "two"):
            number = await publish(server, a_document(name))
            began = time.monotonic()
            await eventually(lambda number=number: live.current.version == number)  # type: ignore[misc]
            assert time.monotonic() - began < 1
            assert live.find(key_of(name))
            assert live.current.document == a_document(name)
        await eventually(lambda: saved(settings) == live.current.version)

    following(settings, body)


def test_an_empty_store_is_seeded_once(tmp_path: Path, server: Server) -> None:
    """
    Several workers start on the files at once: one version 1 appears, with its images, and all serve it.
    """

    async def main() -> None:
        stopping, lives, tasks = asyncio.Event(), [], []
        for n in range(3):
            place = tmp_path / str(n)
            place.mkdir()
            live, settings = LiveCatalog(), settings_for(place, server)
            await load_first(live, settings)
            tasks.append(asyncio.create_task(follow_loop(live, settings, stopping)))
            lives.append(live)
        await eventually(lambda: ask(server, "HGET", KEY, "live") == b"1")
        await eventually(lambda: all(live.trouble is None for live in lives))
        stopping.set()
        await asyncio.gather(*tasks)
        assert {live.current.version for live in lives} == {1}
        assert set(ask(server, "HKEYS", KEY)) == {b"live", b"v:1", b"s:1"}
        for name in lives[0].current.assets:
            assert ask(server, "EXISTS", f"as:{{asset:{name}}}") == 1

    asyncio.run(main())


def test_a_wiped_store_is_given_the_same_version_again(tmp_path: Path, server: Server) -> None:
    """
    After FLUSHALL the workers publish what they serve, under the number it had.
    """

    async def body(live: LiveCatalog) -> None:
        for name in ("one", "two", "three"):
            await publish(server, a_document(name))
        await eventually(lambda: live.current.document == a_document("three"))
        number = live.current.version
        ask(server, "FLUSHALL")
        await eventually(lambda: ask(server, "HGET", KEY, "live") is not None)
        assert int(ask(server, "HGET", KEY, "live")) == number == live.current.version
        async with open_store(server.url) as store:
            again = await versions.read_version(store, number)
        assert again
        assert again.document == a_document("three")

    following(settings_for(tmp_path, server), body)


def test_an_earlier_version_can_come_back(tmp_path: Path, server: Server) -> None:
    """
    Undo points back, and a restored store stands where its dump does: the workers follow down too.
    """

    async def body(live: LiveCatalog) -> None:
        one = await publish(server, a_document("one"))
        two = await publish(server, a_document("two"))
        await eventually(lambda: live.current.version == two)
        ask(server, "HSET", KEY, "live", one)
        await eventually(lambda: live.current.version == one)
        assert live.find(key_of("two"))

    following(settings_for(tmp_path, server), body)


BAD: list[bytes] = [
    b"nonsense",
    b'{"number":9,"author":"a","at":1,"note":"","document":{"slots":7}}',
    versions.encode(
        Version(number=9, author="a", at=1.0, note="", document=Document(line_items=(make.line_item("lost"),)))
    ),
    b"\xff",
]


@pytest.mark.parametrize("data", [*BAD, None])
def test_a_bad_version_keeps_the_former(tmp_path: Path, server: Server, data: bytes | None) -> None:
    """
    Not JSON, not a document, one that names what it does not hold, or none at all: the last good one goes on.
    """

    async def body(live: LiveCatalog) -> None:
        good = await publish(server, a_document("good"))
        await eventually(lambda: live.find(key_of("good")))
        if data is not None:
            ask(server, "HSET", KEY, "v:9", data)
        ask(server, "HSET", KEY, "live", 9)
        await eventually(lambda: live.trouble)
        assert live.current.version == good
        assert live.find(key_of("good"))
        ask(server, "HDEL", KEY, "v:9")
        ask(server, "HSET", KEY, "live", good)
        await eventually(lambda: live.trouble is None)

    following(settings_for(tmp_path, server), body)


@pytest.mark.parametrize("data", BAD)
def test_a_bad_version_in_the_store_does_not_keep_a_worker_from_starting(
    tmp_path: Path, server: Server, data: bytes
) -> None:
    """
    It starts from its snapshot or the files, and says what is wrong.
    """
    ask(server, "HSET", KEY, "v:9", data, "live", 9)

    async def main() -> None:
        live = LiveCatalog()
        await load_first(live, settings_for(tmp_path, server))
        assert live.loaded
        assert live.trouble
        assert live.current.slots

    asyncio.run(main())


def test_without_a_store_a_worker_starts_from_its_snapshot(tmp_path: Path, server: Server) -> None:
    """
    The version last seen is served with its images, and not what the files say.
    """
    sample = read_config(SAMPLE)

    async def body(live: LiveCatalog) -> None:
        await publish(server, sample.document, sample.assets)
        later = await publish(server, a_document("later"))
        await eventually(lambda: live.current.version == later)
        number = await publish(server, sample.document, sample.assets)
        await eventually(lambda: live.current.version == number)
        await eventually(lambda: saved(settings) == number)
        numbers.append(number)

    numbers: list[int] = []
    settings = settings_for(tmp_path, server)
    following(settings, body)

    async def main() -> None:
        live = LiveCatalog()
        await load_first(live, settings_for(tmp_path, None))
        assert [live.current.version] == numbers
        assert live.current.document == sample.document
        assert live.assets == sample.assets
        assert live.trouble

    asyncio.run(main())


@pytest.mark.parametrize("data", [b"", *BAD])
def test_a_damaged_snapshot_is_passed_over(tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """
    The files are read instead, and the log says why.
    """
    settings = settings_for(tmp_path, None)
    snapshot_path(settings).write_bytes(data)

    async def main() -> None:
        live = LiveCatalog()
        await load_first(live, settings)
        assert live.current.version == 1
        assert live.current.slots

    asyncio.run(main())
    assert "snapshot cannot be used" in caplog.text


def test_with_nothing_at_all_the_problems_are_told(tmp_path: Path) -> None:
    """
    No store, no snapshot, bad files: a worker does not start with an empty catalog.
    """
    (tmp_path / "bad.toml").write_text("nonsense")
    settings = Settings(data_dir=str(tmp_path), redis_url=f"unix://{tmp_path}/none.sock", config=str(tmp_path))

    with pytest.raises(ConfigError, match=r"bad\.toml"):
        asyncio.run(load_first(LiveCatalog(), settings))


def test_a_store_that_goes_away_is_ridden_out(tmp_path: Path, own_server: Server) -> None:
    """
    Killed and started again: the catalog stays, the trouble is told and passes, and the next version arrives.
    """

    async def body(live: LiveCatalog) -> None:
        await publish(own_server, a_document("one"))
        await eventually(lambda: live.find(key_of("one")))
        own_server.kill()
        await eventually(lambda: live.trouble)
        assert live.find(key_of("one"))
        await asyncio.to_thread(own_server.start)
        await eventually(lambda: live.trouble is None)
        await publish(own_server, a_document("two"))
        await eventually(lambda: live.find(key_of("two")))

    following(settings_for(tmp_path, own_server), body)


def version(number: int, document: Document) -> Version:
    return Version(number=number, author="a", at=1.0, note="", document=document)


def test_a_number_alone_does_not_make_it_the_same_version(tmp_path: Path, server: Server) -> None:
    """
    A worker that began with the files, as version 1, takes over what the store has as version 1.
    """

    async def main() -> None:
        live, stopping = LiveCatalog(), asyncio.Event()
        await load_first(live, settings_for(tmp_path, None))
        assert live.current.version == 1
        assert await publish(server, a_document("theirs")) == 1
        task = asyncio.create_task(follow_loop(live, settings_for(tmp_path, server), stopping))
        await eventually(lambda: live.find(key_of("theirs")))
        assert live.current.version == 1
        stopping.set()
        await task

    asyncio.run(main())


def test_the_snapshot_has_every_image(tmp_path: Path, server: Server) -> None:
    """
    Also those that came from the files and were never read from the store; a lost one is fetched again.
    """
    sample = read_config(SAMPLE)
    settings = settings_for(tmp_path, server)
    folder = tmp_path / "var" / "assets"

    async def body(live: LiveCatalog) -> None:
        await eventually(
            lambda: folder.exists() and {path.name for path in folder.glob("[0-9a-f]*")} == set(sample.assets)
        )

    following(settings, body)
    lost = min(folder.glob("[0-9a-f]*"))
    lost.unlink()
    following(settings, body)
    assert lost.exists()


def test_retired_catalogs_still_find_their_ads() -> None:
    """
    A click on a page of the last few versions finds its creative; older ones are let go.
    """
    live = LiveCatalog()
    assert not live.loaded
    for number in range(1, 9):
        document = a_document(f"item-{number}")
        live.swap(version(number, document), Catalog(document, number), {})

    found = [number for number in range(1, 9) if live.find(key_of(f"item-{number}"))]

    assert found == list(range(8 - reload.RETIRED, 9))
    assert "version 8" in repr(live)


def test_of_a_catalog_that_is_gone_its_own_ads_are_kept() -> None:
    """
    A click finds what is booked no more, by the newest version that had it; what is still booked is kept once.
    """
    live = LiveCatalog()
    for number, names in enumerate((("both", "first"), ("both", "second"), ("both",)), 1):
        document = a_document(*names)
        live.swap(version(number, document), Catalog(document, number), {})
        at_once(live.retiring())

    assert not live.leaving
    kept = [one for one in live._retired if isinstance(one, Retired)]
    assert [{ad.line_item.id for ad in one.by_key.values()} for one in kept] == [{"first"}, {"second"}]
    for name in ("both", "first", "second"):
        found = live.find(key_of(name))
        assert found
        assert found.line_item.id == name


def test_a_catalog_that_is_gone_is_let_go_bit_by_bit(tmp_path: Path, server: Server) -> None:
    """
    What the oldest was made of is kept for the next look at the store, which lets go of it beside the requests: to do
    so at once takes 40 ms of a large catalog. What the others have stays.
    """
    live = LiveCatalog()
    for number in range(1, reload.RETIRED + 3):
        document = a_document(f"item-{number}")
        catalog = Catalog(document, number)
        assert catalog.by_key[key_of(f"item-{number}")]
        live.swap(version(number, document), catalog, {})
    [gone] = live.leaving
    assert [one.id for part in gone.parts() for one in part if isinstance(one, LineItem)] == ["item-1"]
    del gone
    assert live.find(key_of("item-2"))

    async def body() -> None:
        stopping = asyncio.Event()
        asyncio.get_running_loop().call_later(0.5, stopping.set)
        await follow_loop(live, settings_for(tmp_path, server), stopping)

    asyncio.run(body())
    assert not live.leaving
    assert live.find(key_of("item-2"))


def test_letting_go_is_done_in_many_steps() -> None:
    """
    However much there is, a little at a time, and nothing of it is left.
    """
    leaving: list[Any] = [Catalog(make.document(*(make.line_item(f"l-{n}") for n in range(1000))), 1) for _ in range(2)]
    assert len(list(letting_go(leaving))) > 200
    assert not leaving


def test_images_of_versions_long_gone_are_let_go() -> None:
    """
    A newsroom that publishes for months does not fill the memory with every image it ever showed.
    """
    live = LiveCatalog()
    for number in range(1, 30):
        name = f"{number:032x}.png"
        document = make.document(make.line_item(), creatives=[make.creative("spring-sale-loaf", image=name)])
        live.swap(version(number, document), Catalog(document, number), {name: b"x"})

    assert set(live.assets) == {f"{number:032x}.png" for number in range(29 - reload.RETIRED, 30)}


def test_those_who_listen_hear_of_each_change() -> None:
    """
    The metrics make their series for every new catalog before it answers.
    """
    heard: list[int] = []
    live = LiveCatalog(lambda catalog: heard.append(catalog.version))
    document = a_document("one")
    for number in (1, 2):
        live.swap(version(number, document), Catalog(document, number), {})

    assert heard == [1, 2]


def test_a_data_directory_that_cannot_be_written_is_told(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Without room for the snapshot the version is served all the same.
    """
    settings = Settings(data_dir=str(tmp_path / "missing"), redis_url=server.url, config=str(SAMPLE))

    async def body(live: LiveCatalog) -> None:
        number = await publish(server, a_document("one"))
        await eventually(lambda: live.current.version == number)
        await eventually(lambda: "snapshot could not be saved" in caplog.text)

    following(settings, body)
