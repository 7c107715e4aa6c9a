"""The proof itself, in its short form: real processes killed and cut off, and services broken on purpose."""

import re
import subprocess
import sys

import pytest

from tests.service.live import REPOSITORY


def torture(*arguments: str, within_s: float) -> tuple[int, str]:
    """Run `adserver torture`; its exit code and all it says."""
    command = [sys.executable, "-m", "adserver", "torture", *arguments]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=within_s)
        except BaseException:
            process.terminate()  # it stops what it started
            process.wait(20)
            raise
    return process.returncode, said


@pytest.mark.timeout(660)
def test_every_acknowledged_event_is_counted_once_whatever_fails() -> None:
    """
    Three rounds of 10,000 events under every fault: nothing lost, nothing double, store and journals the same.
    """
    code, said = torture("--rounds", "3", "--events", "10000", "--jobs", "3", within_s=600)
    assert code == 0, said
    assert said.endswith("\nexact\n")


@pytest.mark.timeout(660)
def test_a_service_broken_on_purpose_is_caught() -> None:
    """
    Seven ways to build counting wrongly are each found out, so the proof can fail.
    """
    code, said = torture("--controls", "--jobs", "4", within_s=600)
    assert code == 0, said
    assert said.count("  yes  ") == 7


@pytest.mark.timeout(660)
def test_the_protocol_holds_in_5000_simulated_worlds_and_its_mutants_do_not() -> None:
    """
    No invariant is violated under any order of crashes, lost replies and rollbacks; each mutant violates one.
    """
    code, said = torture("--simulate", "5000", within_s=600)
    assert code == 0, said
    assert re.search(r"as it is +5,000 +0\n", said)
    assert said.endswith("every mutant caught\n")


def test_a_word_it_does_not_know_is_refused_with_those_it_does() -> None:
    """
    A misspelt fault is a usage error that lists the faults.
    """
    code, said = torture("--faults", "kil", within_s=30)
    assert code == 2
    assert "'kil' is none of kill, power" in said
