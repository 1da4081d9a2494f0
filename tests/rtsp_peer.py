"""A camera that speaks RTSP, played by GStreamer's server: `/usr/bin/python3 rtsp_peer.py VIDEO.mp4 [alaw|mulaw]`.

Prints its address. Run by the system's Python, which has GStreamer's bindings.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

TONE = "audiotestsrc is-live=true num-buffers=20 ! audio/x-raw,rate=8000,channels=1"
SOUNDS = {
    "": "",
    "alaw": f"{TONE} ! alawenc ! rtppcmapay name=pay1 pt=8",
    "mulaw": f"{TONE} ! mulawenc ! rtppcmupay name=pay1 pt=0",
}


def main(video: str, sound: str = "") -> None:
    Gst.init(None)
    factory = GstRtspServer.RTSPMediaFactory()
    picture = f"filesrc location={video} ! qtdemux ! rtph264pay name=pay0 pt=96 config-interval=-1"
    factory.set_launch(f"( {picture} {SOUNDS[sound]} )")
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/camera", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
