"""The benchmarks run, and find every count right; how fast things are is not looked at here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.live import REPOSITORY


def measured(directory: Path, *arguments: str) -> str:
    """What `python -m benchmarks` prints; asserts that it found no wrong answer or count."""
    command = [sys.executable, "-m", "benchmarks", *arguments, "--directory", str(directory)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ADSERVER_", "PROMETHEUS_"))}
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            out, err = process.communicate(timeout=100)
        except subprocess.TimeoutExpired:
            process.terminate()  # it stops what it started
            raise
    assert process.returncode == 0, (out, err)
    assert list(directory.iterdir()) == []
    return out


def test_a_store_that_was_away_is_caught_up_with(tmp_path: Path) -> None:
    """
    Events of dead workers and those of an outage are all counted once, beside live ones.
    """
    out = measured(tmp_path, "backlog", "outage", "--events", "3000", "--away", "2", "--pages", "50")
    assert out.count("events are counted") == 2
    assert out.count("Checked: no 5xx, no request unanswered") == 2


@pytest.mark.system
@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_the_cost_of_counting_is_measured_on_events_that_were_counted(tmp_path: Path) -> None:
    """
    Every beacon answered is counted by the service, and by the baseline.
    """
    out = measured(tmp_path, "counting", "--rounds", "1", "--seconds", "1")
    assert "worker and store" in out
    assert "Checked: every beacon answered was counted." in out


def test_a_part_that_is_none_is_refused() -> None:
    """
    Exit code 2 and the parts there are.
    """
    command = [sys.executable, "-m", "benchmarks", "speed"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert (
        "'speed' is not a part; expected http, counting, catalogs, memory, backlog, forecast, console, outage"
        in done.stderr
    )
