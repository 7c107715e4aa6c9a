"""The journal against a list, whatever is done to it and in whatever order."""

import asyncio
import errno
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from adserver import syncing
from adserver.adoption import adopt_dead
from adserver.journal import Journal, create_journal
from adserver.reader import Reader
from adserver.segments import HEADER, RECORD
from tests.edges.journals import (
    HandledKernel,
    put,
    read_all,
    serials,
)


class AgainstAList(RuleBasedStateMachine):
    """Append, sync, fail, cut and reopen in any order: the journal holds what a list holds."""

    @initialize(room=st.integers(1, 9), by_kernel=st.booleans())
    def begin(self, room: int, by_kernel: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.root = Path(tempfile.mkdtemp(prefix="ads-"))
        self.room = room
        self.real, self.real_kernel = os.fdatasync, syncing._open_kernel
        syncing._open_kernel = lambda: HandledKernel(asyncio.get_running_loop()) if by_kernel else None
        self.expected: list[int] = []
        self.dead: dict[Path, list[int]] = {}
        self.open()

    def open(self) -> None:
        async def make() -> Journal:
            return create_journal(self.root, segment_bytes=HEADER + self.room * RECORD)

        self.journal = self.loop.run_until_complete(make())
        self.expected = []

    def failing(self, fd: int) -> None:
        os.fdatasync = self.real
        raise OSError(errno.EIO, "Input/output error")

    @rule(values=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
    def append(self, values: list[int]) -> None:
        async def body() -> None:
            for value in values:
                self.expected.append(value)
                assert put(self.journal, value) == len(self.expected)

        self.loop.run_until_complete(body())

    @rule(fail=st.booleans())
    def sync(self, fail: bool) -> None:
        async def body() -> None:
            if fail:
                os.fdatasync = self.failing  # type: ignore[assignment]
            await asyncio.wait_for(self.journal.wait_synced(), 5)
            assert self.journal.synced == len(self.expected)

        try:
            self.loop.run_until_complete(body())
        finally:
            os.fdatasync = self.real

    @rule(turns=st.integers(1, 5))
    def turn(self, turns: int) -> None:
        async def body() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(body())

    @precondition(lambda self: hasattr(self, "journal"))
    @rule(torn=st.integers(0, RECORD - 1))
    def reopen(self, torn: int) -> None:
        """Close, as a crash would have left it in the middle of the next record, and begin a new one."""
        self.loop.run_until_complete(self.journal.close())
        directory = self.journal.directory
        newest = max(directory.glob("*.seg"))
        with newest.open("ab") as file:
            file.write(b"\xa5" * torn)
        self.dead[directory] = self.expected
        self.open()
        adopted, refused = adopt_dead(self.root, set())
        assert not refused
        for one in adopted:
            assert one.last == len(self.dead[one.reader.directory])
            one.close()

    @invariant()
    def the_journal_holds_what_the_list_holds(self) -> None:
        if hasattr(self, "journal"):
            assert serials(read_all(self.journal.directory)) == self.expected
            for directory, expected in self.dead.items():
                assert serials(read_all(directory)) == expected

    @invariant()
    def memory_says_what_the_files_say(self) -> None:
        if hasattr(self, "journal"):
            synced = self.journal.synced
            reader = Reader(self.journal.directory)
            for after in range(synced + 1):
                recent = self.journal.recent(after, 3)
                assert recent is None or recent == reader.read_block(after, synced, 3)
            assert self.journal.recent(synced, 3) is None

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.loop.run_until_complete(self.journal.close())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            syncing._open_kernel = self.real_kernel
            shutil.rmtree(self.root)


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=15, stateful_step_count=15, suppress_health_check=list(HealthCheck))
