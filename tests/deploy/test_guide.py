"""docs/operate/deployment.md: its arithmetic follows from what was measured, and what it points to is there."""

import re

from tests.deploy import ROOT

GUIDE = (ROOT / "docs" / "operate" / "deployment.md").read_text()
RATE, USED = 30, 0.7
INSTANCE_CORES = 2


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_the_arithmetic_of_scaling_follows_from_the_measured_call() -> None:
    readme = (ROOT / "README.md").read_text()
    measured = re.search(r"^\| 640x480 \| blur \|.*\| ([\d.]+) ms \|$", readme, re.MULTILINE)
    row = re.search(r"^\| WebRTC, 640x480, blur.*\| ([\d.]+) ms \| ([\d.]+) \| (\d+) \|$", GUIDE, re.MULTILINE)
    assert measured is not None
    assert row is not None
    milliseconds, cores, fitting = map(float, row.groups())
    assert milliseconds == float(measured[1]), "README.md was measured anew: work the tables out again"
    assert cores == round(milliseconds * RATE / 1000, 2)
    assert fitting == INSTANCE_CORES * USED // cores
    for streams in (10, 100, 10_000):
        line = re.search(rf"^\| {streams:,} \| (.*?) \| ([\d,]+) instances", GUIDE, re.MULTILINE)
        assert line is not None
        wanted = streams * cores / USED
        assert abs(number(re.findall(r"[\d,.]+", line[1])[-1]) - wanted) < 0.02 * wanted
        assert number(line[2]) == -(-streams // fitting)
