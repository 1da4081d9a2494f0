"""The dashboards' questions, as Prometheus gets them."""

import json
import re

from tests.deploy import DEPLOY

BOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


def expressions() -> list[str]:
    """Every expression of every panel, once."""
    found: dict[str, None] = {}
    for path in BOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            found |= dict.fromkeys(target["expr"] for target in panel["targets"])
    return list(found)


def annotations() -> list[str]:
    """The expressions that say when something happened, and otherwise nothing."""
    boards = [json.loads(path.read_text()) for path in BOARDS]
    return [annotation["expr"] for board in boards for annotation in board["annotations"]["list"]]


def choices() -> set[tuple[str, str]]:
    """(series, label) that the boards' lists of choices are filled from."""
    boards = [json.loads(path.read_text()) for path in BOARDS]
    variables = [variable for board in boards for variable in board["templating"]["list"]]
    queries = [variable["query"]["query"] for variable in variables if variable["type"] == "query"]
    found = {re.sub(r"^label_values\((\w+)(?:{.*})?, (\w+)\)$", r"\1 \2", query) for query in queries}
    return {(series, label) for series, label in (query.split() for query in found)}


def plain(expression: str, interval: str = "1m") -> str:
    """The expression with Grafana's variables filled in, for all boxes."""
    return expression.replace("$instance", ".*").replace("$job", "portrait").replace("$__rate_interval", interval)
