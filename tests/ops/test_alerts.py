"""Alert rules: Prometheus takes them, each fires in trouble and is silent in peace, each has a runbook."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[2]
FILE = ROOT / "alerts" / "rules.yaml"
RULES: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["groups"][0]["rules"]
# An hour and a half of trouble, a value a minute. In peace a series stays at 0, or at what PEACE says.
GROWING = "0+60x90"
TROUBLE = {
    "AdserverMetricsAbsent": {},
    "AdserverStoreAway": {"adserver_store_up": "0x90"},
    "AdserverLagGrowing": {"adserver_lag_seconds": "301x90"},
    "AdserverEventsRefused": {"adserver_events_refused_total": GROWING},
    "AdserverServedUncounted": {"adserver_served_uncounted_total": GROWING},
    "AdserverAckDegraded": {'adserver_ack_degraded_total{type="click"}': GROWING},
    "AdserverInvariantViolated": {'adserver_invariant_violations{invariant="viewables-impressions"}': "1x90"},
    "AdserverJournalCorrupt": {"adserver_journal_corrupt_total": GROWING},
    "AdserverJournalQuarantined": {"adserver_journal_quarantined_total": GROWING},
    "AdserverJournalsSetAside": {"adserver_journals_set_aside": "1x90"},
    "AdserverDaysSetAside": {"adserver_partitions_set_aside": "1x90"},
    "AdserverDiskLow": {"adserver_journal_disk_free_bytes": "268435455x90"},
    "AdserverNothingSynced": {"adserver_journal_written_total": GROWING, "adserver_journal_synced_total": "0x90"},
    "AdserverWorkersDying": {"adserver_journals_adopted_total": GROWING},
    "AdserverCatalogVersionsDiffer": {
        "adserver_catalog_version": "1x90",
        "adserver_catalog_version_highest": "2x90",
    },
    "AdserverReloadFailing": {'adserver_config_reload_failures_total{cause="store"}': GROWING},
    "AdserverDayNotClosed": {"adserver_closing_blocked": "1x90"},
    "AdserverClockJump": {"adserver_clock_jump_seconds": "121x90"},
    "AdserverGoalsBehind": {"adserver_goals_behind": "1x90"},
}
PEACE = {
    "adserver_store_up": "1x90",
    "adserver_catalog_version_highest": "1x90",
    "adserver_catalog_version": "1x90",
    "adserver_journal_disk_free_bytes": "268435456x90",
    "adserver_journal_written_total": GROWING,
    "adserver_journal_synced_total": GROWING,
}


def promtool(*words: str) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed, so the alert rules are not tried")
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def play(path: Path, rule: dict[str, Any], series: dict[str, str], expected: list[dict[str, Any]]) -> None:
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"eval_time": "80m", "alertname": rule["alert"], "exp_alerts": expected}],
    }
    path.write_text(yaml.safe_dump({"rule_files": [str(FILE)], "evaluation_interval": "1m", "tests": [test]}))
    promtool("test", "rules", str(path))


def test_prometheus_takes_the_rules() -> None:
    """
    Every rule is one that Prometheus can read.
    """
    promtool("check", "rules", str(FILE))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_fires_in_trouble_and_not_in_peace(rule: dict[str, Any], tmp_path: Path) -> None:
    """
    Each alert fires for the trouble it is named after, with its words, and never when all is well.
    """
    trouble = TROUBLE[rule["alert"]]
    alert = {"exp_labels": rule["labels"], "exp_annotations": rule["annotations"]}
    play(tmp_path / "trouble.yaml", rule, trouble, [alert])
    peace = {name: PEACE.get(name, "0x90") for name in trouble} or {'up{job="adserver"}': "1x90"}
    play(tmp_path / "peace.yaml", rule, peace, [])


def test_the_operator_gets_the_same_rules() -> None:
    """
    The component for the Prometheus operator holds the rules of the plain file.
    """
    there = yaml.safe_load((ROOT / "k8s/components/alerts/prometheusrule.yaml").read_text())
    assert there["spec"] == yaml.safe_load(FILE.read_text())


def test_every_alert_has_its_runbook() -> None:
    """
    What an alert points to is a heading of the operations manual.
    """
    headings = re.findall(r"(?m)^### (Adserver\w+)$", (ROOT / "docs/operations.md").read_text())
    assert headings == [rule["alert"] for rule in RULES]
    assert [rule["annotations"]["runbook"] for rule in RULES] == [
        f"docs/operations.md#{one.lower()}" for one in headings
    ]
