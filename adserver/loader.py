"""`/loader.js` and `/loader.css`: what a page needs to fill its placeholders, keep their space and say what was seen.

Each is looked up again after five minutes. With `?v=` and the hash of its content it may be kept for ever; an older
hash is answered with what is current, because pages that were cached before an update still ask by it, and then it is
not kept.
"""

import gzip
import hashlib
import re
from collections.abc import Callable
from importlib.resources import files

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

MAX_AGE_S = 300
OLDER_S = 60
"""For an older hash: whoever caches it here would keep it under a name that says it never changes."""
FOR_EVER = "public, max-age=31536000, immutable"
_NUMBER = re.compile(r"^const ([A-Z_]+) = ([0-9]+);\n", re.MULTILINE)
_SPACED = re.compile(r"""("[^"\n]*"|'[^'\n]*'|`[^`\n]*`)|\s?([=<>!&|?:,;{}()*]+)\s?""")
"""A string as it is, or signs and the blanks around them."""
MEDIA = {"js": "text/javascript", "css": "text/css"}


class PageFile(Struct, frozen=True):
    """One of the two, ready to be sent. *digest* names its content: 16 hex digits."""

    extension: str
    digest: str
    body: bytes
    zipped: bytes

    @property
    def name(self) -> str:
        """The address that may be kept for ever."""
        return f"/loader.{self.extension}?v={self.digest}"


class Loader:
    """The routes of one worker."""

    def __init__(self) -> None:
        self._files = {"js": _ready("js", strip_script), "css": _ready("css", strip_style)}

    async def file(self, request: Request) -> Response:
        """One of the two. `Content-Location` says where the same may be kept for ever."""
        file = self._files[request.url.path.rpartition(".")[2]]
        asked = request.query_params.get("v")
        seconds = MAX_AGE_S if asked is None else OLDER_S
        caching = FOR_EVER if asked == file.digest else f"public, max-age={seconds}"
        return _answer(request, file, caching, {"content-location": file.name})


def strip_script(text: str) -> str:
    """Without its comments of a whole line, the blanks and line ends beside most signs, and the names of numbers.

    The source promises that each statement ends with a semicolon or a brace, that no string or template spans lines or
    names a number, and that no regular expression holds a quote, or a blank beside a sign. Blanks beside + and - stay,
    which may be two signs.
    """
    lines = (line.strip() for line in text.splitlines())
    bare = "".join(f"{line}\n" for line in lines if line and not line.startswith("//"))
    numbers = dict(_NUMBER.findall(bare))
    bare = re.sub(r"\b[A-Z_]+\b", lambda found: numbers.get(found[0], found[0]), _NUMBER.sub("", bare))
    return _SPACED.sub(lambda found: found[1] or found[2], bare)


def strip_style(text: str) -> str:
    """Without its comments; the source promises that no string holds one."""
    bare = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return "".join(f"{line.strip()}\n" for line in bare.splitlines() if line.strip())


def _ready(extension: str, strip: Callable[[str], str]) -> PageFile:
    source = files("adserver").joinpath("page", f"loader.{extension}").read_text(encoding="utf-8")
    body = strip(source).encode()
    digest = hashlib.blake2b(body, digest_size=8).hexdigest()
    return PageFile(extension, digest, body, gzip.compress(body, 9, mtime=0))


def _answer(request: Request, file: PageFile, caching: str, more: dict[str, str]) -> Response:
    zipped = _takes_gzip(request.headers.get("accept-encoding", ""))
    headers = {
        "cache-control": caching,
        "etag": f'"{file.digest}{"-gzip" if zipped else ""}"',
        "vary": "Accept-Encoding",
        "x-content-type-options": "nosniff",
        "access-control-allow-origin": "*",  # pages may name its hash in an `integrity` attribute
        "cross-origin-resource-policy": "cross-origin",
        **more,
    }
    if headers["etag"] in re.findall(r'"[^"]*"', request.headers.get("if-none-match", "")):
        return Response(None, 304, headers)
    if zipped:
        headers["content-encoding"] = "gzip"
    return Response(file.zipped if zipped else file.body, headers=headers, media_type=MEDIA[file.extension])


def _takes_gzip(accepted: str) -> bool:
    """Whether `Accept-Encoding` names gzip and does not refuse it (RFC 9110, 12.5.3)."""
    for one in accepted.lower().split(","):
        name, _, weight = one.partition(";")
        if name.strip() == "gzip":
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False
