"""What the service needs of the box itself: a model, credentials, free ports, CPU."""

import importlib.metadata
import os
import platform
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from portrait.admission.cgroup import cpu_budget
from portrait.core.segmenters import choose_models, warm
from portrait.errors import PortraitError
from portrait.security import open_security
from portrait.settings import Settings
from portrait.workers.environment import missing_variables


@dataclass(frozen=True)
class Check:
    """One thing that was checked."""

    name: str
    ok: bool
    finding: str
    fatal: bool = True
    """Whether the service cannot run while this is not ok."""


def examine_box(settings: Settings) -> Iterator[Check]:
    """Check the box itself."""
    yield Check("python", True, platform.python_version())
    yield _model(settings)
    yield _security(settings)
    yield _port("http port", settings.host, settings.http_port)
    yield _port("grpc port", settings.host, settings.grpc_port)
    missing = missing_variables(os.environ)
    yield Check(
        "allocator",
        not missing,
        "tuned" if not missing else f"{', '.join(missing)} not set; `portrait serve` sets them for itself",
        fatal=False,
    )
    budget = cpu_budget()
    yield Check("cpu budget", budget >= 1.0, f"{budget:g} cores", fatal=False)


def examine_packages() -> Iterator[Check]:
    """List the versions of the packages that matter most."""
    for package in ("aiortc", "av", "grpcio", "numpy", "opencv-python-headless"):
        yield Check(package, True, importlib.metadata.version(package), fatal=False)


def _model(settings: Settings) -> Check:
    try:
        models = choose_models(settings)
        started = time.perf_counter()
        warm(models)
        milliseconds = 1000 * (time.perf_counter() - started)
    except PortraitError as error:
        return Check("model", False, str(error))
    used = dict.fromkeys(f"{model.name} {model.width}x{model.height}" for model in models.by_use.values())
    runtime = models.pick(None).runtime
    return Check("model", True, f"{' and '.join(used)} on {runtime}, opened and run in {milliseconds:.0f} ms")


def _security(settings: Settings) -> Check:
    try:
        security = open_security(settings, create=False)
    except PortraitError as error:
        return Check("security", False, str(error))
    ends = min(security.certificates.expiries().values()) if security.certificates else None
    if ends is not None:
        tls = f"TLS until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}"
    else:
        tls = "TLS by an authority that the first start makes" if settings.encrypted else "no TLS"
    finding = f"{'any client may call' if security.open else 'clients need credentials'}, {tls}"
    return Check("security", ends is None or ends > time.time(), finding)


def _port(name: str, host: str, port: int) -> Check:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return Check(name, False, f"{host}:{port}: {error.strerror}")
    return Check(name, True, f"{host}:{port} is free")
