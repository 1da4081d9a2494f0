"""gRPC `Watch`: the results of a stream that another client publishes."""

from asyncio import timeout
from contextlib import aclosing

import cv2
import numpy as np
import pytest

from portrait.client import Client, ClientError
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings
from portrait.v1 import segmentation_pb2 as pb
from tests.people import Clip
from tests.whip import publisher, shown

__all__ = ["shown"]  # a fixture


async def test_a_program_watches_what_a_browser_publishes_until_it_ends(shown: Clip) -> None:
    settings = Settings(http_port=0, grpc_port=0, drain_seconds=0.0, max_viewers=1)
    async with (
        run_service(settings) as service,
        publisher(f"http://127.0.0.1:{service.http_port}", shown) as one,
        Client(f"127.0.0.1:{service.grpc_port}") as client,
    ):
        await one.connect("/whip/desk", mode="color", color="#ff0000")
        async with aclosing(client.watch("desk", composite=True)) as results:
            result = await anext(results)
            with pytest.raises(ClientError) as full:
                await anext(client.watch("desk"))
            assert full.value.reason == "TOO_MANY_VIEWERS"
        picture = cv2.imdecode(np.frombuffer(result.picture.data, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture[5, 5, 2] > 200
        masks = client.watch("desk", format=pb.PICTURE_FORMAT_GRAY8_ZLIB)
        async with timeout(60), aclosing(masks) as results:
            first = await anext(results)
            assert first.array.shape == (first.picture.height, first.picture.width)
            async with one.http.delete(one.location) as deleted:
                assert deleted.status == 200
            with pytest.raises(ClientError) as ended:
                async for _ in results:
                    pass
        assert (ended.value.reason, ended.value.retry_after) == ("NOT_PUBLISHED", 2.0)


async def test_what_cannot_be_watched_is_refused_by_its_field(service: RunningService) -> None:
    async with Client(f"127.0.0.1:{service.grpc_port}") as client:
        for stream, options, reason in (
            ("", {}, "BAD_OPTION"),
            ("desk", {"format": pb.PICTURE_FORMAT_JPEG}, "BAD_OPTION"),
            ("desk", {"format": pb.PICTURE_FORMAT_GRAY8, "composite": True}, "BAD_OPTION"),
            ("desk", {"format": 99}, "BAD_OPTION"),
            ("nobody", {}, "NOT_PUBLISHED"),
        ):
            with pytest.raises(ClientError) as refused:
                await anext(client.watch(stream, **options))  # type: ignore[arg-type]
            assert refused.value.reason == reason, (stream, options)
