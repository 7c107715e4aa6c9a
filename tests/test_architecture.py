"""Who may import whom: a pure core, edges around it, one file that joins them, a supervisor and a command line."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "adserver"

# What only handles values. `zoneinfo` reads the time zones that come with the machine, and nothing else.
VALUES = (
    "base64 binascii bisect collections collections.abc datetime difflib enum functools hashlib hmac html html.entities"
    " ipaddress itertools math random re statistics struct typing unicodedata urllib.parse zoneinfo msgspec"
)

# Every module, and which of our modules it may import, from the inside out.
CORE = {
    "model": "",
    "errors": "",
    "days": "",
    "retention": "days token",
    "shortcode": "",
    "repair": "shortcode",
    "hours": "",
    "targeting": "model",
    "fields": "errors hours model",
    "store_url": "",
    "token": "errors",
    "networks": "errors",
    "rate": "",
    "context": "errors model targeting",
    "events": "model",
    "documents": "errors fields model",
    "catalog": "documents errors hours model targeting",
    "pacing": "model",
    "traffic": "hours",
    "planner": "catalog days hours model pacing traffic",
    "decide": "catalog model pacing targeting",
    "explain": "catalog decide model pacing",
    "receipts": "catalog decide model pacing targeting",
    "forecast": "catalog days decide hours model pacing targeting traffic",
    "whatif": "catalog documents errors forecast model traffic",
    "simulate": "catalog days decide documents hours model pacing planner traffic",
    "capping": "catalog model",
    "devices": "",
    "render": "catalog model",
    "tally": "events",
    "report": "days events",
    "openapi": "__init__ model report",
}
LEAVES = {
    "columns": "",
    "metrics": "",
    "settings": "",
    "background": "",
    "logs": "",
    "address_file": "background",
    "invalid": "address_file",
    "seen": "",
    "http_limits": "",
    "http_speed": "http_limits",
    "config_files": "",
    "embedded": "",
    "disk": "",
}
EDGES = {
    "segments": "disk",
    "syncing": "disk",
    "journal": "disk segments syncing",
    "reader": "segments",
    "salvage": "disk reader segments",
    "adoption": "disk reader salvage segments",
    "archive": "",
    "store": "",
    "secret": "settings",
    "neighbours": "background store",
    "versions": "store",
    "publish": "config_files store versions",
    "reload": "background config_files metrics publish settings store versions",
    "reporting": "archive reader store versions",
    "ship": "adoption archive background disk journal metrics reader store",
    "closing": "adoption archive background disk metrics reader salvage ship store",
    "reconcile": "archive reader salvage segments store",
    "turnover": "background journal metrics",
    "confirm": "background journal ship store",
    "direct": "background store",
    "condition": "background disk metrics salvage segments",
    "answers": "metrics",
    "forwarded": "answers",
    "curves": "store",
    "delivered": "store",
    "pacer": "background curves delivered metrics store",
    "caps": "metrics store",
    "readers": "answers",
    "keeping": "background metrics",
    "answering": "answers caps keeping journal metrics pacer readers reload",
    "previews": "answering answers pacer reload store versions",
    "articles": "answering answers metrics previews",
    "serving": "answering answers previews",
    "tracking": "answers confirm direct invalid journal metrics reload seen",
    "methodology": "__init__ address_file invalid reload settings",
    "site": "answers articles previews reload settings",
    "health": "address_file answers archive closing condition journal metrics neighbours reload reporting settings ship"
    " store",
}
JOINED = {
    "app": " ".join([*LEAVES, *EDGES]),
    "supervisor": "config_files disk embedded http_speed logs metrics publish reload secret settings store versions"
    " address_file",
    "asking": "columns config_files curves delivered keeping pacer publish settings store versions",
    "cli": "__init__ archive asking columns config_files publish reconcile reporting salvage settings store supervisor"
    " torture.command torture.manual",
    "__main__": "cli",
    "__init__": "",
}


def imports(module: str, *, at_once: bool = False) -> Iterator[str]:
    """What *module* imports by full name; *at_once* leaves out what it imports only when a function is called."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "adserver":
            known = {path.stem for path in PACKAGE.glob("*.py")}
            yield from (f"adserver.{one.name}" if one.name in known else "adserver.__init__" for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            yield node.module or ""


def ours(module: str, *, at_once: bool = False) -> set[str]:
    names = imports(module, at_once=at_once)
    return {name.removeprefix("adserver.") for name in names if name.startswith("adserver.")}


def test_every_module_has_its_place() -> None:
    """
    Each file is listed once: as core, leaf, edge, or one of the few that join them.
    """
    listed = [*CORE, *LEAVES, *EDGES, *JOINED]
    assert sorted(listed) == sorted(path.stem for path in PACKAGE.glob("*.py"))


@pytest.mark.parametrize("module", CORE)
def test_the_core_handles_values_only(module: str) -> None:
    """
    A core module imports core modules below it, msgspec, and what only handles values; `render` also the sanitiser.
    """
    outside = {name for name in imports(module) if not name.startswith("adserver.")}
    assert outside <= {*VALUES.split()} | ({"nh3"} if module == "render" else set())
    assert ours(module) <= set(CORE[module].split())


@pytest.mark.parametrize("module", [*LEAVES, *EDGES, *JOINED])
def test_an_edge_imports_the_core_and_other_edges_only_along_the_arrows(module: str) -> None:
    """
    Besides the core, a module imports just those of ours that are written down for it here.
    """
    allowed = {**LEAVES, **EDGES, **JOINED}[module].split()
    assert ours(module) <= {*CORE, *allowed}


def test_only_the_command_line_knows_the_torture_and_only_when_asked_for_it() -> None:
    """
    The service runs without `adserver.torture`, and what is tortured is the service as it is.
    """
    modules = [*CORE, *LEAVES, *EDGES, *JOINED]
    assert [one for one in modules if any(name.startswith("torture") for name in ours(one))] == ["cli"]
    assert not any(name.startswith("torture") for name in ours("cli", at_once=True))
    assert ours("torture/manual", at_once=True) | ours("torture/broken", at_once=True) == {"torture.broken"}


def test_nobody_imports_the_app() -> None:
    """
    `app` is found by its name alone, in each worker; and only the command line imports `supervisor`, when it serves.
    """
    modules = [*CORE, *LEAVES, *EDGES, *JOINED]
    assert [one for one in modules if "app" in ours(one)] == []
    assert [one for one in modules if "supervisor" in ours(one)] == ["cli"]
    assert "supervisor" not in ours("cli", at_once=True)
    assert '"adserver.app:create_app"' in (PACKAGE / "supervisor.py").read_text("utf-8")
