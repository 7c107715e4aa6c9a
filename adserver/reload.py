"""Follows the live version: a worker's catalog is swapped whole, after it was read and compiled beside the requests.

A worker starts from the store, else from the snapshot on its disk, else from the config directory, so that it serves
also when the store is away. A store that has nothing (new, or wiped) is given what this worker has.
"""

import asyncio
import gc
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from adserver import metrics, versions
from adserver.background import in_steps, wait_for_any
from adserver.catalog import Ad, Catalog
from adserver.config_files import Files, read_config
from adserver.documents import Document
from adserver.errors import ConfigError, Conflict, StoreRefused, StoreUnavailable
from adserver.publish import read_assets
from adserver.settings import Settings
from adserver.steps import Steps, at_once
from adserver.store import Store, open_store
from adserver.versions import Version

log = logging.getLogger(__name__)

POLL_S = 0.5
_LET_GO = 20
"""Parts of a catalog that is gone in one step; some are tables of their own."""
RETIRED = 4
"""How many versions back a click still finds its creative: pages of the last hours carry their tokens."""


class Large(Protocol):
    """Something with so many parts that to let go of all at once would take long."""

    def parts(self) -> Iterator[list[Any]]: ...


class Retired(Struct, frozen=True):
    """What clicks still need of a catalog that is gone: the ads that the live one does not have, and names of files."""

    by_key: Mapping[bytes, Ad]
    assets: frozenset[str]

    def parts(self) -> Iterator[list[Any]]:
        yield list(self.by_key.values())


class LiveCatalog:
    """The catalog that answers requests now. Take `current` once per request."""

    def __init__(self, on_change: Callable[[Catalog], None] = lambda _: None) -> None:
        self.current = Catalog(Document(), 0)
        self.assets: dict[str, bytes] = {}
        self.preparing: list[Callable[[Catalog], Steps[None]]] = []
        """What is done with a catalog before it goes live, in steps beside the requests."""
        self.trouble: str | None = None
        self.confirmed = False
        """Whether the store was seen to hold this very version: it may have another one under the same number."""
        self.leaving: list[Large] = []
        """Catalogs that are gone, and what was made of them: to be let go of bit by bit."""
        self._version: Version | None = None
        self._retired: list[Catalog | Retired] = []
        self._on_change = on_change

    def __repr__(self) -> str:
        return f"<LiveCatalog {self.current!r}>"

    @property
    def loaded(self) -> bool:
        return self._version is not None

    @property
    def version(self) -> Version | None:
        return self._version

    def find(self, key: bytes) -> Ad | None:
        """The ad with *key*, in this version or in one that was live a little earlier."""
        for catalog in (self.current, *reversed(self._retired)):
            if ad := catalog.by_key.get(key):
                return ad
        return None

    def swap(self, version: Version, catalog: Catalog, assets: dict[str, bytes]) -> None:
        if self.loaded and catalog is not self.current:
            self._retired.append(self.current)
            while len(self._retired) > RETIRED:
                self.leaving.append(self._retired.pop(0))
        named = {name for one in (catalog, *self._retired) for name in one.assets}
        self.assets = {name: data for name, data in {**self.assets, **assets}.items() if name in named}
        self._version = version
        self.current = catalog
        self._on_change(catalog)
        metrics.CATALOG_VERSION.set(version.number)

    def retiring(self) -> Steps[None]:
        """Keep of catalogs that are gone what the live one does not have, and let go of the rest."""
        for at, old in enumerate(self._retired):
            if isinstance(old, Catalog):
                ads = yield from old.missing_from(self.current)
                self._retired[at] = Retired(ads, old.assets)
                self.leaving.append(old)
        yield from letting_go(self.leaving)


def snapshot_path(settings: Settings) -> Path:
    return settings.data / "catalog.json"


async def load_first(live: LiveCatalog, settings: Settings) -> None:
    """Give *live* its first catalog: of the store, the snapshot or the files. Raises ConfigError when none will do."""
    try:
        async with open_store(settings.store_url) as store:
            if await _follow(live, store, settings):
                return
    except (StoreUnavailable, StoreRefused) as error:
        live.trouble = str(error)
    if await asyncio.to_thread(_load_snapshot, live, settings):
        return
    files = await asyncio.to_thread(read_config, Path(settings.config))
    live.swap(_first_version(files), Catalog(files.document, 1), files.assets)


def _first_version(files: Files) -> Version:
    return Version(
        number=1, author="config", at=time.time(), note="seeded from the config directory", document=files.document
    )


async def follow_loop(live: LiveCatalog, settings: Settings, stopping: asyncio.Event) -> None:
    """Swap in every version that becomes live, within POLL_S; ride out a store that is away."""
    while not stopping.is_set():
        try:
            async with open_store(settings.store_url) as store:
                live.confirmed = False
                while not stopping.is_set():
                    if not await _follow(live, store, settings):
                        await _seed(live, store)
                    live.trouble = None
                    await wait_for_any(POLL_S, stopping)
        except (StoreUnavailable, StoreRefused, ConfigError) as error:
            if live.trouble != str(error):
                log.warning("kept catalog version %d: %s", live.current.version, error)
            live.trouble = str(error)
            await wait_for_any(POLL_S, stopping)


async def _follow(live: LiveCatalog, store: Store, settings: Settings) -> bool:
    """Have *live* serve the store's live version; False when the store has none."""
    await in_steps(live.retiring())
    number = await versions.live_number(store)
    if number == 0:
        live.confirmed = False
        return False
    if live.confirmed and number == live.current.version:
        return True
    data = await versions.read_raw(store, number)
    if data is None:
        raise StoreRefused(f"version {number} is live, and the store does not have it; publish again")
    with _no_garbage():
        version = await in_steps(versions.decoding(data))
        same = number == live.current.version and version.document == live.current.document
        catalog = live.current if same else await in_steps(_preparing(live, version, number))
    assets = await _fetch_assets(live, store, settings, catalog)
    live.swap(version, catalog, assets)
    live.confirmed = True
    if not same:
        log.info("catalog version %d is live: %s", number, version.note)
    await asyncio.to_thread(_save_snapshot, data, live.assets, settings)
    return True


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Have no garbage looked for meanwhile: what a large catalog is made of lives until the next one comes, and to look
    through it takes long.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def letting_go(leaving: list[Large]) -> Steps[None]:
    """Let go of each of them, a little at a time: to do so at once takes 40 ms for 100,000 line items."""
    while leaving:
        parts = []
        for part in leaving[-1].parts():
            parts.append(part)
            yield
        leaving.pop()
        yield
        for part in parts:
            while part:
                del part[-_LET_GO:]
                yield


def _preparing(live: LiveCatalog, version: Version, number: int) -> Steps[Catalog]:
    """Raises StoreRefused for a document that is no catalog: somebody wrote it past the checks."""
    try:
        catalog = yield from Catalog.making(version.document, number)
    except (KeyError, ValueError, TypeError) as error:
        raise StoreRefused(f"version {number} cannot be served, it names what it does not hold: {error}") from error
    for prepare in live.preparing:
        yield from prepare(catalog)
    return catalog


async def _fetch_assets(live: LiveCatalog, store: Store, settings: Settings, catalog: Catalog) -> dict[str, bytes]:
    missing = catalog.assets - live.assets.keys()
    found = await asyncio.to_thread(_load_assets, settings, missing)
    found |= await read_assets(store, missing - found.keys())
    if lost := missing - found.keys():
        log.error(
            "%d images of version %d are missing, such as %s; publish again", len(lost), catalog.version, min(lost)
        )
    return found


async def _seed(live: LiveCatalog, store: Store) -> None:
    """Publish what this worker serves to a store that has nothing."""
    version = live.version
    if version is None:
        return
    try:
        wanted = {name: data for name, data in live.assets.items() if name in live.current.assets}
        await versions.publish(store, version, wanted, 0)
        log.info("the store had no catalog; it was given version %d", version.number)
    except Conflict:
        return  # another worker was first


# The snapshot on disk


def _save_snapshot(data: bytes, assets: dict[str, bytes], settings: Settings) -> None:
    try:
        folder = settings.data / "assets"
        folder.mkdir(mode=0o700, exist_ok=True)
        for name, image in assets.items():
            if not (folder / name).exists():
                _replace(folder / name, image)
        _replace(snapshot_path(settings), data)
    except OSError as error:
        log.warning("the catalog snapshot could not be saved: %s", error)


def _replace(path: Path, data: bytes) -> None:
    """Write *path* so that a reader finds the old bytes or the new ones, also after a power cut."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _load_snapshot(live: LiveCatalog, settings: Settings) -> bool:
    try:
        version = versions.decode(snapshot_path(settings).read_bytes())
        catalog = at_once(_preparing(live, version, version.number))
    except FileNotFoundError:
        return False
    except (OSError, StoreRefused) as error:
        log.warning("the catalog snapshot cannot be used: %s", error)
        return False
    live.swap(version, catalog, _load_assets(settings, catalog.assets))
    log.info("catalog version %d is served from the snapshot on disk", version.number)
    return True


def _load_assets(settings: Settings, names: frozenset[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in names:
        try:
            found[name] = (settings.data / "assets" / name).read_bytes()
        except OSError:
            continue
    return found
