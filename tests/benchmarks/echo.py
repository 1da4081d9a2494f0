"""aiortc as it ships, sending back what comes: decode, encode, send; no network. `python -m tests.benchmarks.echo`.

Asked for `result=receive` it sends nothing back: what receiving and decoding alone cost.

Prints its port. The signalling is that of the service, so that one client speaks to both.
"""

import asyncio

from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaBlackhole, MediaRelay


async def main() -> None:
    """Serve until killed."""
    connections: set[RTCPeerConnection] = set()

    async def answer(request: web.Request) -> web.Response:
        pc, relay, hole = RTCPeerConnection(RTCConfiguration(iceServers=[])), MediaRelay(), MediaBlackhole()
        connections.add(pc)

        @pc.on("track")
        def take(track: MediaStreamTrack) -> None:
            if request.query.get("result") == "receive":
                hole.addTrack(track)
            else:
                pc.addTrack(relay.subscribe(track))

        await pc.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        await hole.start()
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
