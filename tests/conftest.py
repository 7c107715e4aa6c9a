"""The order of the suite: files that take minutes begin first, so that none is left to one process at the end.

What takes long on a busy machine is no fault: examples have no deadline.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

_FIRST = ("tests/service/test_torture.py", "tests/service/", "tests/console/", "tests/page/", "tests/")


def pytest_configure(config: pytest.Config) -> None:
    if not os.geteuid() and not hasattr(config, "workerinput"):
        unmount_what_killed_runs_left()


def unmount_what_killed_runs_left() -> None:
    """A small disk that a killed run left mounted ends every later run: pytest fails to remove its directory."""
    mounts = Path("/proc/mounts")
    for line in mounts.read_text("utf-8").splitlines() if mounts.exists() else ():
        _, place, kind = line.split()[:3]
        run = re.match(r"(.*/pytest-of-[^/]+/(?:garbage|pytest)-[^/]+)/", place)
        if kind == "tmpfs" and run and not _goes_on(Path(run[1])):
            subprocess.run(["umount", place], check=False)


def _goes_on(run: Path) -> bool:
    """Whether the process that made a run's directory lives."""
    lock = run / ".lock"
    return run.name.startswith("pytest-") and lock.exists() and Path("/proc", lock.read_text().strip()).exists()


def _place(item: pytest.Item) -> int:
    return next((n for n, begins in enumerate(_FIRST) if item.nodeid.startswith(begins)), len(_FIRST))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)
