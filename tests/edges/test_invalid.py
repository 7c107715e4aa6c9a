"""Which requests are no reader's: robots, prefetching browsers, and requests that name no browser."""

import re

import pytest

from adserver import invalid
from adserver.events import INVALID
from adserver.invalid import judge, judge_user_agent

FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
READERS = [
    FIREFOX,
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/604.1",
    b"Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari",
    b"Opera/9.80 (J2ME/MIDP; Opera Mini/7.1.32052/29.3709; U; en) Presto/2.8.119 Version/11.10",
]
ROBOTS = [
    b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    b"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    b"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    b"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
]


@pytest.mark.parametrize("agent", READERS)
def test_readers_count(agent: bytes) -> None:
    """
    Common browsers are no robots.
    """
    assert judge([(b"host", b"ads.example"), (b"user-agent", agent)]) == 0


@pytest.mark.parametrize("agent", ROBOTS)
def test_robots_are_filed_as_such(agent: bytes) -> None:
    """
    What names itself a robot is filed under `bot`.
    """
    assert INVALID[judge([(b"user-agent", agent)])] == "bot"


@pytest.mark.parametrize("headers", [[], [(b"user-agent", b"")], [(b"user-agent", b" \t ")]])
def test_a_request_that_names_no_browser_is_filed_as_such(headers: list[tuple[bytes, bytes]]) -> None:
    """
    No User-Agent, an empty one and a blank one are the same.
    """
    assert INVALID[judge(headers)] == "no-user-agent"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"sec-purpose", b"prefetch"),
        (b"sec-purpose", b"prefetch;prerender"),
        (b"sec-purpose", b"Prefetch; anonymous-client-ip"),
        (b"purpose", b"prefetch"),
        (b"x-moz", b"prefetch"),
        (b"x-purpose", b"preview"),
    ],
)
def test_a_prefetching_browser_is_no_reader_yet(name: bytes, value: bytes) -> None:
    """
    Each spelling browsers have used, whatever order the headers come in.
    """
    assert INVALID[judge([(b"user-agent", FIREFOX), (name, value)])] == "prefetch"
    assert INVALID[judge([(name, value), (b"user-agent", FIREFOX)])] == "prefetch"
    assert judge([(b"user-agent", FIREFOX), (name, b"navigate")]) == 0


@pytest.mark.parametrize(
    "agent", [b"\xff\xfe\x00", b"\xed\xa0\x80", "Файрфокс".encode(), b"%n%s\r\n", b"(" * 100_000, b"a" * 1_000_000]
)
def test_no_user_agent_breaks_the_judgement(agent: bytes) -> None:
    """
    Any bytes are judged, and only the first 512 are looked at and remembered.
    """
    judge([(b"user-agent", agent)])
    judge_user_agent.cache_clear()
    judge([(b"user-agent", agent + b"x")])
    judge([(b"user-agent", agent + b"y")])
    assert judge_user_agent.cache_info().currsize == (1 if len(agent) >= 512 else 2)


def test_the_memory_of_browsers_is_bounded() -> None:
    """
    A million made-up names leave a table of fixed size.
    """
    assert judge_user_agent.cache_info().maxsize == 8192


def test_reasons_are_known_by_name() -> None:
    """
    The indices used here are those of the journal's closed list.
    """
    named = {name: getattr(invalid, name) for name in ("BOT", "NO_USER_AGENT", "PREFETCH", "METHOD")}
    assert all(re.sub("_", "-", name).lower() == INVALID[index] for name, index in named.items())
