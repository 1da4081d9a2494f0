"""What the kernel's control group grants this process: cores, and how often it made it wait for them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Throttling:
    """Counted since the group was made."""

    periods: int
    """Scheduling periods, 0.1 s each unless configured otherwise, in which the group wanted to run."""
    throttled: int
    """Periods in which it had used up its quota and stood still."""
    seconds: float
    """How long it stood still, summed over its cores."""


def cpu_budget(root: Path = ROOT) -> float:
    """Cores this process may use: the cgroup's quota (v2, then v1) or the cores it may run on, whichever is less."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return cores
    return cores if quota in ("max", "-1") else min(cores, int(quota) / int(period))


def cpu_throttling(root: Path = ROOT) -> Throttling | None:
    """The group's throttling (v2, then v1); None where the kernel tells of none, as outside a container."""
    for file, unit in ((root / "cpu.stat", "usec"), (root / "cpu" / "cpu.stat", "time")):
        try:
            lines = file.read_text().splitlines()
        except OSError:
            continue
        counts = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
        if "nr_throttled" in counts:
            # v2 counts microseconds, v1 nanoseconds.
            seconds = counts[f"throttled_{unit}"] / (1e6 if unit == "usec" else 1e9)
            return Throttling(counts["nr_periods"], counts["nr_throttled"], seconds)
    return None


class CpuGrants(Collector):
    """The CPU that the kernel grants, read at the scrape; no samples of throttling where it tells of none."""

    def collect(self) -> Iterator[Metric]:
        """One gauge and three counters."""
        throttling = cpu_throttling()
        counts = (None,) * 3 if throttling is None else (throttling.periods, throttling.throttled, throttling.seconds)
        yield GaugeMetricFamily("portrait_cpu_budget_cores", "Cores this process may use.", cpu_budget())
        texts = {
            "portrait_cpu_periods": "Scheduling periods of the control group.",
            "portrait_cpu_throttled_periods": "Periods in which it stood still, its quota used up.",
            "portrait_cpu_throttled_seconds": "How long it stood still.",
        }
        for (name, text), count in zip(texts.items(), counts, strict=True):
            yield CounterMetricFamily(name, text, count)
