"""What the kernel's control groups grant this process: cores, and how often they were used up."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
"""Names the process's group in each hierarchy, a line each: "0::/PATH" for v2, "4:cpu,cpuacct:/PATH" for v1."""


@dataclass(frozen=True, slots=True)
class Throttling:
    """Counted since the group was made."""

    periods: int
    """Scheduling periods, 0.1 s each unless configured otherwise, in which the group had work."""
    throttled: int
    """Periods in which it used up its quota and had to wait."""
    seconds: float
    """How long it waited, summed over its cores."""


def cpu_budget(root: Path = ROOT, membership: Path = MEMBERSHIP) -> float:
    """Cores this process may use: those it may run on, or the smallest quota of its control groups if that is less."""
    quotas = [quota for group in _groups(root, membership) if (quota := _quota(group)) is not None]
    return min([float(len(os.sched_getaffinity(0))), *quotas])


def cpu_throttling(root: Path = ROOT, membership: Path = MEMBERSHIP) -> Throttling | None:
    """Throttling of the group with the smallest quota; None where the kernel counts none, as outside a container."""
    counted = [(_quota(group), counts) for group in _groups(root, membership) if (counts := _throttling(group))]
    if not counted:
        return None
    limited = [(quota, counts) for quota, counts in counted if quota is not None]
    return min(limited, key=lambda pair: pair[0])[1] if limited else counted[0][1]


def _groups(root: Path, membership: Path) -> list[Path]:
    """The folders of this process's groups and of all above them, the nearest first.

    A quota binds everything below it: systemd sets it on a service or a slice, a container runtime on the container.
    In the host's namespace the process's group is far below the root; in a namespace of its own it is the root. A path
    that is not mounted, as in a container that sees the host's paths, leaves the root.
    """
    groups = []
    for line in _lines(membership):
        _, controllers, path = line.split(":", 2)
        parts = [part for part in path.split("/") if part not in ("", "..")]
        tops = [root / "cpu", root / controllers] if "cpu" in controllers.split(",") else [] if controllers else [root]
        groups += [top.joinpath(*parts[:depth]) for top in tops for depth in range(len(parts), -1, -1)]
    is_v2 = (root / "cgroup.controllers").exists()
    groups += [root] if is_v2 else [root / "cpu", root]
    return [group for group in dict.fromkeys(groups) if group.is_dir()]


def _quota(group: Path) -> float | None:
    """Cores that a group may use (v2, then v1); None if it has no quota."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _throttling(group: Path) -> Throttling | None:
    """The counts of a group (v2 in microseconds, v1 in nanoseconds); None if it keeps none."""
    counts = {name: value for name, _, value in (line.partition(" ") for line in _lines(group / "cpu.stat"))}
    if "nr_throttled" not in counts:
        return None
    micros, nanos = counts.get("throttled_usec"), counts.get("throttled_time", "0")
    seconds = int(micros) / 1e6 if micros is not None else int(nanos) / 1e9
    return Throttling(int(counts["nr_periods"]), int(counts["nr_throttled"]), seconds)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


class CpuGrants(Collector):
    """The CPU that the kernel grants, read at each scrape; without samples of throttling where none is counted."""

    def collect(self) -> Iterator[Metric]:
        """One gauge and three counters."""
        throttling = cpu_throttling()
        counts = (None,) * 3 if throttling is None else (throttling.periods, throttling.throttled, throttling.seconds)
        yield GaugeMetricFamily("portrait_cpu_budget_cores", "Cores this process may use.", cpu_budget())
        texts = {
            "portrait_cpu_periods": "Scheduling periods in which the control group had work.",
            "portrait_cpu_throttled_periods": "Periods in which it used up its quota and had to wait.",
            "portrait_cpu_throttled_seconds": "How long it waited, summed over its cores.",
        }
        for (name, text), count in zip(texts.items(), counts, strict=True):
            yield CounterMetricFamily(name, text, count)
