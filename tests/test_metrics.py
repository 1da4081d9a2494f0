"""What a scrape says."""

from pathlib import Path

import pytest

from portrait.admission.cgroup import Throttling, cpu_throttling
from portrait.core.compositors import Options
from portrait.metrics import Metrics
from portrait.sessions.registry import Sessions
from tests.fakes import FakeModel, full_mask, only
from tests.frames import GREEN, FrameCodec


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


async def test_sessions_are_counted_by_their_current_mode() -> None:
    metrics = Metrics()
    sessions = Sessions(only(FakeModel(full_mask)), 4, metrics)
    async with sessions.open("grpc", FrameCodec(), Options("mask")):
        async with sessions.open("grpc", FrameCodec(), Options("mask")) as other:
            assert 'portrait_sessions_by_mode{mode="mask",transport="grpc"} 2.0' in scrape(metrics)
            other.change(GREEN)
            lines = scrape(metrics)
            assert 'portrait_sessions_by_mode{mode="mask",transport="grpc"} 1.0' in lines
            assert 'portrait_sessions_by_mode{mode="color",transport="grpc"} 1.0' in lines
        lines = scrape(metrics)
    assert 'portrait_sessions_by_mode{mode="mask",transport="grpc"} 1.0' in lines
    assert 'portrait_sessions_by_mode{mode="color",transport="grpc"} 0.0' in lines


def test_what_alerts_watch_is_counted_from_0_on() -> None:
    lines = scrape(Metrics())
    for reason in ("too_many_sessions", "out_of_cpu", "too_many_viewers", "no_media_port", "stream_taken"):
        assert f'portrait_admission_refused_total{{reason="{reason}",transport="webrtc"}} 0.0' in lines
    assert 'portrait_frames_total{reason="segmentation_failed",result="failed_closed",transport="webrtc"} 0.0' in lines


@pytest.mark.parametrize("worker", [None, "0"])
@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_no_series_says_when_another_was_created(worker: str | None, accept: str) -> None:
    metrics = Metrics(worker)
    metrics.frame("grpc", "done")
    metrics.frame_age("grpc", 0.01)
    text = metrics.expose(accept)[0].decode()
    assert "portrait_frames_total" in text
    assert "_created" not in text
