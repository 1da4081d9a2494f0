"""aiortc as it ships, sending back what comes: decode, encode, send; no network. `python -m tests.benchmarks.echo`.

Prints its port. The signalling is that of the service, so that one client speaks to both.
"""

import asyncio

from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay


async def main() -> None:
    """Serve until killed."""
    connections: set[RTCPeerConnection] = set()

    async def answer(request: web.Request) -> web.Response:
        pc, relay = RTCPeerConnection(RTCConfiguration(iceServers=[])), MediaRelay()
        connections.add(pc)

        @pc.on("track")
        def send_back(track: MediaStreamTrack) -> None:
            pc.addTrack(relay.subscribe(track))

        await pc.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        return web.Response(
            status=201,
            text=pc.localDescription.sdp,
            content_type="application/sdp",
            headers={"Location": "/none", "ETag": "none"},
        )

    application = web.Application()
    application.add_routes([web.post("/webrtc", answer)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
