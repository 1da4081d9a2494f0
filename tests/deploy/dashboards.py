"""The dashboards' questions, as Prometheus gets them."""

import json

from tests.deploy import DEPLOY

BOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


def expressions() -> list[str]:
    """Every expression of every panel and annotation, once."""
    found: dict[str, None] = {}
    for path in BOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            found |= dict.fromkeys(target["expr"] for target in panel["targets"])
    return list(found)


def plain(expression: str, interval: str = "1m") -> str:
    """The expression with Grafana's variables filled in, for all boxes."""
    return expression.replace("$instance", ".*").replace("$__rate_interval", interval)
