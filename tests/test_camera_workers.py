"""Cameras of a box of several workers: one of them has each camera, and all of them answer for it."""

import asyncio
from contextlib import AsyncExitStack, aclosing
from urllib.parse import urlsplit

from portrait.client import Client, Reply, SyncClient
from tests.boxes import command_line, serving, workers
from tests.http_camera import PASSWORD, http_camera
from tests.people import Clip
from tests.two_workers import get
from tests.whip import shown, watcher

__all__ = ["shown"]  # a fixture


async def test_every_worker_shows_a_camera_that_one_of_them_has(shown: Clip) -> None:
    async with AsyncExitStack() as stack:
        camera = await stack.enter_async_context(http_camera(shown.frames[0]))
        box = serving("--workers", "2", "--drain-seconds", "0", "--camera", f"door={camera.url}")
        process, announced = await asyncio.to_thread(stack.enter_context, box)
        page = announced["page"].rstrip("/")

        async def watch(count: int) -> list[Reply]:
            # Each client has a connection of its own, which either worker may get.
            async with Client(announced["grpc"]) as client, aclosing(client.watch("door")) as results:
                return [await anext(results) for _ in range(count)]

        viewer = await stack.enter_async_context(watcher(page))
        await viewer.connect("/whep/door")
        await viewer.frame()
        for replies in await asyncio.gather(*(watch(3) for _ in range(6))):
            assert [reply.id for reply in replies] == [1, 2, 3]
        assert camera.connections == 1
        for _ in range(4):
            [listed] = await asyncio.to_thread(get, f"{page}/v1/cameras")
            assert (listed["state"], listed["codec"]) == ("live", "mjpeg")

        def watch_without_asyncio() -> int:
            with SyncClient(announced["grpc"]) as client:
                return next(iter(client.watch("door", composite=True))).id

        assert await asyncio.to_thread(watch_without_asyncio) == 1
        assert urlsplit(camera.url).password == PASSWORD
        for shown_to_all in (process.pid, *workers(process.pid)):
            assert PASSWORD.encode() not in command_line(shown_to_all)
        process.terminate()
        log = await asyncio.to_thread(process.communicate)
        assert PASSWORD not in str(log)
