"""Publishing and exporting, against real servers."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from adserver import versions
from adserver.config_files import Files, read_config, write_config
from adserver.console import audit
from adserver.documents import Document
from adserver.errors import Conflict, StoreRefused
from adserver.model import Cap, Goal, Measure, Priority, SlotId, Targeting, Terms
from adserver.publish import Published, difference, export, publish_files
from adserver.store import Store, open_store
from adserver.versions import KEY, Version
from tests import make
from tests.edges.servers import Server

ROOT = Path(__file__).parent.parent.parent
Run = Callable[[Callable[[Store], Awaitable[Any]]], Any]


def files(document: Document, exported_from: int | None = None, assets: dict[str, bytes] | None = None) -> Files:
    return Files(document, assets or {}, exported_from)


ONE = make.document(make.line_item("sale"), creatives=[make.creative("sale-loaf", image=None, image_size=None)])
TWO = make.document(make.line_item("sale", weight=2.0), make.line_item("more"))


def ask(server: Server, *command: Any) -> Any:
    with server.client() as client:
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


async def publish(store: Store, given: Files, **options: Any) -> Published:
    return await publish_files(store, given, author="ann", note="because", **options)


def test_the_first_version_is_number_one(with_store: Run) -> None:
    """
    An empty store takes files that name no version; publishing the same again changes nothing.
    """

    async def body(store: Store) -> None:
        assert await versions.live_number(store) == 0
        done = await publish(store, files(ONE))
        assert (done.number, done.overwrote) == (1, None)
        assert "adds slot 889990" in done.changes
        assert await publish(store, files(ONE)) == Published(1, [])
        live = await versions.read_version(store, 1)
        assert live
        assert (live.number, live.author, live.note, live.origin, live.document) == (1, "ann", "because", "files", ONE)

    with_store(body)


def test_the_audit_log_tells_what_files_published(with_store: Run) -> None:
    """
    Who applied which version, why, and what that changed; what changed nothing leaves no entry.
    """

    async def body(store: Store) -> None:
        await publish(store, files(ONE))
        await publish(store, files(ONE))
        await publish(store, files(TWO))
        latest, first = (noted.entry for noted in (await audit.read(store)).entries)
        assert (first.who, first.what, first.subject) == ("ann", "publishes files", "version 1")
        assert latest.subject == "version 2"
        assert latest.detail.startswith("because: ")
        assert "adds line item 'more'" in latest.detail

    with_store(body)


def test_a_difference_is_told_in_words() -> None:
    """
    What is added, removed, changed from what to what, and put in another order.
    """
    before = make.document(make.line_item("a"), make.line_item("b"), slots=[make.slot(1, name="Top")])
    after = make.document(make.line_item("b", weight=3.0), make.line_item("c"), slots=[make.slot(1, name="Head")])

    said = difference(before, after)

    assert "adds line item 'c'" in said
    assert "removes line item 'a'" in said
    assert "changes line item 'b': weight from 1.0 to 3.0" in said
    assert 'changes slot 1: name from "Top" to "Head"' in said
    assert difference(before, before) == []
    paused = msgspec.structs.replace(before, pauses=(make.pause("crash", category="airline"),))
    assert difference(before, paused) == ["adds pause 'crash'"]
    assert difference(paused, before) == ["removes pause 'crash'"]
    shuffled = msgspec.structs.replace(before, line_items=before.line_items[::-1])
    assert difference(before, shuffled) == ["puts the line items in another order"]
    long = msgspec.structs.replace(before, site=make.site(name="x" * 5000))
    assert all(len(sentence) < 400 for sentence in difference(before, long))


CHANGES = [
    ({"frequency": (Cap(3, 86_400),)}, 'frequency from nothing to ["3 per day"]'),
    ({"frequency": (Cap(1, 21_600), Cap(9, 604_800))}, 'frequency from nothing to ["1 per 6 hours", "9 per week"]'),
    ({"goal": Goal(1_000, Measure.CLICKS, daily=True)}, 'goal from nothing to { clicks = 1000, per = "day" }'),
    ({"ends": make.NOON}, "ends from nothing to 2026-03-02T13:00:00+01:00"),
    ({"slots": (make.SLOT, SlotId(5))}, "slots from [889990] to [889990, 5]"),
    ({"priority": Priority.HOUSE}, 'priority from "standard" to "house"'),
    (
        {"targeting": Targeting(any=Terms(section=tuple(f"section-{n}" for n in range(40)), keys={"team": ("ajax",)}))},
        "targeting from nothing to { any = { section = ["
        + ", ".join(f'"section-{n}"' for n in range(40))
        + '], keys = { team = ["ajax"] } } }',
    ),
]


@pytest.mark.parametrize(("fields", "said"), CHANGES)
def test_a_changed_field_is_told_as_a_file_has_it(fields: dict[str, Any], said: str) -> None:
    """
    Whole, on one line; instants are the newsroom's.
    """
    before, after = make.document(make.line_item("a")), make.document(make.line_item("a", **fields))
    told = [one for one in difference(before, after) if one.startswith("changes line item")]
    assert told == [f"changes line item 'a': {said}"]


def test_files_that_name_another_version_are_a_conflict(with_store: Run) -> None:
    """
    Live has moved on since the export: nothing changes, and the sentence says what to do; --force overwrites.
    """

    async def body(store: Store) -> None:
        await publish(store, files(ONE))
        await publish(store, files(TWO, exported_from=1))
        with pytest.raises(Conflict, match=r"version 2 is live.*from version 1.*adserver export.*--force"):
            await publish(store, files(ONE, exported_from=1))
        assert await versions.live_number(store) == 2
        done = await publish(store, files(ONE, exported_from=1), force=True)
        assert (done.number, done.overwrote) == (3, 2)
        live = await versions.read_version(store, 3)
        assert live
        assert live.document == ONE
        old = await versions.read_version(store, 2)
        assert old
        assert old.document == TWO

    with_store(body)


def test_files_never_overwrite_the_console_by_accident(with_store: Run) -> None:
    """
    Files that name no version may follow files; what the console published they may not overwrite.
    """

    async def body(store: Store) -> None:
        console = Version(number=1, author="bob", at=1.0, note="", document=TWO, origin="console")
        await versions.publish(store, console, {}, 0)
        with pytest.raises(Conflict, match="no version of it"):
            await publish(store, files(ONE))
        assert (await publish(store, files(ONE, exported_from=1))).number == 2

    with_store(body)


def test_of_two_that_publish_at_once_one_wins(server: Server) -> None:
    """
    The other hears a conflict; numbers are never used twice.
    """

    async def one(n: int) -> object:
        async with open_store(server.url) as store:
            document = make.document(make.line_item(f"item-{n}"))
            try:
                return (await publish(store, files(document))).number
            except Conflict as error:
                return error

    async def main() -> list[object]:
        return await asyncio.gather(*(one(n) for n in range(8)))

    outcomes = asyncio.run(main())

    numbers = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert numbers
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert int(ask(server, "HGET", KEY, "live")) == len(numbers)


def test_an_export_reads_back_as_what_is_live(with_store: Run, tmp_path: Path) -> None:
    """
    The sample, published, exported, and read again: nothing differs, and the files name the version they come from.
    """
    sample = read_config(ROOT / "config")

    async def body(store: Store) -> None:
        assert await export(store) is None
        await publish(store, sample)
        found = await export(store)
        assert found
        version, assets = found
        write_config(tmp_path / "out", version.document, assets, version.number)
        again = read_config(tmp_path / "out")
        assert again == Files(sample.document, sample.assets, 1)
        assert await publish(store, again) == Published(1, [])

    with_store(body)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"nonsense",
        b"\xff\xfe",
        b'{"number": 1',
        b'{"number":1,"author":"\xff","at":1,"note":"","document":{}}',
        b'{"number":1,"author":"a","at":1,"note":"","document":{"slots":5}}',
        b'{"number":1,"author":"a","at":NaN,"note":"","document":{}}',
        b'{"x":' + b"[" * 100_000,
        b'{"number":1,"author":"a","at":1,"note":"","document":{"slots":[]},"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_a_version_that_is_none_is_refused(with_store: Run, server: Server, data: bytes) -> None:
    """
    Whatever somebody wrote under our key: a sentence that names it, never another failure.
    """
    ask(server, "HSET", KEY, "live", 1, "v:1", data)

    async def body(store: Store) -> None:
        with pytest.raises(StoreRefused, match="cannot read"):
            await versions.read_version(store, 1)

    with_store(body)


def test_a_live_number_that_is_none_is_refused(with_store: Run, server: Server) -> None:
    """
    Nothing is published over what we do not understand.
    """
    ask(server, "HSET", KEY, "live", "abc")

    async def body(store: Store) -> None:
        with pytest.raises(StoreRefused, match="not a version number"):
            await publish(store, files(ONE))

    with_store(body)
    assert ask(server, "HGET", KEY, "live") == b"abc"


def test_publishing_is_one_write(with_store: Run, server: Server) -> None:
    """
    Document and pointer appear in one HSET; images are there before.
    """
    data = b"bytes of an image"
    name = f"{__import__('hashlib').blake2b(data, digest_size=16).hexdigest()}.png"

    async def body(store: Store) -> None:
        ask(server, "CONFIG", "RESETSTAT")
        await publish(store, files(ONE, assets={name: data}))
        with server.client() as client:
            stats = client.info("commandstats")
        assert stats["cmdstat_hset"]["calls"] == stats["cmdstat_set"]["calls"] == 1
        assert await versions.read_asset(store, name) == data

    with_store(body)


def test_an_image_under_a_wrong_name_is_not_taken(with_store: Run, server: Server) -> None:
    """
    Its bytes must have the hash that its name says, and its name must be one.
    """
    data = b"bytes of an image"
    digest = __import__("hashlib").blake2b(data, digest_size=16).hexdigest()
    for name in (f"{'0' * 32}.png", f"{digest}./../../x.png", f"{digest}", "../x.png"):
        ask(server, "SET", f"as:{{asset:{name}}}", data)

    async def body(store: Store) -> None:
        for name in (f"{'0' * 32}.png", f"{digest}./../../x.png", f"{digest}", "../x.png"):
            assert await versions.read_asset(store, name) is None

    with_store(body)


def as_lines(version: Version) -> bytes:
    """A large version as it was stored before each part was apart: lines of JSON, compressed together."""
    items = version.document.line_items
    head = structs.replace(version, document=structs.replace(version.document, line_items=items[:500]))
    parts = (items[start : start + 500] for start in range(500, len(items), 500))
    return zlib.compress(b"\n".join([msgspec.json.encode(head), *map(msgspec.json.encode, parts)]), 1)


@pytest.mark.parametrize("n", [500, 501, 2_101])
def test_a_large_version_that_was_stored_as_lines_is_read(n: int) -> None:
    """
    The format before this one: whole, and refused where it is damaged.
    """
    many = make.document(*(make.line_item(f"item-{at}", creatives=("loaf",)) for at in range(n)))
    version = Version(number=1, author="ann", at=1.0, note="", document=many)
    data = as_lines(version)
    assert data[:1] == b"x"
    assert versions.decode(data) == version
    for damaged in (data[:-100], data[:50] + b"\0" + data[51:], zlib.compress(b"{}\n[]"), zlib.compress(b"")):
        with pytest.raises(StoreRefused, match="cannot read"):
            versions.decode(damaged)


def test_a_large_version_is_kept_in_parts(with_store: Run) -> None:
    """
    Thousands of line items come back as they were, in less room than their JSON; damaged they are refused.
    """
    many = make.document(*(make.line_item(f"item-{n}", creatives=("loaf",)) for n in range(2_101)))
    many = msgspec.structs.replace(many, pauses=(make.pause(line_item="item-7"), make.pause("b", section="sport")))
    version = Version(number=1, author="ann", at=1.0, note="", document=many)
    data = versions.encode(version)
    assert versions.decode(data) == version
    assert len(data) < len(msgspec.json.encode(version)) / 5
    for damaged in (data[:-100], data[:50] + b"\0" + data[51:], b"x"):
        with pytest.raises(StoreRefused, match="cannot read"):
            versions.decode(damaged)

    async def body(store: Store) -> None:
        await versions.publish(store, version, {}, 0)
        assert await versions.read_version(store, 1) == version
        assert await versions.read_version_at(store, 0.5) is None
        assert await versions.read_version_at(store, 2.0) == version

    with_store(body)
