"""A box's metrics as numbers to calculate with."""

import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

Series: TypeAlias = tuple[str, frozenset[tuple[str, str]]]
"""A sample's name and its labels with their values."""


class Counters:
    """The samples of one scrape."""

    def __init__(self, samples: Mapping[Series, float]) -> None:
        self._samples = samples

    def since(self, earlier: "Counters") -> "Counters":
        """Return what has been counted since an earlier scrape."""
        return Counters({series: value - earlier._samples.get(series, 0.0) for series, value in self._samples.items()})

    def total(self, name: str, **labels: str) -> float:
        """Sum the samples of a name that have these labels, over all workers."""
        return sum(value for _, value in self._named(name, labels))

    def largest(self, name: str) -> float:
        """Return the largest sample of a name; 0 where there is none."""
        return max((value for _, value in self._named(name, {})), default=0.0)

    def quantile(self, share: float, name: str, **labels: str) -> float:
        """Estimate a quantile of a histogram of seconds, in milliseconds; 0 where it is empty."""
        buckets: dict[float, float] = {}
        for present, value in self._named(f"{name}_bucket", labels):
            bound = float(present["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value
        return quantile(sorted(buckets.items()), share)

    def _named(self, name: str, labels: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
        for (each, present), value in self._samples.items():
            if each == name and labels.items() <= present:
                yield dict(present), value


def read_counters(page: str) -> Counters:
    """Read the metrics of the box whose page is at this address, without a slash at the end."""
    with urllib.request.urlopen(f"{page}/metrics") as response:
        families = text_string_to_metric_families(response.read().decode())
    samples = (sample for family in families for sample in family.samples)
    return Counters({(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float:
    """Interpolate a quantile linearly within its bucket, as Prometheus does.

    `buckets` are (upper bound in seconds, results up to it) in order. Returns milliseconds; 0 without results.
    """
    if not buckets or not buckets[-1][1]:
        return 0.0
    rank, below, lower = share * buckets[-1][1], 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            upper = lower if bound == float("inf") else bound
            inside = (rank - below) / (count - below) if count > below else 1.0
            return round(1000 * (lower + (upper - lower) * inside), 2)
        below, lower = count, bound
    return 0.0
