"""The dashboards as files. That every expression returns data is seen in tests/deploy/live."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.deploy import DEPLOY
from tests.deploy.dashboards import BOARDS, annotations, choices, expressions, plain
from tests.deploy.monitoring import FILES, FOLDER
from tests.deploy.pictures import Series, draw
from tests.deploy.test_prometheus import promtool, series_names

DATA_SOURCE = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]

dashboards = pytest.mark.parametrize("board", [json.loads(path.read_text()) for path in BOARDS], ids=lambda b: b["uid"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


@dashboards
def test_panels_explain_themselves_and_use_the_data_source_that_is_chosen(board: dict[str, Any]) -> None:
    choice = board["templating"]["list"][0]
    assert (choice["name"], choice["type"], choice["query"]) == ("datasource", "datasource", DATA_SOURCE["type"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": DATA_SOURCE["type"], "uid": "${datasource}"}


@dashboards
def test_panels_lie_side_by_side(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not [pair for pair in itertools.combinations(places, 2) if overlap(*pair)]


def test_every_expression_is_promql_and_needs_no_recording_rules(tmp_path: Path) -> None:
    """So that a dashboard shows data wherever it is imported."""
    rules = [{"record": f"panel:{i}", "expr": plain(expr)} for i, expr in enumerate([*expressions(), *annotations()])]
    assert len(rules) > 30
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)
    for rule in rules:
        assert not re.search(r"\w:portrait_", rule["expr"])


@pytest.mark.parametrize("name", FILES)
def test_what_a_cluster_is_given_is_made_of_the_same_files(name: str) -> None:
    assert (FOLDER / name).read_text() == FILES[name](), "run: make monitoring"


def panel(title: str) -> dict[str, str]:
    """A panel's expressions by their legends."""
    boards = [json.loads(path.read_text()) for path in BOARDS]
    (found,) = [each for board in boards for each in board["panels"] if each["title"] == title]
    return {target["legendFormat"]: plain(target["expr"]) for target in found["targets"]}


def test_a_box_of_two_workers_is_one_box_of_its_cores_and_its_memory(tmp_path: Path) -> None:
    """Each worker tells of the whole box's cores and stops; its memory and its start are its own."""
    labels = '{{instance="box:8080", job="portrait", worker="{}"}}'
    told = {  # at 0, 15, .. 120 s, by the first worker and the second
        "portrait_cpu_budget_cores": ("4x8", "4x8"),
        "portrait_cpu_throttled_seconds_total": ("0+6x8", "0+6x8"),
        "process_resident_memory_bytes": ("100x8", "200x8"),
        "process_start_time_seconds": ("0x8", "50x8"),
        "ALERTS": ("1x8", "1x8"),
    }
    series = [
        {"series": name + labels.format(worker), "values": values}
        for name, both in told.items()
        for worker, values in enumerate(both)
    ]
    box = '{instance="box:8080", job="portrait"}'
    wanted = {
        panel("CPU per stage")["granted"]: ("{}", 4),
        panel("Standing still for want of quota")["{{instance}}"]: (box, 0.1),
        panel("Memory")["{{instance}}"]: (box, 300),
        panel("Running since")["{{instance}}"]: (box, 70),
        panel("Alerts firing")[""]: ("{}", 0),  # none of them is ours
    }
    asked = [
        {"expr": expr, "eval_time": "2m", "exp_samples": [{"labels": given, "value": value}]}
        for expr, (given, value) in wanted.items()
    ]
    test = {"interval": "15s", "input_series": series, "promql_expr_test": asked}
    file = tmp_path / "workers.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "15s", "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", file)


def test_every_kind_of_panel_can_be_drawn(tmp_path: Path) -> None:
    """The pictures of the docs; that real answers fill them is seen in tests/deploy/live."""
    times = np.arange(60.0)

    def source(expression: str) -> list[Series]:
        labels = dict.fromkeys(("instance", "transport", "mode", "stage", "result", "reason"), "some")
        bounds = ["0.01", "0.1", "+Inf"] if "_bucket" in expression else ["unused"]
        return [Series({**labels, "le": bound}, times, times + i) for i, bound in enumerate(bounds)]

    for path in BOARDS:
        drawn = draw(path, source, tmp_path / "board.png")
        assert drawn == [panel["title"] for panel in json.loads(path.read_text())["panels"]]
        assert (tmp_path / "board.png").read_bytes().startswith(b"\x89PNG")


def test_the_choice_of_boxes_is_filled_from_a_series_that_the_service_tells() -> None:
    assert choices() == {("portrait_build_info", "job"), ("portrait_build_info", "instance")}
    assert "portrait_build_info" in series_names()
