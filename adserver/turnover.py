"""The journal that a worker writes, and how it is followed by another while the worker goes on.

A journal is counted in its order, because it has one cursor. After an hour without a store the newest event would wait
behind all of that hour. So a worker that finds itself far behind begins a new journal and lets the old one go, as if it
had died: whoever adopts it counts it beside the live events, which never wait for it.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from adserver import metrics
from adserver.background import wait_for_any
from adserver.errors import JournalUnavailable
from adserver.journal import Journal, Ledger, NoJournal, create_journal

log = logging.getLogger(__name__)


class InUse:
    """The journal in use, one after the other; a stand-in where none can be made in *root*. Opens it; does I/O."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._progress = metrics.Progress()
        self._users: list[Callable[[Journal], None]] = []
        self.journal: Ledger
        try:
            self.journal = create_journal(root)
        except JournalUnavailable as error:
            log.error("events are not counted, ads are served all the same: %s", error)
            self.journal = NoJournal(str(error))
        else:
            self._watch(self.journal)

    def __repr__(self) -> str:
        return f"<InUse {self.journal!r}>"

    def handed_to(self, *users: Callable[[Journal], None]) -> None:
        """Have *users* told of each journal that follows."""
        self._users += users

    async def turn_over(self) -> None:
        """Go on in a new journal, and close the old one for whoever adopts it; stay with it if no other can be made."""
        old = self.journal
        assert isinstance(old, Journal)
        try:
            journal = await asyncio.to_thread(create_journal, self._root)
        except JournalUnavailable as error:
            log.warning("live events wait behind those of %s: %s", old.producer.hex(), error)
            return
        self._progress.tell(old.written, old.synced)
        self._progress = metrics.Progress()
        self._watch(journal)
        self.journal = journal
        for user in self._users:
            user(journal)
        log.info("%s goes on in %s, so that live events do not wait", old.producer.hex(), journal.producer.hex())
        await old.close()

    def _watch(self, journal: Journal) -> None:
        progress = self._progress

        def tell(seconds: float) -> None:
            """Before the shipper hears of the sync: whoever reads the metrics sees written >= synced >= shipped."""
            metrics.SYNC_SECONDS.observe(seconds)
            progress.tell(journal.written, journal.synced)

        journal.on_sync = tell

    async def watch(self, stopping: asyncio.Event) -> None:
        """Tell how much is written also while no sync succeeds."""
        while not stopping.is_set():
            await wait_for_any(0.25, stopping)
            self._progress.tell(self.journal.written, self.journal.synced)

    async def drain(self) -> None:
        if isinstance(self.journal, Journal):
            await self.journal.drain()

    async def close(self) -> None:
        if isinstance(self.journal, Journal):
            await self.journal.close()
