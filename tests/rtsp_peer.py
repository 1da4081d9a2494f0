"""A camera that speaks RTSP, played by GStreamer's server: `/usr/bin/python3 rtsp_peer.py VIDEO.mp4 [SOUND] ...`.

VIDEO may be empty: then it has sound alone. The sound is one of SOUNDS; after it come the port (0: any), a password for
the user `admin` where it asks for one, and what it calls the codec of its video in place of the right name. Prints its
address. Run by the system's Python, which has GStreamer's bindings.
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
    "endless": f"{TONE.replace('num-buffers=20 ', '')} ! alawenc ! rtppcmapay name=pay1 pt=8",
    "mulaw": f"{TONE} ! mulawenc ! rtppcmupay name=pay1 pt=0",
}
VIDEOS = {"h264": "rtph264pay", "h265": "h265parse ! rtph265pay"}


def pipeline(video: str, sound: str, called: str) -> str:
    if not video:
        return SOUNDS[sound].replace("pay1", "pay0")
    packing = VIDEOS["h265" if "h265" in video.rpartition("/")[2] else "h264"]
    picture = f"filesrc location={video} ! qtdemux ! {packing} name=pay0 pt=96 config-interval=-1"
    if called:
        picture = picture.replace(" name=pay0", "")
        picture += f' ! capssetter name=pay0 caps="application/x-rtp,encoding-name=(string){called}"'
    return f"{picture} {SOUNDS[sound]}"


def main(video: str, sound: str = "", port: str = "0", password: str = "", called: str = "") -> None:
    Gst.init(None)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {pipeline(video, sound, called)} )")
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    if password:
        token = GstRtspServer.RTSPToken()
        token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic("admin", password), token)
        server.set_auth(auth)
        allowed = "user, media.factory.access=true, media.factory.construct=true"
        factory.add_role_from_structure(Gst.Structure.from_string(allowed)[0])
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/camera", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
