"""Debian's simple-whip-client: GStreamer publishes over WHIP.

As packaged in Debian 12 it aborts: it is linked with libsoup 2, while libnice pulls in libsoup 3 through libgupnp-igd
(port forwarding on home routers) and plugins bring it as well. So libgupnp-igd is replaced by an empty one, and those
plugins are left out.
"""

import asyncio
import os
import shutil
import signal
import subprocess
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PROGRAM = "whip-client"

EMPTY = """
typedef void *pointer;
unsigned long gupnp_simple_igd_get_type(void) { return 0; }
pointer gupnp_simple_igd_thread_new(void) { return 0; }
void gupnp_simple_igd_add_port(pointer igd) { (void) igd; }
void gupnp_simple_igd_remove_port_local(pointer igd) { (void) igd; }
"""

LEFT_OUT = ("soup", "adaptivedemux2", "hls", "dash", "smoothstreaming", "curl")

RED = "videotestsrc is-live=true pattern=red ! video/x-raw,width=640,height=480,framerate=30/1 ! videoconvert ! "

VP8 = RED + (
    "vp8enc deadline=1 target-bitrate=1000000 keyframe-max-dist=60 ! rtpvp8pay pt=96 ssrc=2 ! "
    "capsfilter caps=application/x-rtp,media=video,encoding-name=VP8,payload=96"
)
H264_HIGH = RED + (
    "x264enc tune=zerolatency speed-preset=ultrafast dct8x8=true bitrate=1000 key-int-max=60 ! "
    "video/x-h264,profile=high,stream-format=byte-stream ! "
    "rtph264pay config-interval=-1 aggregate-mode=zero-latency pt=96 ssrc=2 ! "
    "capsfilter caps=application/x-rtp,media=video,encoding-name=H264,payload=96"
)
"""x264's own default profile where nothing asks for another."""

TONE = (
    "audiotestsrc is-live=true freq=440 ! audioconvert ! audioresample ! opusenc ! rtpopuspay pt=100 ssrc=1 ! "
    "capsfilter caps=application/x-rtp,media=audio,encoding-name=OPUS,payload=100"
)


def missing() -> str | None:
    """Why it cannot run here; None: it can."""
    absent = [tool for tool in (PROGRAM, "gcc") if shutil.which(tool) is None]
    return f"{', '.join(absent)} not installed (make system-packages)" if absent else None


def environment(folder: Path) -> dict[str, str]:
    """What it needs to start, made in a folder."""
    source, library, plugins = folder / "igd.c", folder / "libgupnp-igd-1.0.so.4", folder / "plugins"
    source.write_text(EMPTY)
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wl,-soname,libgupnp-igd-1.0.so.4", "-o", library, source], check=True)
    plugins.mkdir()
    [installed] = Path("/usr/lib").glob("*-linux-gnu/gstreamer-1.0")
    for plugin in installed.glob("libgst*.so"):
        if plugin.name.removeprefix("libgst").removesuffix(".so") not in LEFT_OUT:
            (plugins / plugin.name).symlink_to(plugin)
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(folder),
        "GST_PLUGIN_SYSTEM_PATH_1_0": str(plugins),
        "GST_REGISTRY_1_0": str(folder / "registry"),
    }


@asynccontextmanager
async def publishing(folder: Path, url: str, token: str, *options: str, video: str = VP8) -> AsyncIterator[None]:
    """A red picture, published for the length of the block; the session is deleted at its end."""
    command = (PROGRAM, "--url", url, "--token", token, "--video", video, *options)
    process = await asyncio.create_subprocess_exec(*command, env=environment(folder))
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        async with timeout(60):
            await process.wait()
