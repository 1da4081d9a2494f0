"""aiortc as it ships, relaying one stream to viewers: `python -m tests.benchmarks.relay`. Prints its port."""

import asyncio

from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay


async def main() -> None:
    """Serve until killed."""
    connections: set[RTCPeerConnection] = set()
    relay, published = MediaRelay(), asyncio.get_running_loop().create_future()

    async def answer(request: web.Request) -> web.Response:
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.add(pc)

        @pc.on("track")
        def take(track: MediaStreamTrack) -> None:
            if not published.done():
                published.set_result(track)

        if request.path.startswith("/whep"):
            pc.addTrack(relay.subscribe(await published))
        await pc.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        return web.Response(
            status=201,
            text=pc.localDescription.sdp,
            content_type="application/sdp",
            headers={"Location": "/none", "ETag": "none"},
        )

    application = web.Application()
    application.add_routes([web.post("/whip/desk", answer), web.post("/whep/desk", answer)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
