"""A box's own numbers, read as Prometheus reads them."""

import re
import urllib.request
from collections.abc import Mapping, Sequence


def scrape(page: str) -> dict[str, float]:
    """The box's samples, every worker's by itself."""
    with urllib.request.urlopen(f"{page}/metrics") as response:
        text = response.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+(?:\{.*\})?) (\S+)$", text, re.MULTILINE)}


def total(samples: Mapping[str, float], name: str, label: str = "") -> float:
    """The sum of a family's series that have `label`."""
    return sum(value for key, value in samples.items() if key.partition("{")[0] == name and label in key)


def buckets_of(samples: Mapping[str, float], name: str, label: str = "") -> list[tuple[float, float]]:
    """(upper bound in seconds, results up to it) of a histogram's series that have `label`; [] when it is empty."""
    found: dict[float, float] = {}
    for key, value in samples.items():
        if key.startswith(f"{name}_bucket") and label in key:
            bound = re.search(r'le="([^"]+)"', key)
            assert bound is not None
            found[float(bound[1])] = found.get(float(bound[1]), 0.0) + value
    rows = sorted(found.items())
    return rows if rows and rows[-1][1] else []


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float:
    """Milliseconds, on a straight line within a bucket, as Prometheus does it; 0 without results."""
    if not buckets:
        return 0.0
    rank, below, lower = share * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            upper = lower if bound == float("inf") else bound
            inside = (rank - below) / (count - below) if count > below else 1.0
            return round(1000 * (lower + (upper - lower) * inside), 2)
        below, lower = count, bound
    return 0.0
