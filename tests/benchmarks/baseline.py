"""A server after aiortc's own example, with the same model: what the service is measured against.

As in aiortc's `examples/server/server.py`: a track that pulls a frame, turns it into a BGR array, works on it inside
`recv()` and makes a frame of it again; MediaRelay, default encoders, nothing changed in aiortc. Two things are not as
there: signalling is the service's, and no STUN server is asked, which would cost five seconds where there is none.
Network and compositor are the service's own, so that only the way around them differs.
"""

import argparse
import asyncio
import json

import aiortc
import av
from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay

from portrait.core.compositors import Options, open_compositor
from portrait.core.pipeline import Pipeline
from portrait.core.segmenters import Model, load_models
from portrait.image.convert import bgr_from_frame, frame_from_bgr
from portrait.image.frame import Timestamp
from portrait.metrics import Metrics


class TransformTrack(MediaStreamTrack):
    """The camera's frames, worked on one by one."""

    kind = "video"

    def __init__(self, track: MediaStreamTrack, model: Model) -> None:
        super().__init__()
        self._track, self._options = track, Options("blur")
        self._compositor = open_compositor(self._options)
        self._pipeline = Pipeline(model.open(), (model.width, model.height), Metrics())

    async def recv(self) -> av.VideoFrame:
        frame = await self._track.recv()
        assert isinstance(frame, av.VideoFrame)
        assert frame.pts is not None
        assert frame.time_base is not None
        picture = frame.to_ndarray(format="bgr24")
        timestamp = Timestamp(frame.pts, frame.time_base)
        result = self._pipeline.run(frame_from_bgr(picture, timestamp, 0.0), self._options, self._compositor)
        made = av.VideoFrame.from_ndarray(bgr_from_frame(result.compose()), format="bgr24")
        made.pts, made.time_base = frame.pts, frame.time_base
        return made


class Server:
    """The connections of the example."""

    def __init__(self) -> None:
        self._model, self._relay = load_models().pick(None), MediaRelay()
        self._connections: set[RTCPeerConnection] = set()

    async def answer(self, request: web.Request) -> web.Response:
        """An SDP offer in, an answer out."""
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._connections.add(connection)

        @connection.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            connection.addTrack(TransformTrack(self._relay.subscribe(track), self._model))

        @connection.on("connectionstatechange")
        async def on_change() -> None:
            if connection.connectionState in ("failed", "closed"):
                self._connections.discard(connection)
                await connection.close()

        await connection.setRemoteDescription(RTCSessionDescription(await request.text(), "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        return web.Response(text=connection.localDescription.sdp, content_type="application/sdp")


async def serve(port: int) -> None:
    """Serve until killed."""
    application = web.Application()
    application.router.add_post("/webrtc", Server().answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    page = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    print(json.dumps({"page": page, "aiortc": aiortc.__version__}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
