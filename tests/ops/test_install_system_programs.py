"""tools/install-system-programs, run against stand-ins for the package manager."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "install-system-programs"
PACKAGES = {
    "chromium": "chromium",
    "nginx": "nginx",
    "varnishd": "varnish",
    "apache2": "apache2-bin",
    "redis-server": "redis-server",
    "promtool": "prometheus",
    "wrk": "wrk",
    "mariadbd": "mariadb-server",
    "/usr/sbin/php-fpm8.2": "php-fpm",
    "/usr/lib/php/20220829/curl.so": "php-curl",
    "/usr/share/wordpress/wp-load.php": "wordpress",
}
# Installs by creating the command, and writes down how it was called and what policy-rc.d said at that moment.
APT_GET = """\
echo "$*" >> "$HERE/calls"
[ "$2" = install ] || exit "${UPDATE_STATUS:-0}"
"$POLICY_RC_D"; echo "policy $?" >> "$HERE/calls"
status=0
for word in "$@"; do
    case " $UNAVAILABLE " in *" $word "*) exit 100 ;; esac
done
for word in "$@"; do
    [ "$word" != prometheus ] || word=promtool
    [ "$word" != varnish ] || word=varnishd
    [ "$word" != apache2-bin ] || word=apache2
    [ "$word" != mariadb-server ] || word=mariadbd
    case " chromium nginx varnishd apache2 redis-server promtool wrk mariadbd " in
        *" $word "*) cp "$HERE/bin/true" "$HERE/bin/$word" ;;
    esac
    case $word in
        php-fpm) file=usr/sbin/php-fpm8.2 ;;
        php-curl) file=usr/lib/php/20220829/curl.so ;;
        wordpress) file=usr/share/wordpress/wp-load.php ;;
        *) continue ;;
    esac
    mkdir -p "$HERE/root/${file%/*}" && cp "$HERE/bin/true" "$HERE/root/$file"
done
"""


def shown(command: str) -> str:
    """A command as the script names it: files whose path holds a version are looked for with any."""
    return re.sub(r"(?<=fpm)8\.2|20220829", "*", command)


class Machine:
    """A directory that is the whole PATH: what is not in it is not installed."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.bin = here / "bin"
        self.policy = here / "policy-rc.d"
        self.bin.mkdir()
        for tool in ("sh", "cat", "chmod", "cp", "cut", "grep", "mkdir", "mktemp", "mv", "rm", "sleep", "tail", "true"):
            found = shutil.which(tool)
            assert found is not None
            (self.bin / tool).symlink_to(found)
        # Ends the PATH that the script goes on with at the directories of this machine.
        self.script = here / "install-system-programs"
        text = SCRIPT.read_text()
        assert "PATH=$PATH:/usr/sbin:/sbin\n" in text
        self.script.write_text(text.replace("PATH=$PATH:/usr/sbin:/sbin\n", "", 1))

    def path_of(self, command: str) -> Path:
        """Where a command, or a file named by its whole path, is on this machine."""
        return self.here / "root" / command[1:] if command.startswith("/") else self.bin / command

    def add(self, command: str, body: str = "") -> None:
        path = self.path_of(command)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{shutil.which('sh')}\n{body}\n")
        path.chmod(0o755)

    def run(self, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": str(self.bin),
            "HERE": str(self.here),
            "TMPDIR": str(self.here),
            "ROOT": str(self.here / "root"),
            "POLICY_RC_D": str(self.policy),
            "APT_PAUSE_S": "0",
            "UNAVAILABLE": "",
        }
        return subprocess.run(
            [self.bin / "sh", self.script],
            env=environment | dict(settings or {}),
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        path = self.here / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Debian, as root, with none of the programs."""
    machine = Machine(tmp_path)
    machine.add("id", "echo 0")
    machine.add("apt-get", APT_GET)
    return machine


def test_nothing_is_said_or_done_when_all_is_there(machine: Machine) -> None:
    """
    With every program present the script prints nothing and asks no package manager.
    """
    for command in PACKAGES:
        machine.add(command)
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.calls() == []


def test_only_what_is_missing_is_installed(machine: Machine) -> None:
    """
    A program that is there is not asked for again, and a second run finds nothing to do.
    """
    machine.add("nginx")
    assert machine.run().returncode == 0
    assert machine.calls() == [
        "-qq update",
        "-qq install --yes --no-install-recommends " + " ".join(one for one in PACKAGES.values() if one != "nginx"),
        "policy 101",
    ]
    again = machine.run()
    assert (again.returncode, again.stdout) == (0, "")
    assert len(machine.calls()) == 3


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 104\n"])
def test_the_service_policy_is_as_it_was_afterwards(machine: Machine, before: str | None) -> None:
    """
    While packages are installed no service may start; afterwards the machine's own policy, or its absence, is back.
    """
    if before is not None:
        machine.policy.write_text(before)
    machine.run()
    assert "policy 101" in machine.calls()
    assert (machine.policy.read_text() if machine.policy.exists() else None) == before
    assert [path.name for path in machine.here.glob("*.saved")] == []


def test_a_policy_left_by_a_killed_run_is_removed(machine: Machine) -> None:
    """
    A run that was killed in the middle leaves its policy behind; the next one restores what was there before both.
    """
    machine.policy.write_text("#!/bin/sh\n# written by install-system-programs\nexit 101\n")
    saved = machine.here / "policy-rc.d.saved"
    saved.write_text("#!/bin/sh\nexit 104\n")
    machine.run()
    assert machine.policy.read_text() == "#!/bin/sh\nexit 104\n"
    assert not saved.exists()


def test_updates_are_tried_a_bounded_number_of_times(machine: Machine) -> None:
    """
    Without a network the script gives up after three tries, says what is left out, and fails.
    """
    done = machine.run({"UPDATE_STATUS": "100", "UNAVAILABLE": " ".join(PACKAGES.values())})
    assert done.returncode == 1
    assert machine.calls().count("-qq update") == 3
    assert all(f"{shown(command)} could not be installed" in done.stderr for command in PACKAGES)
    assert not machine.policy.exists()


def test_one_package_that_does_not_exist_keeps_no_other_away(machine: Machine) -> None:
    """
    Where a release lacks one of the packages, the others are installed and only that one is named.
    """
    done = machine.run({"UNAVAILABLE": "chromium"})
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("chromium could not be installed, so the page tests")
    assert line.endswith("are left out; try: apt-get install chromium")
    assert all(machine.path_of(command).exists() for command in PACKAGES if command != "chromium")


@pytest.mark.parametrize("missing", ["id", "apt-get"])
def test_where_it_may_not_install_it_says_what_is_left_out(machine: Machine, missing: str) -> None:
    """
    Without root's rights or without apt-get, each missing program gets one sentence, and nothing is an error.
    """
    if missing == "id":
        machine.add("id", "echo 1000")
    else:
        (machine.bin / "apt-get").unlink()
    machine.add("wrk")
    done = machine.run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [shown(command) for command in PACKAGES if command != "wrk"]
    assert all("left out; install" in line and line.endswith(".") for line in lines)
    assert machine.calls() == []
