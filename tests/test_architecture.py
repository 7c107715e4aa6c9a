"""Who may import whom: a pure core, edges around it, one file that joins them, a supervisor and a command line."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "adserver"

# What only handles values. `zoneinfo` reads the time zones that come with the machine, and nothing else.
VALUES = (
    "base64 binascii bisect collections collections.abc datetime difflib enum functools hashlib heapq hmac html"
    " html.entities ipaddress itertools math operator random re statistics struct typing unicodedata urllib.parse"
    " zoneinfo msgspec"
)

# Every module, and which of our modules it may import, from the inside out.
CORE = {
    "model": "",
    "errors": "",
    "days": "",
    "steps": "",
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
    "context": "errors model places targeting",
    "places": "model",
    "events": "model",
    "documents": "errors fields model",
    "pauses": "documents hours model steps",
    "catalog": "documents hours model pauses steps targeting",
    "checks": "catalog documents errors fields hours model targeting",
    "traffic": "hours pauses",
    "pacing": "hours model pauses traffic",
    "lateness": "",
    "planner": "catalog days hours lateness model pacing pauses traffic",
    "decide": "catalog model pacing targeting",
    "explain": "catalog decide model pacing",
    "stakes": "catalog decide model pauses targeting",
    "receipts": "catalog decide errors model pacing stakes targeting",
    "forecast": "catalog days decide hours model pacing pauses targeting traffic",
    "whatif": "catalog checks documents errors forecast hours model pacing traffic",
    "simulate": "catalog days decide documents hours lateness model pacing planner traffic",
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
    "stills": "",
    "config_files": "stills",
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
    "publish": "config_files console.audit store versions",
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
    "delivered": "archive store",
    "ages": "store",
    "pacer": "ages archive background curves delivered metrics store",
    "caps": "metrics store",
    "chosen": "metrics store",
    "readers": "answers",
    "keeping": "background disk metrics",
    "answering": "answers caps keeping journal metrics pacer readers reload",
    "previews": "answering answers pacer reload store versions",
    "letters": "answering answers chosen reload tracking",
    "articles": "answering answers letters metrics previews",
    "serving": "answering answers letters previews",
    "tracking": "answers confirm direct invalid journal metrics reload seen",
    "loader": "",
    "methodology": "__init__ address_file invalid reload settings",
    "site": "answers articles previews reload settings store versions",
    "health": "address_file answers archive closing condition journal metrics neighbours reload reporting settings ship"
    " store",
}
# The sales console: edges in a package of their own, which nobody but those that join them imports.
CONSOLE = {
    "console.weeks": "",
    "console.apart": "",
    "console.web": "answering answers articles console.apart console.api_tokens console.audit console.desk"
    " console.people console.sessions console.signin console.sums console.typed console.words previews reload settings"
    " store",
    "console.sums": "archive background console.figures store",
    "console.slots": "console.booking console.bookings console.complaints console.desk console.drafts console.today"
    " console.web pacer previews versions",
    "console.shared_reports": "console.downloads console.figures console.report_links console.reports console.web"
    " reporting",
    "console.routes": "console.advertisers console.api console.bookings console.calendar console.creatives"
    " console.drafting console.importing console.pausing console.people console.reports console.shared_reports"
    " console.sheeting console.signing console.slots console.today console.web",
    "console.reports": "archive console.bookings console.downloads console.figures console.sums console.web reporting",
    "console.report_links": "console.audit console.unguessable store",
    "console.figures": "",
    "console.importing": "advanced_ads.kept advanced_ads.move answers console.web",
    "console.entries": "config_files console.drafts",
    "console.downloads": "console.sheet_files",
    "console.calendar": "console.bookings console.drafts console.web console.weeks console.words",
    "console.api": "answers config_files console.api_tokens console.audit console.bookings console.desk"
    " console.drafting console.drafts console.entries console.pausing console.pictures console.web console.words"
    " versions",
    "console.advertisers": "console.bookings console.complaints console.desk console.drafts console.report_links"
    " console.web console.words versions",
    "console.__init__": "",
    "console.opening": "",
    "console.typed": "",
    "console.unguessable": "",
    "console.audit": "store",
    "console.people": "console.audit store",
    "console.sessions": "console.people console.unguessable store",
    "console.links": "console.audit console.people console.unguessable store",
    "console.api_tokens": "console.audit console.people console.unguessable store",
    "console.throttle": "console.people store",
    "console.login": "console.audit console.people console.sessions console.throttle store",
    "console.signin": "console.audit console.people console.sessions console.throttle console.unguessable secret"
    " settings store",
    "console.drafts": "",
    "console.words": "console.drafts",
    "console.complaints": "console.drafts console.words",
    "console.booking": "console.complaints console.drafts console.pictures console.sheet_times console.words",
    "console.desk": "console.audit console.drafts console.people console.pictures console.words store versions",
    "console.today": "console.bookings console.reports console.web console.words",
    "console.uploads": "config_files console.desk console.pictures console.web versions",
    "console.bookings": "articles console.booking console.desk console.drafts console.pictures console.uploads"
    " console.web console.words site versions",
    "console.creatives": "console.booking console.bookings console.complaints console.desk console.drafts"
    " console.framing console.markup console.pictures console.uploads console.web console.words versions",
    "console.drafting": "articles console.booking console.bookings console.complaints console.desk console.drafts"
    " console.framing console.web console.words pacer previews readers site versions",
    "console.pausing": "console.booking console.bookings console.complaints console.desk console.drafts console.web"
    " console.words curves",
    "console.sheet_times": "",
    "console.sheet_files": "console.sheet_times",
    "console.targeting_words": "config_files",
    "console.sheeting": "console.bookings console.desk console.drafts console.people console.sheets console.web"
    " console.words",
    "console.signing": "console.api_tokens console.audit console.links console.login console.people console.sessions"
    " console.signin console.throttle console.web",
    "console.image_files": "",
    "console.avif_files": "console.image_files",
    "console.flashes": "",
    "console.framing": "",
    "console.rewriting": "config_files console.avif_files console.flashes console.image_files",
    "console.pictures": "config_files console.avif_files console.image_files console.rewriting stills",
    "console.markup": "",
    "console.sheets": "config_files console.booking console.complaints console.sheet_files console.sheet_times"
    " console.targeting_words",
}
# Moving from Advanced Ads: values in, files and a list out.
MOVING = {
    "advanced_ads.__init__": "",
    "advanced_ads.markup": "",
    "advanced_ads.kept": "advanced_ads.markup",
    "advanced_ads.conditions": "advanced_ads.kept",
    "advanced_ads.tags": "",
    "advanced_ads.creative": "advanced_ads.kept advanced_ads.tags config_files stills",
    "advanced_ads.move": "advanced_ads.conditions advanced_ads.creative advanced_ads.kept",
}
# For sites written in Python: a package that may be had without the service, and that the service does not know.
CLIENT = {
    "client.marks": "repair shortcode",
    "client.about": "",
    "client.outage": "",
    "client.line": "client.about client.marks client.outage",
    "client.__init__": "client.about client.line client.marks",
    "client.jinja": "client.__init__ client.marks",
    "client.django.__init__": "",
    "client.django.sites": "client.__init__",
    "client.django.apps": "client.django.sites",
    "client.django.middleware": "client.__init__ client.django.sites client.marks",
    "client.django.templatetags.__init__": "",
    "client.django.templatetags.adserver": "client.__init__",
}
CLIENT_OUTSIDE = {
    "client.line": {"httpx"},
    "client.__init__": {"markupsafe"},
    "client.jinja": {"jinja2", "markupsafe"},
    "client.django": {"django", "asgiref"},
}
JOINED = {
    "app": " ".join([*LEAVES, *EDGES]) + " console.opening console.routes console.signin console.sums console.web",
    "supervisor": "config_files console.links disk embedded http_speed logs metrics publish reload secret settings"
    " store versions address_file",
    "asking": "archive columns config_files console.desk console.drafts curves delivered keeping pacer publish settings"
    " store versions",
    "accounts": "asking columns console.api_tokens console.audit console.links console.people settings store",
    "importing": "advanced_ads.kept advanced_ads.move config_files settings",
    "cli": "__init__ accounts archive asking columns config_files importing publish reconcile reporting salvage"
    " settings store supervisor torture.command torture.manual",
    "__main__": "cli",
    "__init__": "",
}


def imports(module: str, *, at_once: bool = False) -> Iterator[str]:
    """What *module* imports by full name; *at_once* leaves out what it imports only when a function is called."""
    tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text("utf-8"))
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module in ("adserver", "adserver.console", "adserver.client"):
            found = list((PACKAGE.parent / node.module.replace(".", "/")).glob("*"))
            known = {path.stem for path in found if path.suffix == ".py"}
            packages = {path.name for path in found if (path / "__init__.py").exists()}
            for one in node.names:
                name = f"{one.name}.__init__" if one.name in packages else one.name
                yield f"{node.module}.{name if {one.name} & (known | packages) else '__init__'}"
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
    listed = [*CORE, *LEAVES, *EDGES, *MOVING, *CONSOLE, *CLIENT, *JOINED]
    files = [path.stem for path in PACKAGE.glob("*.py")]
    files += [f"{one}.{path.stem}" for one in ("advanced_ads", "console") for path in (PACKAGE / one).glob("*.py")]
    files += [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in (PACKAGE / "client").rglob("*.py")]
    assert sorted(listed) == sorted(files)


@pytest.mark.parametrize("module", CORE)
def test_the_core_handles_values_only(module: str) -> None:
    """
    A core module imports core modules below it, msgspec, and what only handles values; `render` also the sanitiser,
    and `fields` what reads the list of time zones that comes with tzdata.
    """
    outside = {name for name in imports(module) if not name.startswith("adserver.")}
    assert outside <= {*VALUES.split()} | {"render": {"nh3"}, "fields": {"importlib.resources"}}.get(module, set())
    assert ours(module) <= set(CORE[module].split())


@pytest.mark.parametrize("module", [*LEAVES, *EDGES, *MOVING, *CONSOLE, *JOINED])
def test_an_edge_imports_the_core_and_other_edges_only_along_the_arrows(module: str) -> None:
    """
    Besides the core, a module imports just those of ours that are written down for it here.
    """
    allowed = {**LEAVES, **EDGES, **MOVING, **CONSOLE, **JOINED}[module].split()
    assert ours(module) <= {*CORE, *allowed}


@pytest.mark.parametrize("module", CLIENT)
def test_the_client_stands_on_the_core_and_on_one_library_each(module: str) -> None:
    """
    A site needs no more of us than the reading of articles, and a template engine's module no other engine.
    """
    assert ours(module) <= set(CLIENT[module].split())
    outside = {name.split(".")[0] for name in imports(module) if not name.startswith("adserver.")}
    allowed = {one for name, few in CLIENT_OUTSIDE.items() if f"{module}.".startswith(f"{name}.") for one in few}
    assert outside - set(sys.stdlib_module_names) - {"msgspec"} <= allowed


def test_the_service_does_not_know_its_clients() -> None:
    """
    Nothing of the service imports the package for sites.
    """
    modules = [*CORE, *LEAVES, *EDGES, *MOVING, *CONSOLE, *JOINED]
    assert [one for one in modules if any(name.startswith("client") for name in ours(one))] == []


def test_only_the_command_line_knows_the_torture_and_only_when_asked_for_it() -> None:
    """
    The service runs without `adserver.torture`, and what is tortured is the service as it is.
    """
    modules = [*CORE, *LEAVES, *EDGES, *MOVING, *CONSOLE, *JOINED]
    assert [one for one in modules if any(name.startswith("torture") for name in ours(one))] == ["cli"]
    assert not any(name.startswith("torture") for name in ours("cli", at_once=True))
    assert ours("torture.manual", at_once=True) | ours("torture.broken", at_once=True) == {"torture.broken"}


def test_nobody_imports_the_app() -> None:
    """
    `app` is found by its name alone, in each worker; and only the command line imports `supervisor`, when it serves.
    """
    modules = [*CORE, *LEAVES, *EDGES, *MOVING, *CONSOLE, *JOINED]
    assert [one for one in modules if "app" in ours(one)] == []
    assert [one for one in modules if "supervisor" in ours(one)] == ["cli"]
    assert "supervisor" not in ours("cli", at_once=True)
    assert '"adserver.app:create_app"' in (PACKAGE / "supervisor.py").read_text("utf-8")
