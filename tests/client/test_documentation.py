"""The examples in docs/integrations.md are run as they stand, in their order."""

import re
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from adserver import client
from adserver.client.about import NAMES
from tests.client import sites  # noqa: F401 - configures Django
from tests.client.sites import PAGES
from tests.service.live import REPOSITORY, Service

DOCUMENT = (REPOSITORY / "docs" / "integrations.md").read_text("utf-8")
EXAMPLES = re.findall(r"```(\w+)\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_python_examples_run(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Each block of Python in the documentation does what it is there for: it makes a page with an ad in it.
    """
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"INSTALLED_APPS": [], "MIDDLEWARE": []}
    clients = []
    for language, example in EXAMPLES:
        if language != "python":
            continue
        names.pop("html", None)
        patient = example.replace('Client("http://127.0.0.1:8000")', f'Client("{service.url}", budget_s=20)')
        exec(patient.replace("http://127.0.0.1:8000", service.url), names)
        clients += [one for one in (names.get("ads"), getattr(names.get("environment"), "adserver", None)) if one]
        if "html" in names:
            assert "<aside" in names["html"], example
            assert "[the_ad" not in names["html"], example
    assert names["ADSERVER"]["url"] == service.url
    check_feed(names["feed"], service)
    for one in clients:
        with closing(one):
            pass


class Addresses(HTMLParser):
    """What an item of a feed is made of, and where it leads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.leads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.leads += [value or "" for name, value in attrs if name in ("href", "src")]


def check_feed(feed: str, service: Service) -> None:
    """The feed is one, and its item holds the article with an ad that any reader of feeds can show."""
    rss = ElementTree.fromstring(feed)
    (item,) = rss.findall("channel/item")
    html = item.findtext("{http://purl.org/rss/1.0/modules/content/}encoded") or ""
    found = Addresses(html)
    assert html.startswith("<p>News.</p>")
    assert found.tags == ["p", "small", "br", "a", "img"]
    link, picture = found.leads
    assert picture == f"{link}.img"
    assert link.startswith(f"{service.url}/e/889990/")
    assert service.http.get(picture).headers["content-type"].startswith("image/")
    assert service.http.get(link).status_code == 302


def test_the_templates_are_those_that_are_tested() -> None:
    """
    Tags and filter are spelled in the documentation as they are in the tests' own pages.
    """
    shown = "".join(example for language, example in EXAMPLES if language in ("jinja", "django"))
    tags = set(re.findall(r"{% (\w+)", shown)) - {"load"}
    assert tags == {"ad", "ad_group", "ad_placement"} <= set(re.findall(r"{% (\w+)", "".join(PAGES.values())))


def test_everything_a_page_may_say_is_described() -> None:
    """
    The table of what a page says of itself has every name there is, and no other.
    """
    table = DOCUMENT.split("### What a page says of itself")[1].split("\n## ")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    assert set(named) == NAMES
    assert client.Client.__doc__


def test_nobody_is_told_to_install_somebody_elses_package() -> None:
    """
    No index has this service, so a name without a path would be whoever takes it.
    """
    documents = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    commands = [
        line
        for one in documents
        for line in re.findall(r"(?:pip|uv|pipx)[^\n]* (?:install|add)\b.*", one.read_text("utf-8"))
    ]
    named = [one for line in commands for one in re.findall(r"\S*adserver(?:\[\w+\])?(?=['`\s]|$)", line)]
    assert len(named) >= 2
    assert [one for one in named if "/" not in one] == []


@pytest.mark.parametrize("name", ["nginx", "Varnish", "Apache"])
def test_an_include_in_the_documentation_is_one_of_the_example_page(name: str) -> None:
    """
    What the documentation tells to write stands in the page that is tested, up to its query.
    """
    page = (REPOSITORY / "integrations" / name.lower() / "page.html").read_text("utf-8")
    section = DOCUMENT.split(f"\n## {name}\n")[1].split("\n## ")[0]
    (include,) = re.findall(r"```html\n(.*?)```", section, re.DOTALL)
    assert include.split("?")[0] in page
