"""`portrait doctor`: is this box fit to serve, and if not, why not."""

import importlib.metadata
import os
import platform
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from portrait.admission.cgroup import cpu_budget
from portrait.core.segmenters import load_models, warm
from portrait.doctor.check import Check
from portrait.doctor.reachability import examine_outside
from portrait.errors import PortraitError
from portrait.security import open_security
from portrait.settings import Settings
from portrait.workers.environment import missing_variables


def examine(settings: Settings) -> Iterator[Check]:
    """Everything the service needs of the box, one check after the other."""
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
    yield from examine_outside(settings)
    for package in ("aiortc", "av", "grpcio", "numpy", "opencv-python-headless"):
        yield Check(package, True, importlib.metadata.version(package), fatal=False)


def _model(settings: Settings) -> Check:
    try:
        model = load_models(settings.model, settings.runtime).pick(None)
        started = time.perf_counter()
        warm(model)
        milliseconds = 1000 * (time.perf_counter() - started)
    except PortraitError as error:
        return Check("model", False, str(error))
    return Check(
        "model",
        True,
        f"{model.name} {model.width}x{model.height} on {model.runtime}, opened and run in {milliseconds:.0f} ms",
    )


def _security(settings: Settings) -> Check:
    try:
        security = open_security(settings)
    except PortraitError as error:
        return Check("security", False, str(error))
    certificates = security.certificates
    ends = min(certificates.expiries().values()) if certificates else None
    tls = "no TLS" if ends is None else f"TLS until {datetime.fromtimestamp(ends, UTC):%Y-%m-%d}"
    finding = f"{'everybody may call' if security.open else 'callers are authenticated'}, {tls}"
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
