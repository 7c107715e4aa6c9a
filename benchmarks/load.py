"""Load by `wrk`: one run of a few seconds over keep-alive connections, and what was answered.

What to send comes from a file: one request target, or one body, a line. Both sides of a comparison are sent the same
by the same script, so that making the requests costs both the same.
"""

import shutil
import subprocess
from pathlib import Path

from msgspec import Struct

CONNECTIONS = 32
HOW_TO_GET_WRK = "The benchmark needs wrk as its load generator: install it with 'apt-get install wrk', and run again."

_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("answered %d %d %d %d\\n",
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout))
end
"""
_TARGETS = """
local lines, at = {}, 0
init = function(args)
  for line in io.lines(args[1]) do lines[#lines + 1] = line end
end
request = function()
  at = at + 1
  return wrk.format("GET", lines[at])  -- behind the last one this is the URL's own path
end
"""
_CYCLE = _TARGETS.replace("at = at + 1", "at = at % #lines + 1")
_BODIES = """
local requests, at = {}, 0
init = function(args)
  for line in io.lines(args[1]) do
    local body = line:gsub("\\r", "\\n")
    requests[#requests + 1] = wrk.format("POST", "/render", {["content-type"] = "text/html"}, body)
  end
end
request = function()
  at = at % #requests + 1
  return requests[at]
end
"""
_SCRIPTS = {"plain": _REPORT, "targets": _REPORT + _TARGETS, "cycle": _REPORT + _CYCLE, "bodies": _REPORT + _BODIES}


class WrongAnswers(Exception):
    """What was measured is not what should have been."""


class Run(Struct, frozen=True):
    """One run: how many requests were answered, in how many seconds."""

    answered: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.answered / self.seconds


class Load(Struct, frozen=True):
    """What to send: *kind* of script, the *path* of the URL, the file of targets or bodies, extra headers."""

    kind: str
    path: str = "/"
    file: Path | None = None
    headers: tuple[str, ...] = ()


def find_wrk() -> str | None:
    return shutil.which("wrk")


def write_scripts(directory: Path) -> None:
    for kind, script in _SCRIPTS.items():
        (directory / f"{kind}.lua").write_text(script)


def write_bodies(path: Path, bodies: list[bytes]) -> None:
    """One body a line; its own line ends are written as carriage returns."""
    path.write_bytes(b"".join(body.replace(b"\n", b"\r") + b"\n" for body in bodies))


def run(load: Load, port: int, seconds: int, scripts: Path, connections: int = CONNECTIONS) -> Run:
    """Raises WrongAnswers when a single answer is missing or is not a 2xx or 3xx."""
    command = [find_wrk() or "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(scripts / f"{load.kind}.lua")]
    for header in load.headers:
        command += ["-H", header]
    command += [f"http://127.0.0.1:{port}{load.path}"]
    if load.file:
        command += ["--", str(load.file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    found = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("answered ")]
    if done.returncode or not found:
        raise WrongAnswers(f"wrk failed: {(done.stderr or done.stdout).strip()[:500]}")
    answered, microseconds, refused, broken = map(int, found[0])
    if refused or broken or not answered:
        raise WrongAnswers(
            f"{load.path}: of {answered:,} requests {refused:,} were refused and {broken:,} connections failed"
        )
    return Run(answered, microseconds / 1e6)
