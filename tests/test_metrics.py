"""What a scrape says."""

from pathlib import Path

import pytest

from portrait.admission.cgroup import Throttling, cpu_throttling
from portrait.metrics import Metrics


def scrape(metrics: Metrics) -> list[str]:
    return metrics.expose("")[0].decode().splitlines()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("cpu.stat", "usage_usec 9\nnr_periods 40\nnr_throttled 7\nthrottled_usec 2500000\n"),
        ("cpu/cpu.stat", "nr_periods 40\nnr_throttled 7\nthrottled_time 2500000000\n"),
    ],
    ids=["v2", "v1"],
)
def test_throttling_is_read_from_both_versions_of_control_groups(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert cpu_throttling(tmp_path) == Throttling(periods=40, throttled=7, seconds=2.5)


def test_where_the_kernel_counts_no_throttling_there_is_none(tmp_path: Path) -> None:
    assert cpu_throttling(tmp_path) is None
    (tmp_path / "cpu.stat").write_text("usage_usec 9\nuser_usec 5\n")
    assert cpu_throttling(tmp_path) is None


def test_sessions_are_counted_by_their_mode_of_the_moment() -> None:
    metrics, open_sessions = Metrics(), [("grpc", "mask"), ("grpc", "mask"), ("webrtc", "blur")]
    metrics.modes.list_open = lambda: open_sessions
    assert 'portrait_sessions_by_mode{mode="mask",transport="grpc"} 2.0' in scrape(metrics)
    open_sessions[1] = ("grpc", "color")
    lines = scrape(metrics)
    assert 'portrait_sessions_by_mode{mode="mask",transport="grpc"} 1.0' in lines
    assert 'portrait_sessions_by_mode{mode="color",transport="grpc"} 1.0' in lines


def test_what_alerts_watch_is_counted_from_0_on() -> None:
    lines = scrape(Metrics())
    assert 'portrait_admission_refused_total{reason="too_many_sessions"} 0.0' in lines
    assert 'portrait_frames_total{reason="segmentation_failed",result="failed_closed",transport="webrtc"} 0.0' in lines
