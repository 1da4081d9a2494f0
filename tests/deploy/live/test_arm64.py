"""The image for arm64, built from the same Dockerfile and run under qemu-user: `make arm64-test`.

Emulated, a mask takes 0.3 s: what is shown is that everything is there and gives good masks,
nothing of speed.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from portrait.client import Client
from tests.calls import jpeg, pictures
from tests.deploy.live.engine import LIMITS, Engine
from tests.people import clip, iou

EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
NO_CORES = "--security-opt=mask=/sys/devices/system/cpu"
"""LiteRT's cpuinfo reads what the kernel says of the cores, here the emulating machine's, and ends with SIGSEGV."""

OFFLINE = ("run", "--rm", "--network=none", "--read-only", "--no-healthcheck", NO_CORES, *LIMITS)

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not EMULATOR.exists(), reason="the kernel has no emulator of arm64: qemu-user-static, as root"),
]


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The Dockerfile, built for arm64."""
    return engine.build(None, "arm64")


def test_it_is_arm64_and_fit_to_serve(engine: Engine, image: str) -> None:
    machine = ("--entrypoint=python", image, "-c", "import platform; print(platform.machine())")
    assert engine.podman(*OFFLINE, *machine).strip() == "aarch64"
    checks = json.loads(engine.podman(*OFFLINE, image, "doctor", "--json", timeout=600))
    assert all(check["ok"] for check in checks if check["fatal"]), checks


async def test_it_serves_good_masks(engine: Engine, image: str) -> None:
    shown = clip(320, 240, 6)
    with engine.serving(image, NO_CORES, "--env=PORTRAIT_HANG_SECONDS=60", "--env=PORTRAIT_CPU_SHARE=0") as running:
        running.wait_ready(300)
        async with Client(f"127.0.0.1:{running.grpc}") as client:
            replies = [reply async for reply in client.stream(pictures(shown.frames, jpeg), every_frame=True)]
    assert [reply.id for reply in replies] == list(range(6))
    enlarged = [np.asarray(cv2.resize(reply.array, (320, 240)), np.uint8) for reply in replies]
    assert min(map(iou, shown.masks, enlarged)) > 0.8
