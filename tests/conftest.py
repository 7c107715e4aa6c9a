"""The order of the suite: files that take minutes begin first, so that none is left to one process at the end.

What takes long on a busy machine is no fault: examples have no deadline.
"""

import pytest
from hypothesis import settings

settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

_FIRST = ("tests/service/test_torture.py", "tests/service/", "tests/console/", "tests/page/", "tests/")


def _place(item: pytest.Item) -> int:
    return next((n for n, begins in enumerate(_FIRST) if item.nodeid.startswith(begins)), len(_FIRST))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)
