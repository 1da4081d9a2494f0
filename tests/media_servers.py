"""go2rtc, where it is installed: no registry has it, so whoever has it runs what needs it."""

import asyncio
import shutil
from asyncio import timeout
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_ports

GO2RTC = shutil.which("go2rtc")

needs_go2rtc = pytest.mark.skipif(GO2RTC is None, reason="go2rtc is not on the path: get it from its own site")


@dataclass(frozen=True)
class MediaServer:
    """One that has started: its addresses without a path."""

    rtsp: str
    http: str


@asynccontextmanager
async def go2rtc(folder: Path, **streams: str) -> AsyncIterator[MediaServer]:
    """go2rtc, as Frigate brings it along, with these streams; `[]` waits for who publishes it."""
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
