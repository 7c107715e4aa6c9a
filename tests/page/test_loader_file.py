"""`/loader.js` and `/loader.css` as they are served: small, kept by caches, readable from any page."""

import gzip
import re
from importlib.resources import files

import pytest

from adserver.loader import strip_script
from tests.page.conftest import TALL
from tests.service.live import Service

SOURCE = files("adserver").joinpath("page", "loader.js").read_text("utf-8")
MOST_BYTES = 3 * 1024
FOR_EVER = "public, max-age=31536000, immutable"


def test_the_script_is_small() -> None:
    """
    As it is served, zipped, it takes 3 kB (of 1,024 bytes) at most.
    """
    assert len(gzip.compress(strip_script(SOURCE).encode(), 9)) <= MOST_BYTES


def test_stripping_changes_nothing_but_the_size() -> None:
    """
    The source is as `strip_script` wants it: no string spans lines, no comment but those of a whole line is in it,
    statements end with a semicolon or a brace, regular expressions hold neither blanks nor quotes.
    """
    for number, line in enumerate(SOURCE.splitlines(), 1):
        code = line.strip()
        if not code or code.startswith("//"):
            continue
        assert line.count("`") % 2 == 0, f"line {number}: a template spans lines"
        assert "/*" not in line, f"line {number}: a comment that is not a line"
        assert code[-1] in ";{},()[" or code.endswith("=>"), f"line {number}: no sign at its end"
        for found in re.findall(r"[(=] ?(/(?:\\.|[^/\n])+/)", code):
            assert not re.search(r"[\s\"'`]", found), f"line {number}: a blank or a quote in a regular expression"


@pytest.mark.parametrize(
    ("source", "served"),
    [
        ('  const a = "b , c" + `${d} = e`;\n', 'const a="b , c" + `${d} = e`;'),
        ("const x = y - -z;\n  // why\n  if (x) {\n    go();\n  }\n", "const x=y - -z;if(x){go();}"),
        ("const MOST_X = 30;\nif (a < MOST_X) send('POST', NO_X);\n", "if(a<30)send('POST',NO_X);"),
        ("const { a, b: c } = d ? e : (f) => g;\n", "const{a,b:c}=d?e:(f)=>g;"),
        ("return /\\s[^/]*$/.test(a);\nfor (const b of c) b();\n", "return /\\s[^/]*$/.test(a);for(const b of c)b();"),
    ],
)
def test_what_is_left_out_of_the_script(source: str, served: str) -> None:
    """
    Comments, indentation and line ends, blanks beside signs, and the names of numbers; strings are left as they are.
    """
    assert strip_script(source) == served


def test_the_script_needs_and_touches_nothing_it_should_not() -> None:
    """
    Nothing that stores on the device, makes code of text, writes inline styles or loads anything else is in it.
    """
    for word in ("localStorage", "sessionStorage", "cookie", "indexedDB", "caches", "eval", "Function(", "import",
                 "setAttribute", "cssText", "document.write"):  # fmt: skip
        assert word not in SOURCE


@pytest.mark.parametrize("extension", ["js", "css"])
def test_a_copy_may_be_kept_for_ever_by_its_hash(service: Service, extension: str) -> None:
    """
    The plain address is looked up again within minutes and names the other, whose content never changes.
    """
    plain = service.http.get(f"/loader.{extension}")
    name = plain.headers["content-location"]
    kept = service.http.get(name)

    assert plain.headers["cache-control"] == "public, max-age=300"
    assert re.fullmatch(rf"/loader\.{extension}\?v=[0-9a-f]{{16}}", name)
    assert kept.headers["cache-control"] == FOR_EVER
    assert kept.content == plain.content
    assert kept.headers["access-control-allow-origin"] == "*"
    assert kept.headers["cross-origin-resource-policy"] == "cross-origin"
    assert kept.headers["content-type"].startswith("text/")


def test_an_older_hash_is_answered_with_what_is_current(service: Service) -> None:
    """
    Pages cached before an update ask by the older name: they get today's script, and may not keep it for ever.
    """
    older = service.http.get("/loader.js?v=0123456789abcdef")

    assert older.content == service.http.get("/loader.js").content
    assert older.headers["cache-control"] == "public, max-age=60"


def test_what_has_not_changed_is_not_sent_again(service: Service) -> None:
    """
    With the tag of either coding a browser is told 304, and each coding has a tag of its own.
    """
    tags = set()
    for coding in ("gzip", "identity", "gzip;q=0", "br, gzip;q=0.5"):
        first = service.http.get("/loader.js", headers={"accept-encoding": coding})
        zipped = coding in ("gzip", "br, gzip;q=0.5")
        assert (first.headers.get("content-encoding") == "gzip") is zipped
        assert first.text == service.http.get("/loader.js").text
        tag = first.headers["etag"]
        again = service.http.get("/loader.js", headers={"accept-encoding": coding, "if-none-match": f'W/"x", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        tags.add(tag)
    assert len(tags) == 2
    assert service.http.get("/loader.js", headers={"if-none-match": '"other"'}).status_code == 200


def test_beacons_may_be_heard_from_any_page(service: Service) -> None:
    """
    The script can read whether its beacon must be sent again, wherever its page is from; nobody with credentials.
    """
    token = service.token(TALL)
    for kind in "iv":
        answer = service.http.post(f"/{kind}/{token}", headers={"origin": "https://anybody.example"})
        assert answer.status_code == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
