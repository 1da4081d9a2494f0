"""The CPU that control groups grant: quotas of both versions, wherever they are set."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portrait.admission.cgroup import Throttling, cpu_budget, cpu_throttling

CORES = float(len(os.sched_getaffinity(0)))

V1 = {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"}


class Tree:
    """A made-up /sys/fs/cgroup and /proc/self/cgroup."""

    def __init__(self, folder: Path) -> None:
        self.root, self.membership = folder / "cgroup", folder / "self"
        self.root.mkdir()

    def put(self, group: str, **files: str) -> None:
        folder = self.root / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)

    @property
    def budget(self) -> float:
        return cpu_budget(self.root, self.membership)

    @property
    def throttling(self) -> Throttling | None:
        return cpu_throttling(self.root, self.membership)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("member", "groups", "cores"),
    [
        # A container with a namespace of its own: its group is the root.
        ("0::/", {"": {"cpu.max": "50000 100000"}}, 0.5),
        ("0::/", {"": {"cpu.max": "max 100000"}}, CORES),
        ("4:cpu,cpuacct:/", {"cpu": V1}, 0.5),
        ("4:cpu,cpuacct:/", {"cpu,cpuacct": V1}, 0.5),
        ("4:cpu,cpuacct:/", {"cpu": {**V1, "cpu.cfs_quota_us": "-1"}}, CORES),
        # systemd's CPUQuota=, and containers in the host's namespace: the group is below the root.
        ("0::/system.slice/p.service", {"system.slice/p.service": {"cpu.max": "50000 100000"}}, 0.5),
        ("9:name=systemd:/a\n4:cpu,cpuacct:/system.slice/p.service", {"cpu/system.slice/p.service": V1}, 0.5),
        # A quota above binds as well, and the smallest one counts.
        ("0::/a.slice/b.service", {"a.slice/b.service": {}, "a.slice": {"cpu.max": "25000 100000"}}, 0.25),
        (
            "0::/a.slice/b.service",
            {"a.slice/b.service": {"cpu.max": "50000 100000"}, "a.slice": {"cpu.max": "25000 100000"}},
            0.25,
        ),
        (
            "0::/a.slice/b.service",
            {"a.slice/b.service": {"cpu.max": "10000 100000"}, "a.slice": {"cpu.max": "25000 100000"}},
            0.1,
        ),
        # The group is not the process's own.
        ("0::/a.service", {"a.service": {}, "b.service": {"cpu.max": "50000 100000"}}, CORES),
        # The host's path in a container that has only its own group mounted.
        ("0::/docker/0123", {"": {"cpu.max": "50000 100000"}}, 0.5),
        ("4:cpu,cpuacct:/docker/0123", {"cpu": V1}, 0.5),
        # A process that was moved out of its namespace, and files that are damaged or missing.
        ("0::/../elsewhere", {"": {"cpu.max": "50000 100000"}}, 0.5),
        ("0::/", {"": {"cpu.max": ""}}, CORES),
        ("", {}, CORES),
        # A name may hold colons.
        ("0::/user.slice/a:b", {"user.slice/a:b": {"cpu.max": "50000 100000"}}, 0.5),
    ],
)
def test_the_budget_is_the_smallest_quota(
    tree: Tree, member: str, groups: dict[str, dict[str, str]], cores: float
) -> None:
    tree.membership.write_text(member + "\n" if member else "")
    for group, files in groups.items():
        tree.put(group, **files)
    assert tree.budget == min(cores, CORES)


V2_STAT = "usage_usec 9\nnr_periods 40\nnr_throttled 7\nthrottled_usec 2500000\n"
V1_STAT = "nr_periods 40\nnr_throttled 7\nthrottled_time 2500000000\n"


@pytest.mark.parametrize(
    ("member", "group", "stat"),
    [
        ("0::/", "", V2_STAT),
        ("4:cpu,cpuacct:/", "cpu", V1_STAT),
        ("0::/system.slice/p.service", "system.slice/p.service", V2_STAT),
        ("0::/system.slice/p.service", "system.slice", V2_STAT),
        ("4:cpu,cpuacct:/a", "cpu/a", V1_STAT),
    ],
)
def test_throttling_is_the_processs_own(tree: Tree, member: str, group: str, stat: str) -> None:
    tree.membership.write_text(member)
    tree.put(group, **{"cpu.stat": stat})
    assert tree.throttling == Throttling(periods=40, throttled=7, seconds=2.5)


def test_throttling_is_the_one_of_the_quota_that_binds(tree: Tree) -> None:
    tree.membership.write_text("0::/a.slice/b.service")
    tree.put("a.slice/b.service", **{"cpu.max": "max 100000", "cpu.stat": V2_STAT.replace("40", "0").replace("7", "0")})
    tree.put("a.slice", **{"cpu.max": "50000 100000", "cpu.stat": V2_STAT})
    assert tree.throttling == Throttling(periods=40, throttled=7, seconds=2.5)


def test_where_the_kernel_counts_no_throttling_there_is_none(tree: Tree) -> None:
    assert tree.throttling is None
    tree.put("", **{"cpu.stat": "usage_usec 9\nuser_usec 5\n"})
    assert tree.throttling is None


def test_this_process_has_a_budget() -> None:
    assert 0 < cpu_budget() <= CORES


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting over /proc needs root")
def test_a_service_with_a_quota_sees_it(tmp_path: Path) -> None:
    """As under systemd: the kernel's files are where they are, with a quota on the service's group."""
    tree = Tree(tmp_path)
    tree.put("system.slice/p.service", **{"cpu.max": "50000 100000", "cpu.stat": V2_STAT})
    tree.put("", **{"cgroup.controllers": "cpu"})
    tree.membership.write_text("0::/system.slice/p.service\n")
    code = "from portrait.admission.cgroup import *; print(cpu_budget(), cpu_throttling().throttled)"
    script = (
        f"mount --make-rprivate / && mount --bind {tree.root} /sys/fs/cgroup && "
        f"mount --bind {tree.membership} /proc/$$/cgroup && exec {sys.executable} -c '{code}'"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"mounts are not allowed here: {done.stderr.strip()}")
    assert done.stdout.split() == ["0.5", "7"]
