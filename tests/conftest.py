"""Fixtures that several test files use."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from portrait.core.segmenters import Model, Models, load_models
from portrait.server.app import RunningService, run_service
from portrait.settings import Settings

# Services under test measure nothing of a machine that does other things meanwhile, unless a test says so.
os.environ |= {"PORTRAIT_CPU_SHARE": "0", "PORTRAIT_QUALITY_STEPS": "0"}

# Several of them run at once.
os.environ["PORTRAIT_MEDIA_PORT"] = "0"

LONGEST_FIRST = (
    "test_upgrades", "test_cli", "network/test_network", "test_browser_module", "faults/test_machine", "test_workers",
    "test_pixel_budget", "test_browser_session", "test_soak", "test_page", "faults/test_fail_closed",
    "network/test_cuts", "test_supervisor", "test_page_code", "test_openapi", "network/test_browser",
    "faults/test_peers", "test_getting_started", "test_browser_examples", "test_commands", "test_js_package",
    "test_clients", "test_vanished_clients", "test_page_words", "test_page_access", "faults/test_processes",
    "test_hostile_bombs", "test_page_pictures", "test_kserve", "test_fuzz", "test_churn", "test_hostile_offers",
)  # fmt: skip
"""Files in the order in which `--dist loadfile` hands them out; the others follow. No worker waits for a long one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hand out long files first."""
    order = {f"tests/{name}.py": place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


# A shell lets what it starts in the background ignore SIGINT, and whatever that starts inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def models() -> Models:
    """The embedded models, loaded once: they are immutable."""
    return load_models()


@pytest.fixture(scope="session")
def model(models: Models) -> Model:
    """The default model."""
    return models.pick(None)


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Every session's thread is gone after its test."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("session-"):
            thread.join(timeout=60)
            assert not thread.is_alive(), f"{thread.name} is left"


def udp_sockets() -> set[str]:
    """The inodes of this process's UDP sockets."""
    open_files = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own descriptor
            open_files.add(str(descriptor.readlink()))
    tables = [Path(f"/proc/self/net/{name}").read_text() for name in ("udp", "udp6")]
    inodes = {line.split()[9] for table in tables for line in table.splitlines()[1:]}
    return {inode for inode in inodes if f"socket:[{inode}]" in open_files}


@pytest.fixture
def no_sockets_left() -> Iterator[None]:
    """Every media socket is closed after its test."""
    before = udp_sockets()
    yield
    assert udp_sockets() <= before


@pytest.fixture
def any_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """One address may ask as often as it likes."""
    monkeypatch.setattr("portrait.transports.webrtc.offer_limits.BURST", 10**9)


@pytest.fixture
def settings() -> Settings:
    """Settings of a service under test: any free port, no waiting at the end."""
    return Settings(http_port=0, grpc_port=0, max_sessions=4, drain_seconds=0.0, idle_seconds=5.0)


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[RunningService]:
    """A whole service in this process; nothing of it is left at the end."""
    before = asyncio.all_tasks()
    async with run_service(settings) as running:
        yield running
    left = {task for task in asyncio.all_tasks() - before if not task.done() and task is not asyncio.current_task()}
    # grpc.aio ends its own bookkeeping tasks a moment after the server; anything of ours is a leak.
    names = [task.get_name() for task in left if task.get_name().startswith(("grpc-", "webrtc-", "loop-lag"))]
    assert not names, f"tasks are left: {names}"
