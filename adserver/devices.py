"""What a page is read on: a desktop, a mobile or a tablet, where the browser says so.

Client hints (wicg.github.io/ua-client-hints) say `Sec-CH-UA-Mobile: ?1` on telephones and `?0` elsewhere, tablets among
it. In names it is `Mobi` that telephones have in common (developer.mozilla.org, Browser detection using the user
agent); Android without it is a tablet. An iPad that asks for desktop pages calls itself a Macintosh, and is one here.
"""

import re
from functools import lru_cache

_BROWSER = re.compile(r"Mozilla/[0-9.]+ \(")
_TABLET = re.compile(r"\b(?:iPad|Tablet|PlayBook|Silk|Kindle)\b")


def device_of(user_agent: str, mobile: str = "", platform: str = "") -> str:
    """`desktop`, `mobile` or `tablet`; empty when nothing says. *mobile* and *platform* are client hints' values."""
    if mobile == "?1":
        return "mobile"
    if mobile == "?0":
        return "tablet" if platform.strip('"') == "Android" else "desktop"
    return _by_name(user_agent)


@lru_cache(1024)
def _by_name(user_agent: str) -> str:
    if not _BROWSER.match(user_agent):
        return ""
    if _TABLET.search(user_agent) or ("Android" in user_agent and "Mobi" not in user_agent):
        return "tablet"
    return "mobile" if "Mobi" in user_agent else "desktop"
