"""Scraping, rules and alerts."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from portrait.metrics import Metrics
from tests.deploy import DEPLOY, ROOT, tool

PROMETHEUS = DEPLOY / "prometheus"
ALERTS = yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())["groups"][0]["rules"]
RECORDED = [
    rule["record"]
    for group in yaml.safe_load((PROMETHEUS / "rules" / "recording.yml").read_text())["groups"]
    for rule in group["rules"]
]


def series_names() -> set[str]:
    """Every name that a scrape of the service gives."""
    text = Metrics().expose("")[0].decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, kind in types.items() for suffix in parts.get(kind, ("",))}


def promtool(*arguments: str | Path, given: str = "") -> str:
    result = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, cwd=PROMETHEUS, input=given)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_configuration_and_its_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_what_the_service_tells_keeps_to_the_rules_of_names_and_units() -> None:
    assert promtool("check", "metrics", given=Metrics().expose("")[0].decode()) == ""


@pytest.mark.parametrize("file", ["healthy.yml", "alerts.yml"])
def test_alerts_fire_when_they_must_and_are_quiet_on_a_healthy_box(file: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", f"tests/{file}")


def test_every_alert_is_seen_firing() -> None:
    tests = yaml.safe_load((PROMETHEUS / "tests" / "alerts.yml").read_text())["tests"]
    fired = {rule["alertname"] for test in tests for rule in test["alert_rule_test"] if rule["exp_alerts"]}
    assert fired == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_has_its_lines_in_the_runbook(alert: dict[str, dict[str, str]]) -> None:
    page, _, anchor = alert["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^## (\w+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in [heading.lower() for heading in headings]


def test_rules_ask_only_for_what_the_service_tells() -> None:
    asked = {
        name
        for file in (PROMETHEUS / "rules").glob("*.yml")
        for expr in re.findall(r"expr: (.*(?:\n {10,}.*)*)", file.read_text())
        for name in re.findall(r"(?<![:\w])(?:portrait|process)_\w+(?![:\w])", expr)
    }
    assert len(asked) > 10
    assert asked <= series_names()
