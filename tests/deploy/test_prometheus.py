"""Scraping, rules and alerts."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from portrait.admission.cgroup import CpuGrants, Throttling
from portrait.errors import Refused
from portrait.metrics import TRANSPORTS, Metrics
from tests.deploy import DEPLOY, ROOT, tool

PROMETHEUS = DEPLOY / "prometheus"
ALERTS = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
TESTS = ["healthy.yml", "alerts.yml", "service_levels.yml"]
RECORDED = [
    rule["record"]
    for group in yaml.safe_load((PROMETHEUS / "rules" / "recording.yml").read_text())["groups"]
    for rule in group["rules"]
]


def series_names() -> set[str]:
    """Every name that a scrape of the service gives."""
    metrics = Metrics()
    metrics.registry.register(CpuGrants())
    text = metrics.expose("")[0].decode()
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


@pytest.mark.parametrize("file", TESTS)
def test_alerts_fire_when_they_must_and_are_quiet_on_a_healthy_box(file: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", f"tests/{file}")


def series(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """(name, labels) -> value of every series of a scrape."""
    families = text_string_to_metric_families(metrics.expose("")[0].decode())
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize("file", TESTS)
def test_the_series_of_these_tests_are_the_services_own(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, labels, their values, and the bounds of buckets."""
    monkeypatch.setattr("portrait.admission.cgroup.cpu_throttling", lambda: Throttling(0, 0, 0.0))
    exposed = set()
    for worker in (None, "0", "1"):
        metrics = Metrics(worker)
        metrics.registry.register(CpuGrants())
        metrics.certificate("server", lambda: 0.0)
        exposed |= {*series(metrics)}
    used = [
        (name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels)) - {("job", "portrait"), ("instance", "a:8080")})
        for test in yaml.safe_load((PROMETHEUS / "tests" / file).read_text())["tests"]
        for name, labels in (entry["series"].rstrip("}").split("{") for entry in test["input_series"])
        if name != "up"
    ]
    assert len(used) > 5
    assert [each for each in used if each not in exposed] == []


def kinds_of(error: type[Refused]) -> list[type[Refused]]:
    return [kind for below in error.__subclasses__() for kind in (below, *kinds_of(below))]


BUSY_KINDS = {
    "too_many_sessions",
    "out_of_cpu",
    "out_of_resources",
    "too_many_viewers",
    "too_many_listeners",
    "too_many_pixels",
    "too_many_bytes",
    "too_many_requests",
    "no_media_port",
}
"""Refusals because the box is full. Others say that the client came too early, or to the wrong box."""


def test_a_refusal_fires_its_alert_if_the_box_is_full(tmp_path: Path) -> None:
    """Of every kind and transport, fed with the series that the service exposes before and after it."""
    tests = [_refusal_test(kind, transport) for kind in kinds_of(Refused) for transport in TRANSPORTS]
    rules = [str(PROMETHEUS / "rules" / file) for file in ("recording.yml", "alerts.yml")]
    document = {"rule_files": rules, "evaluation_interval": "15s", "tests": tests}
    (tmp_path / "refused.yml").write_text(yaml.safe_dump(document))
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "refused.yml")
    fired = [rule["exp_alerts"] for test in tests for rule in test["alert_rule_test"] if rule["exp_alerts"]]
    assert len(fired) >= 5 * len(TRANSPORTS)


def _refusal_test(kind: type[Refused], transport: str) -> dict[str, Any]:
    metrics, name, reason = Metrics(), "portrait_admission_refused_total", kind.reason.lower()
    before = series(metrics)
    metrics.refused(transport, kind("try again later", 1.0))
    inputs = []
    for (sample, labels), value in series(metrics).items():
        if sample == name:
            named = ", ".join(f'{label}="{text}"' for label, text in sorted(labels))
            values = f"{before[sample, labels]:g}x40 {value:g}x60"
            inputs.append({"series": f'{name}{{job="portrait", instance="a:8080", {named}}}', "values": values})
    alert = {
        "exp_labels": {"severity": "warning", "job": "portrait", "instance": "a:8080", "reason": reason},
        "exp_annotations": {
            "summary": f"a:8080 turned clients away: {reason}",
            "runbook": "docs/operate/runbook.md#portraitsessionsrefused",
        },
    }
    expected = [alert] if reason in BUSY_KINDS else []
    rule = {"alertname": "PortraitSessionsRefused", "eval_time": "11m", "exp_alerts": expected}
    return {"name": f"{reason} over {transport}", "interval": "15s", "input_series": inputs, "alert_rule_test": [rule]}


def test_every_alert_is_seen_firing() -> None:
    tests = [test for file in TESTS for test in yaml.safe_load((PROMETHEUS / "tests" / file).read_text())["tests"]]
    fired = {rule["alertname"] for test in tests for rule in test.get("alert_rule_test", []) if rule["exp_alerts"]}
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
