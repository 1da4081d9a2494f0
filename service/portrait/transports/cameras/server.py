"""The cameras of a service: opened with it, shown over HTTP, and closed at its end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from aiohttp import web

from portrait.errors import BadOption, BadSettings
from portrait.image.backgrounds import Backgrounds
from portrait.logs import tell_failure
from portrait.sessions.broadcasts import Broadcasts
from portrait.sessions.registry import Sessions
from portrait.settings import Settings
from portrait.transports.cameras.addresses import is_own
from portrait.transports.cameras.camera import Camera
from portrait.transports.cameras.codec import PacketCodec
from portrait.transports.cameras.declared import Declared, read_cameras


class Cameras:
    """The cameras of this worker, and their route. Opened by `open_cameras`."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self._cameras = cameras

    @property
    def routes(self) -> list[web.RouteDef]:
        """The routes to add to the HTTP server."""
        return [web.get("/v1/cameras", self._list)]

    async def _list(self, request: web.Request) -> web.Response:
        return web.json_response([camera.describe() for camera in self._cameras])


@asynccontextmanager
async def open_cameras(
    settings: Settings, sessions: Sessions, broadcasts: Broadcasts, backgrounds: Backgrounds
) -> AsyncIterator[Cameras]:
    """The declared cameras for the length of the block; those that are always connected begin at once.

    Raises:
        BadSettings: a camera cannot be declared so; says which and why.
    """
    declared = await asyncio.to_thread(_checked, settings)
    cameras = []
    for each in declared:
        options = each.options
        try:
            if each.background:
                options = replace(options, background=await backgrounds.pick(each.background))
            if options.mode not in PacketCodec.modes:
                raise BadOption("mode", f"got {options.mode!r}, expected one of {', '.join(PacketCodec.modes)}")
            if options.mode == "image" and options.background is None:
                raise BadOption("background", "got none, expected the name of one for mode image")
            sessions.models.pick(each.model)
        except BadOption as error:
            raise BadSettings(f"camera {each.name!r}: {error}") from None
        cameras.append(Camera(each, options, sessions, broadcasts, settings.max_frame_pixels))
    tasks = [asyncio.create_task(camera.run(), name=f"camera-{camera.name}") for camera in cameras]
    for task in tasks:
        task.add_done_callback(tell_failure)
    try:
        yield Cameras(cameras)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _checked(settings: Settings) -> tuple[Declared, ...]:
    """The declared cameras, none of which is this service itself: names are looked up, which may wait."""
    declared = read_cameras(settings)
    own = frozenset({settings.http_port, settings.grpc_port} - {0})
    for camera in declared:
        camera.address.check_supported()
        for address in filter(None, (camera.address, camera.push)):
            if (target := address.target) is not None and is_own(target, own):
                raise BadSettings(f"camera {camera.name!r}: an address is this service's own, expected another one's")
    return declared
