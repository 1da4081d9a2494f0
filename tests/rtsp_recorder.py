"""A server that records what is pushed to it over RTSP, by GStreamer: `/usr/bin/python3 rtsp_recorder.py FILE.mkv`.

Prints its address. Run by the system's Python, which has GStreamer's bindings.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main(target: str) -> None:
    Gst.init(None)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    written = f"matroskamux streamable=true ! filesink location={target} sync=false buffer-mode=2"
    factory.set_launch(f"( rtph264depay name=depay0 ! h264parse ! {written} )")
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory("/pushed", factory)
    server.attach(None)
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/pushed", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
