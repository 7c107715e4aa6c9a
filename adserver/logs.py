"""Log lines, to read or to collect as JSON: one event a line, whatever is in it.

Control characters are escaped and long values cut, so that nobody can forge a line or fill the disk with one;
addresses are truncated before they come here.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from ipaddress import ip_address, ip_network
from typing import Any

import structlog

MOST = 256
MOST_TRACE_LINES = 200
_SECRET_PATH = re.compile(r"(/report/|/console/link/).*", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def clean(value: object) -> object:
    """*value* without control characters, at most MOST characters of it."""
    if not isinstance(value, str):
        return value
    cut = value if len(value) <= MOST else value[:MOST] + "…"
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), cut)


def hide(path: str) -> str:
    """*path* without the secret that some addresses are: whoever reads a log must not get in by it."""
    return _SECRET_PATH.sub(r"\1…", path)


def truncate(address: str) -> str:
    """The network of an address, /24 or /48: what may be kept of a reader."""
    try:
        ip = ip_address(address)
    except ValueError:
        return "-"
    return str(ip_network((ip, 24 if ip.version == 4 else 48), strict=False).network_address)


def _clean_all(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in line.items():
        line[key] = _clean_trace(value) if key == "exception" else clean(value)
    return line


def _clean_trace(trace: str) -> str:
    """The end of a traceback, each line marked: what an exception quotes must not pass for a line of the log."""
    return "\n".join(f"  | {clean(line)}" for line in trace.split("\n")[-MOST_TRACE_LINES:])


def configure(form: str) -> None:
    """Send all logging, ours and uvicorn's, to standard error in *form*: text or json."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(allow={"request_id", "route", "status", "ms", "client"}),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _clean_all, renderer],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = name != "uvicorn.access"
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
