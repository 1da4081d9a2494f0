"""Every refusal and every refused picture is counted where it is told, by its transport."""

import errno
import resource
import subprocess
import threading

import aiohttp
import grpc.aio
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from portrait.client import Client, ClientError, Picture
from portrait.errors import OutOfResources, refusal_of
from portrait.kserve import inference_pb2 as kserve
from portrait.kserve import inference_pb2_grpc as kserve_grpc
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from portrait.transports.webrtc import offer_limits
from tests.boxes import serving
from tests.calls import jpeg
from tests.people import Clip
from tests.ports import free_ports
from tests.rtc import Camera, viewer
from tests.whip import publisher, shown, watcher

__all__ = ["shown"]


async def counts(running: RunningService, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """Values of a counter by these labels, as a scrape tells them; without zeros."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{running.http_port}/metrics") as answer:
        text = await answer.text()
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.value
    }


async def refusals(running: RunningService) -> dict[tuple[str, ...], float]:
    return await counts(running, "portrait_admission_refused_total", "transport", "reason")


async def test_every_refusal_is_counted(settings: Settings, shown: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    # The offers are made outside: inside the clients' own sockets would take the port, being on the same loop.
    async with (
        publisher("", shown) as first,
        publisher("", shown) as second,
        watcher("") as third,
        viewer("", Camera(shown)) as fourth,
    ):
        clients = [first, second, third, fourth]
        offers = [await client.offer() for client in clients]
        [port] = free_ports(1)
        limits = {"media_ports": f"{port}-{port}", "max_viewers": 0, "max_sessions": 2}
        async with run_service(settings.model_copy(update=limits)) as running:
            for client in clients:
                client.url = f"http://127.0.0.1:{running.http_port}"
            assert (await first.post(offers[0], "/whip/desk")).status == 201
            assert (await second.post(offers[1], "/whip/desk")).status == 409
            assert (await third.post(offers[2], "/whep/desk")).status == 503
            assert (await third.post(offers[2], "/whep/elsewhere")).status == 409
            assert (await fourth.post(offers[3], "/webrtc")).status == 503
            told = ("stream_taken", "too_many_viewers", "not_published", "no_media_port")
            expected = {("webrtc", reason): 1.0 for reason in told}
            assert await refusals(running) == expected
            picture = jpeg(shown.frames[0])
            async with Client(f"127.0.0.1:{running.grpc_port}") as client, client.open_stream():
                with pytest.raises(ClientError, match="2 of 2 sessions are open"):
                    await client.segment(picture)
                url, headers = f"{first.url}/v1/segment", {"Content-Type": "image/jpeg"}
                async with first.http.post(url, data=picture.message.data, headers=headers) as answer:
                    assert answer.status == 503
                assert (await fourth.post(offers[3], "/webrtc")).status == 503
            monkeypatch.setattr(offer_limits, "BURST", 0)
            assert (await fourth.post(offers[3], "/webrtc")).status == 429
            expected |= {(transport, "too_many_sessions"): 1.0 for transport in ("grpc", "http", "webrtc")}
            expected |= {("webrtc", "too_many_requests"): 1.0}
            assert await refusals(running) == expected
            await running.sessions.drain(0.0)
            async with Client(f"127.0.0.1:{running.grpc_port}") as client:
                with pytest.raises(ClientError, match="the service stops"):
                    await client.segment(picture)
            assert await refusals(running) == {**expected, ("grpc", "draining"): 1.0}


async def test_an_open_stream_that_is_drained_counts_as_no_refusal(service: RunningService) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client, client.open_stream() as stream:
        assert await service.sessions.drain(0) == 1
        with pytest.raises(ClientError) as ended:
            await stream.receive()
        assert ended.value.reason == "DRAINING"
        assert await refusals(service) == {}
        with pytest.raises(ClientError, match="the service stops"):
            await client.segment(jpeg(np.zeros((48, 64, 3), np.uint8)))
        assert await refusals(service) == {("grpc", "draining"): 1.0}


async def test_every_refused_still_is_counted(service: RunningService) -> None:
    data = b"no picture"
    tensor = kserve.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 48, 64, 3])
    request = kserve.ModelInferRequest(model_name="portrait", inputs=[tensor], raw_input_contents=[data])
    address = f"127.0.0.1:{service.grpc_port}"
    async with aiohttp.ClientSession() as http:
        url, headers = f"http://127.0.0.1:{service.http_port}/v1/segment", {"Content-Type": "image/jpeg"}
        async with http.post(url, data=data, headers=headers) as answer:
            assert answer.status == 422
    async with Client(address) as client, grpc.aio.insecure_channel(address) as channel:
        for picture in (Picture.jpeg(data), Picture.i420(data, 64, 48)):
            with pytest.raises(ClientError) as refused:
                await client.segment(picture)
            assert refused.value.reason == "BAD_PICTURE"
        with pytest.raises(grpc.aio.AioRpcError, match="expected"):
            await kserve_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert await counts(service, "portrait_frames_total", "result", "transport") == {
        ("refused", "http"): 1.0,
        ("refused", "grpc"): 3.0,
    }


async def test_a_service_without_a_descriptor_refuses_new_sessions_and_keeps_the_open_ones() -> None:
    """Its first WebRTC session was a 500 with a traceback: something had to be opened, and could not."""
    with serving("--workers", "1", stderr=subprocess.DEVNULL) as (process, told):
        url, picture = told["page"].rstrip("/"), jpeg(np.zeros((48, 64, 3), np.uint8))
        async with (
            viewer(url) as one,
            Client(told["grpc"]) as client,
            client.open_stream() as stream,
        ):
            one.pc.addTransceiver("video")
            offer = await one.offer()
            async with one.http.get(f"{url}/healthz") as answer:  # the connection is kept
                assert answer.status == 200
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (1, 1))
            response = await one.post(offer)
            assert (response.status, (await response.json())["title"]) == (503, "OUT_OF_RESOURCES")
            assert response.headers["Retry-After"] == "5"
            await stream.send(picture, 7)
            reply = await stream.receive()
            assert reply is not None
            assert reply.id == 7
            async with one.http.get(f"{url}/metrics") as answer:
                assert 'refused_total{reason="out_of_resources",transport="webrtc"} 1.0' in await answer.text()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EMFILE, "x"), OSError(errno.ENFILE, "x"), MemoryError(), RuntimeError("can't start new thread")],
)
def test_what_has_run_out_is_a_refusal(error: Exception) -> None:
    assert isinstance(refusal_of(error), OutOfResources)


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "x"), RuntimeError("x"), ConnectionResetError()])
def test_other_errors_of_the_system_are_none(error: Exception) -> None:
    assert refusal_of(error) is None


async def test_a_call_for_which_nothing_is_left_is_refused_and_counted(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        await client.segment(jpeg(np.zeros((48, 64, 3), np.uint8)))
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(ClientError) as refused:
            await client.segment(jpeg(np.zeros((48, 64, 3), np.uint8)))
        monkeypatch.undo()
        assert (refused.value.code, refused.value.reason) == ("UNAVAILABLE", "OUT_OF_RESOURCES")
        await client.segment(jpeg(np.zeros((48, 64, 3), np.uint8)))
    assert await refusals(service) == {("grpc", "out_of_resources"): 1.0}
    assert len(service.sessions) == 0
