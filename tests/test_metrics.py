"""What a scrape says."""

import pytest

from portrait.core.compositors import Options
from portrait.metrics import Metrics
from portrait.sessions.registry import Sessions
from tests.fakes import FakeModel, full_mask, only
from tests.frames import GREEN, FrameCodec


def scrape(metrics: Metrics) -> list[str]:
    return metrics.expose("")[0].decode().splitlines()


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
