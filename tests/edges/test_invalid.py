"""Which requests are no reader's: robots, prefetching browsers, and requests that name no browser."""

import re

import pytest

from adserver import invalid
from adserver.address_file import AddressFile
from adserver.events import INVALID
from adserver.invalid import Judge, judge, judge_beacon, judge_user_agent, lists_in_use, pack
from adserver.networks import Networks, parse_networks

FIREFOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
READERS = [
    FIREFOX,
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/604.1",
    b"Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari",
    b"Opera/9.80 (J2ME/MIDP; Opera Mini/7.1.32052/29.3709; U; en) Presto/2.8.119 Version/11.10",
    b"Mozilla/5.0 (Linux; Android 9; KFMAWI) AppleWebKit/537.36 (KHTML, like Gecko) Silk/120 like Chrome/120 Safari",
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Silk/120.4.1 like Chrome/120.0 Safari",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 YJApp-IOS jp.co.yahoo.ipn.appli/4.1",
    b"Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Mobile DaumApps/1",
]
ROBOTS = [
    b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    b"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    b"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    b"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 8_3 like Mac OS X) AppleWebKit/600.1.4 (compatible; Googlebot-Mobile/2.1)",
    b"ExampleBot",
    b"Python-urllib/3.12",
    b"Java/17.0.2",
]


@pytest.mark.parametrize("agent", READERS)
def test_readers_count(agent: bytes) -> None:
    """
    Common browsers are no robots, nor are tablets and apps whose names hold a robot's word.
    """
    assert judge([(b"host", b"ads.example"), (b"user-agent", agent)]) == 0


@pytest.mark.parametrize("agent", ROBOTS)
def test_robots_are_filed_as_such(agent: bytes) -> None:
    """
    What names itself a robot is filed under `bot`.
    """
    assert INVALID[judge([(b"user-agent", agent)])] == "bot"


SUSPECTS = [
    b"curl/8.9.1",
    b"Wget/1.21.4",
    b"python-requests/2.32.3",
    b"python-httpx/0.28.1",
    b"Python/3.12 aiohttp/3.10.5",
    b"Go-http-client/2.0",
    b"okhttp/4.12.0",
    b"Apache-HttpClient/5.3 (Java/17)",
    b"axios/1.7.2",
    b"node",
    b"node-fetch/1.0 (+https://github.com/bitinn/node-fetch)",
    b"Dart/3.4 (dart:io)",
    b"libwww-perl/6.67",
    b"lwp::simple/6.00",
    b"GuzzleHttp/7",
    b"PHP/8.3.1",
    b"PostmanRuntime/7.40.0",
    b"k6/0.52.0 (https://k6.io/)",
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/126.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (Unknown; Linux) AppleWebKit/538.1 (KHTML, like Gecko) PhantomJS/2.1.1 Safari/538.1",
    b"Mozilla/5.0 (Linux; Android 11) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Chrome-Lighthouse",
    b"SomethingNew/1.0 (+https://example.com/about)",
    b"Mozilla/5.0",
]
PHONES = [
    b"Mozilla/5.0 (Linux; Android 11; CUBOT X30) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Mobile Safari",
    b"Mozilla/5.0 (Linux; Android 5.1; CUBOT) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/43.0 Mobile Safari/537.36",
    b"Nokia6100/1.0 (05.16) Profile/MIDP-1.0 Configuration/CLDC-1.0",
    b"BlackBerry9700/5.0.0.351 Profile/MIDP-2.1 Configuration/CLDC-1.1",
    b"SAMSUNG-SGH-E250/1.0 Profile/MIDP-2.0 Configuration/CLDC-1.1 UP.Browser/6.2.3.3.c.1.101 (GUI) MMP/2.0",
    b"Lynx/2.9.0dev.12 libwww-FM/2.14 SSL-MM/1.4.1",
]


@pytest.mark.parametrize("agent", SUSPECTS)
def test_what_looks_automated_is_suspect(agent: bytes) -> None:
    """
    HTTP libraries, driven browsers and robots that the list does not know are suspect: counted, and told apart.
    """
    assert INVALID[judge([(b"user-agent", agent)])] == "suspect"


@pytest.mark.parametrize("agent", PHONES)
def test_odd_names_of_readers_browsers_are_not_suspect(agent: bytes) -> None:
    """
    Old telephones, a maker called Cubot and a browser for terminals are readers'.
    """
    assert judge([(b"user-agent", agent)]) == 0


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
        (b"sec-purpose", b"prefetch;anonymous-client-ip"),
        (b"sec-purpose", b"prefetch;prerender;preview"),
        (b"sec-purpose", b" prerender"),
        (b"x-purpose", b"preview"),
        (b"x-purpose", b"prefetch"),
        (b"purpose", b"preview"),
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
    names = [re.sub("-", "_", reason).upper() for reason in INVALID if reason]
    named = {name: getattr(invalid, name) for name in names}
    assert all(re.sub("_", "-", name).lower() == INVALID[index] for name, index in named.items())


# By address

STAFF = "192.0.2.0/24", "2001:db8:1::/48"
LISTED = "198.51.100.0/25", "2001:db8:2::/48"
READER, AT_WORK, IN_LIST = ("203.0.113.9", 1), ("192.0.2.7", 2), ("198.51.100.7", 3)
HEADERS = [(b"host", b"ads.example"), (b"user-agent", FIREFOX)]


def networks(*lines: str) -> Networks:
    return parse_networks((str(n), line) for n, line in enumerate(lines))


def new_judge(per_minute: int = 0) -> Judge:
    listed = AddressFile(None)
    listed.networks = networks(*LISTED)
    return Judge(networks(*STAFF), listed, per_minute)


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (READER, ""),
        (AT_WORK, "staff"),
        (("2001:db8:1::5", 0), "staff"),
        (("::ffff:192.0.2.7", 0), "staff"),
        (IN_LIST, "address-list"),
        (("198.51.100.128", 0), ""),
        (("2001:db8:2:ffff:ffff:ffff:ffff:ffff", 0), "address-list"),
        (("2001:db8:3::1", 0), ""),
        (("unknown", 0), ""),
        (("", 0), ""),
        (("192.0.2.7\0", 0), ""),
        (("\ud800", 0), ""),
        (("1" * 100_000, 0), ""),
        (None, ""),
    ],
)
def test_own_and_listed_addresses_are_filed_as_such(client: tuple[str, int] | None, reason: str) -> None:
    """
    An event from the newsroom or the operator's list is no reader's; a client without an address is judged without.
    """
    judge_all = new_judge(per_minute=1000)
    assert INVALID[judge_all.beacon(HEADERS, client, 1.0)] == reason
    assert INVALID[judge_all.click(HEADERS, client, 1.0)] == reason


def test_each_event_has_the_first_reason_that_holds() -> None:
    """
    What the browser says of itself comes first, then whose the address is, then what the name says, then the rate.
    """
    elsewhere = [(b"sec-fetch-site", b"cross-site"), (b"sec-fetch-dest", b"document")]
    prefetch, robot, curl = (b"x-moz", b"prefetch"), (b"user-agent", ROBOTS[0]), (b"user-agent", b"curl/8")
    both = Judge(networks(*STAFF), new_judge()._listed, 0)
    both._listed.networks = networks(*STAFF, *LISTED)

    assert INVALID[both.beacon([*elsewhere, prefetch, robot], AT_WORK, 1.0)] == "navigation"
    assert INVALID[both.click([*elsewhere, prefetch, robot], AT_WORK, 1.0)] == "prefetch"
    assert INVALID[both.click([robot], AT_WORK, 1.0)] == "staff"
    assert INVALID[both.click([robot], IN_LIST, 1.0)] == "address-list"
    assert INVALID[both.click([], IN_LIST, 1.0)] == "address-list"
    assert INVALID[both.click([robot], READER, 1.0)] == "bot"
    assert INVALID[both.click([curl], READER, 1.0)] == "suspect"
    limited = new_judge(per_minute=1)
    assert INVALID[limited.click([curl], READER, 1.0)] == "suspect"
    assert INVALID[limited.click([curl], READER, 1.0)] == "rate"
    assert INVALID[limited.click([robot], READER, 1.0)] == "bot"


def test_only_what_would_count_uses_up_the_rate() -> None:
    """
    A robot or a colleague next door does not spend what readers of the network may send; a reader next door does.
    """
    limited = new_judge(per_minute=2)
    for _ in range(10):
        limited.click([(b"user-agent", ROBOTS[0])], ("203.0.113.1", 1), 1.0)
        limited.click([], ("203.0.113.2", 1), 1.0)
    assert [INVALID[limited.beacon(HEADERS, (f"203.0.113.{n}", 1), 1.0)] for n in range(3)] == ["", "", "rate"]
    assert INVALID[limited.beacon(HEADERS, ("203.0.114.1", 1), 1.0)] == ""
    assert INVALID[limited.beacon(HEADERS, READER, 61.0)] == ""


def test_without_a_limit_nothing_is_too_often() -> None:
    """
    0 switches the rate off, and nothing is kept of anybody.
    """
    free = new_judge(per_minute=0)
    assert {free.beacon(HEADERS, READER, 1.0) for _ in range(1000)} == {0}
    assert "0 networks" in repr(free._rate)


def test_no_whole_address_is_kept() -> None:
    """
    After an event only the /24 or /48 of its address is left in memory.
    """
    limited = new_judge(per_minute=5)
    limited.beacon(HEADERS, ("203.0.113.9", 1), 1.0)
    limited.beacon(HEADERS, ("2001:db8:77:1:2:3:4:5", 1), 1.0)
    assert list(limited._rate._counts) == [bytes([203, 0, 113]), bytes.fromhex("20010db80077")]


def test_a_navigation_is_told_by_both_headers() -> None:
    """
    A page of its own from another site is no beacon; an image from there and a page of this site are.
    """
    site, document = (b"sec-fetch-site", b"cross-site"), (b"sec-fetch-dest", b"document")
    assert INVALID[judge_beacon([document, *HEADERS, site])] == "navigation"
    assert judge_beacon([*HEADERS, site, (b"sec-fetch-dest", b"image")]) == 0
    assert judge_beacon([*HEADERS, document, (b"sec-fetch-site", b"same-origin")]) == 0


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("192.0.2.1", "c0000201"),
        ("::1", "00000000000000000000000000000001"),
        ("::FFFF:192.0.2.1", "c0000201"),
        ("fe80::1%eth0", "fe800000000000000000000000000001"),
        ("010.0.0.1", None),
        ("192.0.2", None),
        ("192.0.2.1:80", None),
        ("１.2.3.4", None),
    ],
)
def test_addresses_are_read_as_they_are_written(text: str, packed: str | None) -> None:
    """
    One spelling of an IPv4 address, every spelling of an IPv6 one, and nothing for what is neither.
    """
    found = pack(text)
    assert (found.hex() if found else None) == packed


def test_the_lists_in_use_can_be_named() -> None:
    """
    A page on methodology can say which version of each list is in use, and how long ours are; never what is in them.
    """
    listed = AddressFile(None)
    assert [one.reason for one in lists_in_use(Networks(), listed)] == ["bot", "suspect"]
    robots, suspects = lists_in_use(Networks(), listed)
    assert re.fullmatch(r"ua-parser [0-9.]+, device class Spider", robots.source)
    assert re.fullmatch(r"20[0-9]{4}[0-9.a-z]*", robots.version), "ua-parser-builtins is versioned by year and month"
    assert re.fullmatch(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", suspects.version)
    staff = lists_in_use(networks(*STAFF), listed)[2]
    assert (staff.reason, staff.entries) == ("staff", 2)
    assert not any(line[:9] in str(staff) for line in STAFF)
