"""MediaMTX and go2rtc, where they are installed: no registry has either, so these tests are `live`."""

import asyncio
import shutil
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_ports

MEDIAMTX, GO2RTC = shutil.which("mediamtx"), shutil.which("go2rtc")

needs_mediamtx = pytest.mark.skipif(MEDIAMTX is None, reason="mediamtx is not on the path: get it from its own site")
needs_go2rtc = pytest.mark.skipif(GO2RTC is None, reason="go2rtc is not on the path: get it from its own site")

LOGIN = "portrait:secret-word"
"""A user of MediaMTX and the password."""


@dataclass(frozen=True)
class MediaServer:
    """One that has started: its addresses without a path, with its user and the password where it asks for them."""

    rtsp: str
    http: str
    rtmp: str = ""
    """Without user and password: MediaMTX takes those of RTMP from the query."""


@asynccontextmanager
async def mediamtx(folder: Path, **sources: str) -> AsyncIterator[MediaServer]:
    """MediaMTX with these paths, which it pulls while a client reads them, and any that are published, for one user."""
    rtsp, rtmp, http, media = free_ports(4)
    user, _, password = LOGIN.partition(":")
    pulled = "".join(f"  {name}: {{source: '{source}', sourceOnDemand: true}}\n" for name, source in sources.items())
    configuration = folder / "mediamtx.yml"
    configuration.write_text(
        f"""
rtspAddress: 127.0.0.1:{rtsp}
rtspTransports: [tcp]
rtmpAddress: 127.0.0.1:{rtmp}
webrtcAddress: 127.0.0.1:{http}
webrtcLocalUDPAddress: 127.0.0.1:{media}
webrtcIPsFromInterfaces: false
webrtcAdditionalHosts: [127.0.0.1]
hls: false
srt: false
moq: false
authInternalUsers:
  - user: {user}
    pass: {password}
    permissions: [{{action: publish}}, {{action: read}}]
paths:
  all_others: {{}}
{pulled}"""
    )
    async with serving([MEDIAMTX or "mediamtx", str(configuration)], folder / "mediamtx.log", [rtsp, rtmp, http]):
        yield MediaServer(
            f"rtsp://{LOGIN}@127.0.0.1:{rtsp}", f"http://{LOGIN}@127.0.0.1:{http}", f"rtmp://127.0.0.1:{rtmp}"
        )


@asynccontextmanager
async def go2rtc(folder: Path, **streams: str) -> AsyncIterator[MediaServer]:
    """go2rtc, as Frigate brings it along, with these streams; an empty one waits for who publishes it."""
    rtsp, http, media = free_ports(3)
    configuration = folder / "go2rtc.yaml"
    declared = "".join(f"  {name}: {source}\n" for name, source in streams.items())
    configuration.write_text(
        f"""
api: {{listen: "127.0.0.1:{http}"}}
rtsp: {{listen: "127.0.0.1:{rtsp}"}}
rtmp: {{listen: ""}}
srtp: {{listen: ""}}
webrtc:
  listen: "127.0.0.1:{media}"
  ice_servers: []
  filters: {{loopback: true, networks: [udp4, tcp4]}}
streams:
{declared}"""
    )
    async with serving([GO2RTC or "go2rtc", "-config", str(configuration)], folder / "go2rtc.log", [rtsp, http]):
        yield MediaServer(f"rtsp://127.0.0.1:{rtsp}", f"http://127.0.0.1:{http}")


@asynccontextmanager
async def serving(command: list[str], log: Path, ports: list[int]) -> AsyncIterator[None]:
    """A program, from when it listens at all of these ports."""
    with log.open("wb") as said:
        server = await asyncio.create_subprocess_exec(*command, stdout=said, stderr=said)
        try:
            async with timeout(60):
                for port in ports:
                    while not await listens(port):
                        assert server.returncode is None, log.read_text()
                        await asyncio.sleep(0.1)
            yield
        finally:
            server.terminate()
            await server.wait()


async def listens(port: int) -> bool:
    """Whether something accepts connections at a port of this machine."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
