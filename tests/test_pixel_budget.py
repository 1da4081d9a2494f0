"""The pixels of stills and backgrounds in memory are bounded, whichever way they come."""

import asyncio
import io
import itertools
import json
import math
import re
import threading
import urllib.error
import urllib.request
from asyncio import timeout
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import grpc.aio
import numpy as np
import pytest

from portrait.admission.pixel_budget import WEBP_PIXELS, PixelBudget
from portrait.client import Client, ClientError, Picture, SyncClient
from portrait.errors import BadOption, TooManyPixels
from portrait.kserve import inference_pb2 as kserve
from portrait.kserve import inference_pb2_grpc as kserve_grpc
from portrait.server.app import run_service
from portrait.settings import Settings
from portrait.transports.grpc.unary import still_share
from portrait.transports.http import connection_limits
from portrait.v1 import segmentation_pb2 as pb
from tests.boxes import serving
from tests.calls import budget_of
from tests.embedded import FINE
from tests.people import clip
from tests.test_hostile_bombs import ask, peak

BOMBS = 8
"""Where nothing bounds them they take 1.1 to 2.3 GiB, by the way they come (two cores with other work, 2026-12-01).

`make bench BENCHMARKS=bombs` sends 12."""

SIDE_OF_BOMB = 5000
MANIFEST = Path(__file__).parents[1] / "deploy" / "kubernetes" / "base" / "deployment.yaml"
UNITS = {"Mi": 2**20, "Gi": 2**30}

Told = dict[str, Any]


def bomb() -> bytes:
    """A kilobyte of WebP that holds 25 megapixels."""
    pixels = np.full((SIDE_OF_BOMB, SIDE_OF_BOMB, 3), 90, np.uint8)
    data = bytes(cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 101])[1])  # above 100: lossless
    assert len(data) < 2048
    return data


def shipped_limit() -> int:
    """Bytes of memory that the shipped manifest allows."""
    found = re.search(r"limits: \{.*memory: (\d+)([MG]i)\}", MANIFEST.read_text())
    assert found
    return int(found[1]) * UNITS[found[2]]


def by_http(told: Told, data: bytes) -> bool:
    """Whether the picture is answered; if not, it was refused with a time to try again."""
    status, headers, body = ask_with_headers(told["page"] + "v1/segment?mode=cutout", data)
    if status == 200:
        header = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
        assert header is not None
        assert header.shape == (SIDE_OF_BOMB // 8, SIDE_OF_BOMB // 8)
        return True
    assert (status, json.loads(body)["title"]) == (503, "TOO_MANY_PIXELS")
    assert int(headers["Retry-After"]) >= 1
    return False


def by_http_background(told: Told, data: bytes) -> bool:
    small = bytes(cv2.imencode(".jpg", clip(64, 48, 1).frames[0])[1])
    part = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a"\r\n\r\n%s\r\n'
    body = part % (b"image", small) + part % (b"background", data) + b"--x--\r\n"
    kind = "multipart/form-data; boundary=x"
    status, answer = ask("POST", told["page"] + "v1/segment?mode=image", body, Content_Type=kind)
    if status == 503:
        assert json.loads(answer)["title"] == "TOO_MANY_PIXELS"
        return False
    assert status == 200
    return True


def ask_with_headers(url: str, data: bytes) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(url, data, {"Content-Type": "image/webp"})
    try:
        with urllib.request.urlopen(request, timeout=500) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def by_grpc(told: Told, data: bytes, layout: "pb.PictureFormat.ValueType" = pb.PICTURE_FORMAT_PNG) -> bool:
    with SyncClient(told["grpc"]) as client:
        try:
            reply = client.segment(Picture.jpeg(data), mode="cutout", format=layout, timeout=500)
        except ClientError as error:
            check_refusal(error)
            return False
    assert (reply.picture.width, reply.picture.height) == (SIDE_OF_BOMB, SIDE_OF_BOMB)
    return True


def by_grpc_without_compression(told: Told, data: bytes) -> bool:
    """Results of 100 MB."""
    return by_grpc(told, data, pb.PICTURE_FORMAT_RGBA32)


def by_kserve(told: Told, data: bytes) -> bool:
    tensor = kserve.ModelInferRequest.InferInputTensor(
        name="image", datatype="BYTES", shape=[1], contents=kserve.InferTensorContents(bytes_contents=[data])
    )
    with grpc.insecure_channel(told["grpc"]) as channel:
        stub = kserve_grpc.GRPCInferenceServiceStub(channel)
        try:
            answer = stub.ModelInfer(kserve.ModelInferRequest(inputs=[tensor]), timeout=500)
        except grpc.RpcError as error:
            check_refusal(ClientError.from_rpc(error))  # type: ignore[arg-type]
            return False
    assert len(answer.raw_output_contents[0]) == FINE * FINE
    return True


def check_refusal(error: ClientError) -> None:
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_PIXELS")
    assert error.retry_after is not None
    assert error.retry_after > 0


@pytest.mark.parametrize(
    "way", [by_http, by_http_background, by_grpc, by_grpc_without_compression, by_kserve], ids=lambda way: way.__name__
)
def test_many_large_pictures_at_once_stay_below_the_shipped_memory_limit(way: Callable[[Told, bytes], bool]) -> None:
    """Meanwhile the frames of a live stream are answered, each with its own result."""
    data, frames = bomb(), clip(320, 240, 8).frames
    # Whatever the machine does meanwhile, a slow still is not one that hangs.
    with serving("--workers", "1", "--media-ports", "0-0", "--hang-seconds", "600") as (process, told):
        end_stream = streaming(told, frames)
        with ThreadPoolExecutor(BOMBS) as pool:
            results = list(pool.map(lambda _: way(told, data), range(BOMBS)))
        replies = end_stream()
        print(f"{way.__name__}: {sum(results)} of {BOMBS} answered, peak {peak(process.pid) / 2**20:.0f} MB")
        assert any(results)
        assert peak(process.pid) < shipped_limit()
        assert replies == list(range(len(replies)))
        # All of them have been given back.
        assert way(told, data)


def streaming(told: Told, frames: list[Any]) -> Callable[[], list[int]]:
    """Stream frames on a thread of its own, from the first reply on; what is given ends that after a further reply.

    It gives the numbers of all replies.
    """
    stop, answered = threading.Event(), threading.Semaphore(0)

    def source() -> Iterator[Picture]:
        for frame in itertools.cycle(frames):
            if stop.wait(1 / 15):  # as a camera does, which leaves the processor to the pictures
                return
            yield Picture.jpeg(bytes(cv2.imencode(".jpg", frame)[1]))

    def run() -> list[int]:
        numbers = []
        with SyncClient(told["grpc"]) as client:
            for reply in client.stream(source(), mode="blur", every_frame=True, reply_seconds=300):
                assert reply.error is None
                numbers.append(reply.id)
                answered.release()
        return numbers

    pool = ThreadPoolExecutor(1)
    running = pool.submit(run)
    assert answered.acquire(timeout=300)

    def end_stream() -> list[int]:
        while answered.acquire(blocking=False):
            pass
        assert answered.acquire(timeout=300)
        stop.set()
        pool.shutdown()
        return running.result()

    return end_stream


async def test_a_result_that_is_not_read_is_given_up_in_time(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then it counts; a picture that needs all of the budget waits for it."""
    monkeypatch.setattr(connection_limits, "ANSWER_SECONDS", 2.0)
    side = 2000
    data = bytes(cv2.imencode(".jpg", np.random.default_rng(7).integers(0, 256, (side, side, 3), np.uint8))[1])
    # As PNG the noise of a room that stays as it is takes 12 MB: more than the kernel's buffers hold.
    head = (
        b"POST /v1/segment?mode=blur-person HTTP/1.1\r\nHost: x\r\nAccept: image/png\r\n"
        b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    )
    bounded = settings.model_copy(update={"max_pixels_in_flight": side * side, "hang_seconds": 300.0})
    async with run_service(bounded) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port, limit=2**12)
        writer.write(head % len(data) + data)
        assert b"200" in await asyncio.wait_for(reader.readline(), 120)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        url = f"http://127.0.0.1:{running.http_port}/v1/segment?mode=mask"
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, data=io.BytesIO(data), headers={"Content-Type": "image/jpeg"}) as response,
        ):
            assert response.status == 200
            await response.read()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with timeout(connection_limits.KEEP_ALIVE_SECONDS / 2):  # a whole result would leave it open for longer
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(side * side * 3)
        writer.close()


async def test_a_result_that_is_not_read_over_grpc_counts_until_the_call_ends(settings: Settings) -> None:
    side = 2000
    data = bytes(cv2.imencode(".jpg", np.full((side, side, 3), 90, np.uint8))[1])
    bounded = settings.model_copy(update={"max_pixels_in_flight": side * side, "hang_seconds": 300.0})
    output = pb.Output(mode="cutout", format=pb.PICTURE_FORMAT_RGBA32)
    message = pb.SegmentRequest(picture=Picture.jpeg(data).message, output=output).SerializeToString()
    async with run_service(bounded) as running, AsyncExitStack() as stack:
        target = f"127.0.0.1:{running.grpc_port}"
        client = await stack.enter_async_context(Client(target))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        # On the wire a call with one response is as any; this one does not read it.
        unread = channel.unary_stream("/portrait.v1.SegmentationService/Segment")(message)
        await unread.initial_metadata()
        with pytest.raises(ClientError) as refused:
            await client.segment(Picture.jpeg(data), timeout=120)
        assert refused.value.reason == "TOO_MANY_PIXELS"
        unread.cancel()
        await client.segment(Picture.jpeg(data), timeout=120)


async def test_pictures_wait_for_pixels_in_the_order_in_which_they_come() -> None:
    async with budget_of(10) as budget:
        first = await budget.take(6)
        order: list[int] = []

        async def wait(pixels: int) -> None:
            with await budget.take(pixels):
                order.append(pixels)

        large, small = asyncio.create_task(wait(8)), asyncio.create_task(wait(1))
        await asyncio.sleep(0)
        assert order == []  # the small one would fit, and would keep the large one waiting
        first.release()
        first.release()  # which changes nothing
        await asyncio.gather(large, small)
        assert order == [8, 1]
        with await budget.take(100):  # larger than the budget: alone
            pass


async def test_the_background_of_an_open_stream_waits_for_no_still_that_waits() -> None:
    async with budget_of(10) as budget:
        held = await budget.take(4)
        order: list[str] = []

        async def wait(name: str, pixels: int, ahead: bool) -> None:
            with await budget.take(pixels, ahead=ahead):
                order.append(name)
                await asyncio.sleep(0)

        still = asyncio.create_task(wait("still", 10, ahead=False))
        await asyncio.sleep(0)
        await asyncio.wait_for(wait("fits", 6, ahead=True), 60)
        waiting = asyncio.create_task(wait("waits", 7, ahead=True))
        await asyncio.sleep(0)
        held.release()
        await asyncio.gather(still, waiting)
    assert order == ["fits", "waits", "still"]


async def test_a_picture_over_the_budget_is_refused_in_time() -> None:
    async with PixelBudget(10, wait_seconds=0.05) as budget:
        with await budget.take(10):
            with pytest.raises(TooManyPixels) as refused:
                await budget.take(1)
            assert refused.value.retry_after > 0
        with await budget.take(10):
            pass


async def test_a_picture_whose_client_leaves_keeps_nobody_waiting() -> None:
    async with budget_of(10) as budget:
        held = await budget.take(4)
        leaving = asyncio.create_task(budget.take(10))
        following = asyncio.create_task(budget.take(6))
        await asyncio.sleep(0)
        leaving.cancel()
        (await following).release()
        # Cancelled in the very step in which it is granted.
        leaving = asyncio.create_task(budget.take(10))
        await asyncio.sleep(0)
        held.release()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        with await budget.take(10):
            pass


async def test_a_share_is_given_back_in_parts() -> None:
    async with budget_of(10) as budget:
        with await budget.take(10) as share:
            kept = share.split(3)
        taken = await budget.take(7)
        waiting = asyncio.create_task(budget.take(1))
        await asyncio.sleep(0)
        assert not waiting.done()
        kept.release()
        await waiting
        taken.release()


async def test_a_result_in_webp_counts_three_times_and_has_fewer_pixels() -> None:
    async with budget_of(4 * 64 * 48) as budget:
        for picture in (Picture.jpeg(small_picture()).message, Picture.rgb24(np.zeros((48, 64, 3), np.uint8)).message):
            with await still_share(picture, budget, 10**8, "picture", webp=True) as share:
                assert share.pixels == 3 * 64 * 48
        side = math.isqrt(WEBP_PIXELS) + 1
        large = pb.Picture(format=pb.PICTURE_FORMAT_RGB24, width=side, height=side)
        with pytest.raises(BadOption, match=f"expected at most {WEBP_PIXELS}; ask for PNG or JPEG"):
            await still_share(large, budget, 10**8, "picture", webp=True)


def small_picture() -> bytes:
    return bytes(cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1])
