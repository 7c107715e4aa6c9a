"""What Lighthouse looks at, on the same article with ads and without: ads make none of it worse."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]

from tests.page.conftest import COLLAPSES, SIX, Reader, placeholder
from tests.page.test_layout import SHIFTS

pytestmark = pytest.mark.system

WATCH = (
    SHIFTS
    + """
    window.largest = null;
    new PerformanceObserver((list) => {
        for (const one of list.getEntries()) window.largest = one.element ? one.element.id || one.element.tagName : "";
    }).observe({type: "largest-contentful-paint", buffered: true});
    window.bad = [];
    const write = document.write;
    document.write = (...text) => { window.bad.push("document.write"); return write.apply(document, text); };
    const listen = EventTarget.prototype.addEventListener;
    EventTarget.prototype.addEventListener = function (name, heard, how) {
        const passive = typeof how === "object" && how !== null && how.passive;
        if (name === "unload" || name === "beforeunload") window.bad.push(name);
        if (/^(touchstart|touchmove|wheel|mousewheel)$/.test(name) && !passive) window.bad.push(`${name}, not passive`);
        return listen.call(this, name, heard, how);
    };
    new ReportingObserver((reports) => {
        for (const one of reports) window.bad.push(`${one.type}: ${one.body.id}`);
    }, {types: ["deprecation", "intervention"], buffered: true}).observe();
"""
)
AUDIT = """
() => ({
    largest: window.largest,
    bad: window.bad,
    blocking: performance.getEntriesByType("resource")
        .filter((one) => one.renderBlockingStatus === "blocking" && one.initiatorType === "script")
        .map((one) => one.name),
    unsized: [...document.images].filter((one) => !one.getAttribute("width") || !one.getAttribute("height")).length,
    nameless: [...document.querySelectorAll("a[href]")].filter(
        (one) => !(one.textContent.trim() || one.ariaLabel || one.querySelector("img[alt]:not([alt=''])"))
    ).length,
    untitled: [...document.querySelectorAll("iframe")].filter((one) => !one.title).length,
    opened: [...document.querySelectorAll("a[target=_blank]")].filter((one) => !/noopener/.test(one.rel)).length,
    wide: document.documentElement.scrollWidth > innerWidth,
    elements: document.querySelectorAll("*").length,
})
"""
ARTICLE = '<main><h1 id="title">{title}</h1>{body}</main>'
TITLE = "A headline in large letters, which is the largest thing on the first screen of this article, ads or none"
WORDS = "<p>Words of the article, some of them, and then a few more of them so that it is a paragraph.</p>" * 6


def audit(reader: Reader, body: str, ready: Callable[[], None]) -> dict[str, Any]:
    reader.page.add_init_script(WATCH)
    reader.open(ARTICLE.format(title=TITLE, body=body) + "<style>h1 { font-size: 5rem }</style>")
    ready()
    reader.wait("window.largest !== null")
    found: dict[str, Any] = reader.page.evaluate(AUDIT)
    found["shift"] = round(reader.page.evaluate("window.shifts"), 2)
    found["complaints"] = list(reader.complaints)
    found["axe"] = sorted(
        f"{one['id']}: {node['target']}"
        for one in Axe().run(reader.page).response["violations"]
        for node in one["nodes"]
    )
    return found


def test_ads_make_no_audit_worse(reader: Reader) -> None:
    """
    With six ads and an empty slot the largest thing is still the headline, nothing shifts, no script blocks the first
    paint, no listener keeps the page from the back/forward cache or from scrolling; pictures have sizes, links have
    names, frames have titles, and axe objects to nothing that it did not object to before.
    """
    six = "".join(WORDS + placeholder(reader.service, slot) for slot in (*SIX, COLLAPSES))
    ads = audit(reader, six, lambda: reader.filled(len(SIX)))
    reader.page.close()
    without = Reader(reader.context, reader.site, reader.service)
    plain = audit(without, WORDS * 7, lambda: without.wait("document.readyState === 'complete'"))

    assert plain["largest"] == ads["largest"] == "title"
    for name in ("bad", "blocking", "complaints", "axe"):
        assert ads[name] == plain[name], name
    for name in ("unsized", "nameless", "untitled", "opened", "shift", "wide"):
        assert ads[name] == plain[name] == 0, name
    assert ads["elements"] - plain["elements"] < 100, "some ten for each ad"


def test_the_audit_would_see_it(reader: Reader) -> None:
    """
    Each of them is found where it is: the audit audits.
    """
    wrong = """
        <img src="data:image/gif;base64,R0lGODlhAQABAAAAACw="><a href="/x"></a><iframe srcdoc="x"></iframe>
        <a href="/y" target="_blank" rel="opener">y</a><div style="width: 4000px">wide</div>
        <script>
            addEventListener("unload", () => {}); addEventListener("touchstart", () => {});
            document.write("<b>late</b>"); console.error("oh");
        </script>
    """
    found = audit(reader, wrong, lambda: reader.wait("document.readyState === 'complete'"))
    assert set(found["bad"]) >= {"unload", "touchstart, not passive", "document.write"}
    assert (found["unsized"], found["nameless"], found["untitled"], found["opened"], found["wide"]) == (
        1,
        1,
        1,
        1,
        True,
    )
    assert found["complaints"]
    assert {one.split(":")[0] for one in found["axe"]} >= {"image-alt", "link-name", "frame-title"}
