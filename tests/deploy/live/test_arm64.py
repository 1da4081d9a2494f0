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
CORES = 2
CORE = """processor : {}
Features : fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer : 0x41
CPU architecture: 8
CPU variant : 0x4
CPU part : 0xd0b
CPU revision : 1
"""
"""A Cortex-A76 as the kernel describes it. It computes in half precision, and so does LiteRT there."""

OFFLINE = ("run", "--rm", "--network=none", "--read-only", "--no-healthcheck", *LIMITS)

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not EMULATOR.exists(), reason="the kernel has no emulator of arm64: qemu-user-static, as root"),
]


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options that show a container the cores of an arm64 machine.

    LiteRT's cpuinfo ends with SIGSEGV where it reads of those of the emulating machine.
    """
    folder = tmp_path_factory.mktemp("cores")
    system, described = folder / "system", folder / "cpuinfo"
    described.write_text("\n".join(CORE.format(number) for number in range(CORES)))
    for number in range(CORES):
        core = system / f"cpu{number}"
        (core / "topology").mkdir(parents=True)
        (core / "topology/core_id").write_text(f"{number}\n")
        (core / "topology/physical_package_id").write_text("0\n")
        (core / "topology/core_siblings_list").write_text(f"0-{CORES - 1}\n")
    for name in ("possible", "present", "online"):
        (system / name).write_text(f"0-{CORES - 1}\n")
    return f"--volume={system}:/sys/devices/system/cpu:ro", f"--volume={described}:/proc/cpuinfo:ro"


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    """The Dockerfile, built for arm64."""
    return engine.build(None, "arm64")


def test_it_is_arm64_and_fit_to_serve(engine: Engine, image: str, cores: tuple[str, ...]) -> None:
    machine = ("--entrypoint=python", image, "-c", "import platform; print(platform.machine())")
    assert engine.podman(*OFFLINE, *cores, *machine).strip() == "aarch64"
    checks = json.loads(engine.podman(*OFFLINE, *cores, image, "doctor", "--json", timeout=600))
    assert all(check["ok"] for check in checks if check["fatal"]), checks


async def test_it_serves_good_masks(engine: Engine, image: str, cores: tuple[str, ...]) -> None:
    shown = clip(320, 240, 6)
    with engine.serving(image, *cores, "--env=PORTRAIT_HANG_SECONDS=60", "--env=PORTRAIT_CPU_SHARE=0") as running:
        running.wait_ready(300)
        async with Client(f"127.0.0.1:{running.grpc}") as client:
            replies = [reply async for reply in client.stream(pictures(shown.frames, jpeg), every_frame=True)]
    assert [reply.id for reply in replies] == list(range(6))
    enlarged = [np.asarray(cv2.resize(reply.array, (320, 240)), np.uint8) for reply in replies]
    assert min(map(iou, shown.masks, enlarged)) > 0.8
