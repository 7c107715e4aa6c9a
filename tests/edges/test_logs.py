"""Log lines: one event a line, whatever is in it. Logged through the standard library, as all our modules do."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from adserver import logs
from adserver.logs import MOST, clean, truncate

ROOT = Path(__file__).parent.parent.parent

HOSTILE = [
    "a\r\n2026-01-01T00:00:00Z [info     ] forged",
    'a\n{"event": "forged"}',
    "\x1b[2J\x1b[1;31mred\x1b[0m",
    "bell\x07 back\x08 nul\x00 del\x7f",
    "next\x85line sep\u2028para\u2029",
    "turn\u202egnp.exe \u2066iso\u2069",
    "%n%s%d {0} {event}",
    "x" * 1_000_000,
    "\ud800 alone",
    "\x9b31m csi",
]


def log_lines(form: str, script: str) -> list[str]:
    """What a process of our own writes to standard error when it runs *script*."""
    head = f"import logging, sys; from adserver import logs; logs.configure({form!r}); log = logging.getLogger('t')\n"
    run = subprocess.run(
        [sys.executable, "-"], input=head + script, cwd=ROOT, capture_output=True, check=True, encoding="utf-8"
    )
    assert run.stderr.endswith("\n")
    return run.stderr[:-1].split("\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_value_forges_a_line(form: str) -> None:
    """
    Line breaks, escape sequences and marks that turn text around come out escaped; a megabyte comes out cut.
    """
    script = f"for value in {HOSTILE!r}:\n    log.info('path %s', value)\n"
    script += f"for value in {HOSTILE!r}:\n    log.info('request', extra={{'route': value, 'client': value}})\n"

    lines = log_lines(form, script)

    assert len(lines) == 2 * len(HOSTILE)
    for line in lines:
        assert len(line) < 3 * MOST + 1500
        assert line.isprintable()
        assert not line.startswith("forged")
    if form == "json":
        assert all(json.loads(line)["level"] == "info" for line in lines)


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_exception_forges_a_line(form: str) -> None:
    """
    What an exception quotes is escaped too; each line of a traceback is marked as one, and it ends somewhere.
    """
    script = f"for value in {HOSTILE!r}:\n"
    script += "    try:\n        raise ValueError(value)\n"
    script += "    except ValueError:\n        log.exception('a request failed')\n"

    lines = log_lines(form, script)

    if form == "json":
        found = [json.loads(line) for line in lines]
        assert len(found) == len(HOSTILE)
        assert all("ValueError" in line["exception"] for line in found)
    else:
        events = [line for line in lines if "a request failed" in line and not line.startswith("  | ")]
        assert len(events) == len(HOSTILE)
        assert all(line.startswith("  | ") for line in lines if line not in events)
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 10_000


def test_an_endless_traceback_is_cut() -> None:
    """
    A recursion a thousand deep leaves the end of its traceback.
    """
    script = "sys.setrecursionlimit(900)\ndef f(): g()\ndef g(): f()\n"
    script += "try:\n    f()\nexcept RecursionError:\n    log.exception('deep')\n"

    assert 10 < len(log_lines("text", script)) <= 1 + logs.MOST_TRACE_LINES


def test_facts_are_logged_and_others_left_out() -> None:
    """
    The access log's fields come through with their types; extras nobody listed do not.
    """
    script = "log.info('GET /ads', extra={'status': 200, 'ms': 1.5, 'request_id': 'abc', 'password': 'sesame'})"

    (line,) = log_lines("json", script)

    found = json.loads(line)
    assert (found["event"], found["status"], found["ms"], found["request_id"]) == ("GET /ads", 200, 1.5, "abc")
    assert "sesame" not in line
    assert found["timestamp"].endswith("Z")


def test_a_line_below_its_level_is_not_written() -> None:
    """
    Debugging is off, and the web server's chatter too; its warnings are heard.
    """
    script = "log.debug('no'); logging.getLogger('uvicorn.error').info('no'); logging.getLogger('uvicorn.access')"
    script += ".info('no'); logging.getLogger('uvicorn.error').warning('yes')"

    (line,) = log_lines("text", script)

    assert "yes" in line


def test_only_text_is_cleaned() -> None:
    """
    Numbers stay numbers; text is cut at 256 characters and says so.
    """
    assert [clean(value) for value in (5, 1.5, None, True)] == [5, 1.5, None, True]
    assert clean("plain é ☃") == "plain é ☃"
    assert clean("x" * 300) == "x" * MOST + "…"
    assert clean("\r\n\x1b") == "\\r\\n\\x1b"


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("203.0.113.77", "203.0.113.0"),
        ("255.255.255.255", "255.255.255.0"),
        ("2001:db8:1234:5678:9abc::1", "2001:db8:1234::"),
        ("::ffff:203.0.113.77", "::"),
        ("fe80::1%eth0", "fe80::"),
        ("", "-"),
        ("unix", "-"),
        ("203.0.113.77\n", "-"),
        ("1" * 5000, "-"),
    ],
)
def test_of_an_address_only_its_network_is_kept(address: str, kept: str) -> None:
    """
    /24 or /48, and a dash for what is no address.
    """
    assert truncate(address) == kept


def test_configuring_again_replaces_the_handler() -> None:
    """
    Lines are not written twice.
    """
    (line,) = log_lines("text", "logs.configure('text'); log.info('once')")

    assert "once" in line
    assert logging.getLogger("adserver").propagate
