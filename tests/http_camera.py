"""A camera that sends MJPEG over HTTP, as many do, and does what a test asks of it: stall, change its size, be cut."""

import asyncio
import base64
import io
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import cv2
import numpy as np
from aiohttp import web

from tests.people import Array

USER, PASSWORD = "admin", "s3cret-word"
BOUNDARY = "frame"


class HttpCamera:
    """Serves `picture` again and again at `rate`."""

    def __init__(self, picture: Array, rate: float) -> None:
        self.picture, self.rate = picture, rate
        self.stalls = False
        """Whether it is silent, with its connections open."""
        self.breaks = False
        """Whether what it sends in place of pictures is none."""
        self.connections = self.opened = 0
        self._cuts = 0
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}/video.mjpg?key={PASSWORD}"

    @property
    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/video.mjpg", self._stream),
            web.get("/page", self._page),
            web.get("/moved", self._moved),
            web.get("/sound.wav", self._sound),
        ]

    async def _sound(self, request: web.Request) -> web.Response:
        recorded = io.BytesIO()
        with wave.open(recorded, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(bytes(16_000))
        return web.Response(body=recorded.getvalue(), content_type="audio/wav")

    async def _moved(self, request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": self.url})

    async def _page(self, request: web.Request) -> web.Response:
        return web.Response(text="<p>It works.</p>" * 100, content_type="text/html")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {wanted}":
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="camera"'})
        response = web.StreamResponse(headers={"Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}"})
        await response.prepare(request)
        self.connections += 1
        self.opened += 1
        try:
            with suppress(ConnectionError):
                await self._send(response)
        finally:
            self.connections -= 1
        return response

    def cut(self) -> None:
        """End every connection; the next ones are served."""
        self._cuts += 1

    async def _send(self, response: web.StreamResponse) -> None:
        cuts = self._cuts
        while cuts == self._cuts:
            if not self.stalls:
                jpeg = bytes(1000) if self.breaks else cv2.imencode(".jpg", self.picture)[1].tobytes()
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                await response.write(head.encode() + jpeg + b"\r\n")
            await asyncio.sleep(1 / self.rate)


@asynccontextmanager
async def http_camera(picture: Array | None = None, rate: float = 25.0, port: int = 0) -> AsyncIterator[HttpCamera]:
    shown = np.full((240, 320, 3), 90, np.uint8) if picture is None else picture
    camera = HttpCamera(shown, rate)
    application = web.Application()
    application.add_routes(camera.routes)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        camera.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        yield camera
    finally:
        await runner.cleanup()
